//! Whose answer an attempt met: told by the error, which each wall has its own of. Pure.

use super::End;
use crate::engine::escape::Outcome;
use crate::engine::process::Exit;
use rustix::io::Errno;

/// What an attempt met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it was stopped.
    pub stopped: bool,
    /// In words.
    pub words: String,
    /// By what.
    pub by: String,
}

impl Answer {
    /// Of one end.
    pub(super) fn of(end: &End) -> Self {
        match end {
            End::Said(Outcome::Succeeded(words)) => Self {
                stopped: false,
                words: format!("it worked: {words}"),
                by: "nothing".to_owned(),
            },
            End::Said(Outcome::Refused { errno, words }) => Self {
                stopped: true,
                words: words.clone(),
                by: errno.map_or("the engine's process", wall).to_owned(),
            },
            End::TooMuch(why) => Self {
                stopped: true,
                words: format!("ended: {why}"),
                by: "the worker, which watches memory and threads".to_owned(),
            },
            End::Gone(exit) => Self {
                stopped: true,
                words: format!("its process {exit}"),
                by: match exit {
                    Exit::Forbidden => "system call filter, which ends the process",
                    Exit::NoMemory => "RLIMIT_DATA",
                    Exit::ByItself(_) | Exit::Killed => "the kernel",
                }
                .to_owned(),
            },
        }
    }
}

/// Which wall gives this error.
fn wall(errno: i32) -> &'static str {
    match Errno::from_raw_os_error(errno) {
        Errno::PERM => "system call filter (EPERM)",
        Errno::ACCESS => "Landlock (EACCES)",
        Errno::NOENT => "root of its own, in which there is no such file (ENOENT)",
        Errno::ROFS => "read-only root (EROFS)",
        Errno::NOMEM => "RLIMIT_DATA (ENOMEM)",
        Errno::MFILE => "RLIMIT_NOFILE (EMFILE)",
        Errno::AGAIN => "RLIMIT_NPROC (EAGAIN)",
        Errno::FBIG => "RLIMIT_FSIZE (EFBIG)",
        Errno::NETUNREACH => "empty network namespace (ENETUNREACH)",
        Errno::CONNREFUSED => "network namespace, in which nobody listens (ECONNREFUSED)",
        _ => "the kernel",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_worked_was_not_stopped() {
        let worked = Answer::of(&End::Said(Outcome::Succeeded("connected".to_owned())));
        assert!(!worked.stopped);
        let refused = Answer::of(&End::Said(Outcome::Refused {
            errno: Some(Errno::PERM.raw_os_error()),
            words: "Operation not permitted".to_owned(),
        }));
        assert!(refused.stopped && refused.by.contains("filter"));
        assert!(
            Answer::of(&End::Gone(Exit::Forbidden))
                .by
                .contains("filter")
        );
        assert!(
            Answer::of(&End::TooMuch("full".to_owned()))
                .by
                .contains("worker")
        );
    }
}
