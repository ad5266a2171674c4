//! Why an engine's process ends, as a cause and in words.

use super::watched::Watched;
use crate::engine::process::{Exit, Process};
use crate::engine::restart::Cause;
use crate::engine::spec::Refused;
use std::io;

/// Why a life of an engine ended.
pub(super) enum Ending {
    Stopped,
    /// It must not start, now or later.
    Refused(Refused),
    Failed(Cause, String),
}

impl Ending {
    fn for_good(code: &'static str, reason: String) -> Self {
        Self::Refused(Refused {
            code,
            reason,
            passing: false,
        })
    }
}

/// Why a process is to end, or did.
pub(super) enum Why {
    Stopped,
    Gone,
    Garbage(String),
    Silent(u64),
    Stuck,
    NotReading,
    LoadLate(u64),
    LoadFailed(String),
    Unfit(String),
    TooMuch(String),
    Unprotected(String),
    Differs(String),
}

impl Why {
    /// A socket that breaks, in the middle of a message or with some unread, is a process that ended.
    pub(super) fn broken(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Self::Garbage(error.to_string()),
            _ => Self::Gone,
        }
    }

    /// Ends the process and puts what happened into words.
    pub(super) async fn end(self, process: Process, watched: Watched) -> Ending {
        let is_hung = !matches!(
            self,
            Self::Stopped | Self::Gone | Self::LoadFailed(_) | Self::Unfit(_)
        );
        let exit = process.end(is_hung).await;
        let (cause, reason) = match self {
            Self::Stopped => return Ending::Stopped,
            Self::Gone if watched.was_full() => (
                Cause::Memory,
                "the engine filled its control group, and the kernel ended it".to_owned(),
            ),
            Self::Gone => {
                let cause = match exit {
                    Exit::Forbidden => Cause::Sandbox,
                    Exit::NoMemory => Cause::Memory,
                    Exit::ByItself(_) | Exit::Killed => Cause::Crash,
                };
                (cause, format!("the engine {exit}"))
            }
            Self::TooMuch(why) => (Cause::Memory, format!("the engine was ended: {why}")),
            Self::Unprotected(reason) => return Ending::for_good("sandbox", reason),
            Self::Unfit(reason) => return Ending::for_good("adapter-unfit", reason),
            Self::Differs(reason) => (Cause::Changed, reason),
            Self::Garbage(error) => (
                Cause::Garbage,
                format!("the engine sent what is not a message: {error}"),
            ),
            Self::Silent(ms) => (
                Cause::Hang,
                format!("the engine hung: it gave no sign of life for {ms} ms"),
            ),
            Self::Stuck => (
                Cause::Hang,
                "the engine hung: it made no progress with any answer in time".to_owned(),
            ),
            Self::NotReading => (
                Cause::Hang,
                "the engine hung: it does not read its messages".to_owned(),
            ),
            Self::LoadLate(ms) => (
                Cause::Load,
                format!("the model did not load within {ms} ms"),
            ),
            Self::LoadFailed(reason) => {
                (Cause::Load, format!("the engine cannot load it: {reason}"))
            }
        };
        Ending::Failed(cause, reason)
    }
}
