//! SIGINT and SIGTERM: the first asks for a drain, the second ends at once.

use std::future::Future;
use tether_telemetry::TelemetryGuard;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// The signals that end a process.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to listen; from here on the signals no longer kill the process.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal's name.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }

    /// Drains; a second signal cuts it short.
    pub(crate) async fn drain(&mut self, signal: &str, drain: impl Future<Output = ()>) -> Drained {
        info!("{signal}: draining; a second signal stops at once");
        tokio::select! {
            () = drain => Drained::Whole,
            again = self.next() => {
                warn!("{again} while draining: stopping at once");
                Drained::CutShort
            }
        }
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "who asks twice waits for nothing"]
pub(crate) enum Drained {
    /// All came to its end.
    Whole,
    /// By a second signal.
    CutShort,
}

impl Drained {
    /// Sends the last spans, unless nothing is waited for any more.
    pub(crate) fn end(self, guard: TelemetryGuard) {
        match self {
            Self::Whole => guard.shutdown(),
            Self::CutShort => guard.abandon(),
        }
    }
}
