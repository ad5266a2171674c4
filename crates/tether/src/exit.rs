//! Exit codes, and the last words of a process that failed.

use crate::commands::receipt::ReceiptRefused;
use crate::config::ConfigError;
use crate::roles::worker::join::JoinError;
use crate::stderr;
use crate::stdout::StdoutError;
use std::process::ExitCode;
use tether_orchestrator::policy::PolicyError;

/// It failed.
const FAILURE: u8 = 1;
/// The command line is wrong. Mostly said by clap itself.
const USAGE: u8 = 2;
/// The configuration is invalid; nothing was started.
const CONFIG: u8 = 3;
/// Something could not be reached, or is not ready.
const NOT_READY: u8 = 4;

/// A policy would refuse the request.
pub(crate) const POLICY_REFUSES: u8 = 6;

/// What the codes mean, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  it failed; the reason is on stderr
  2  wrong usage
  3  the configuration is invalid; nothing was started
  4  something could not be reached, or is not ready
Those of joining a mesh are in the help of `tether worker`, those of receipts in that of
`tether receipt verify`, that of a refused request in that of `tether policy test`.";

/// A peer, a server or a mesh that could not be reached or is not ready; a script may try again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotReady(pub(crate) String);

/// A command line that clap takes and that still cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) &'static str);

/// Prints an error with its causes and gives the process its exit code.
pub(crate) fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) if is_closed_stdout(&error) => ExitCode::SUCCESS,
        Err(error) => {
            stderr::line(format_args!("error: {}", words(&error)));
            ExitCode::from(code(&error))
        }
    }
}

/// An error with its causes. Many errors say their cause in their own words, since they are also
/// shown alone: what was just said is not said again.
pub(crate) fn words(error: &anyhow::Error) -> String {
    let mut words = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if words.is_empty() {
            words = cause;
        } else if !words.ends_with(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

fn code(error: &anyhow::Error) -> u8 {
    let is_config = error.downcast_ref::<ConfigError>().is_some();
    if is_config || error.downcast_ref::<PolicyError>().is_some() {
        CONFIG
    } else if let Some(error) = error.downcast_ref::<JoinError>() {
        error.exit_code()
    } else if let Some(error) = error.downcast_ref::<ReceiptRefused>() {
        error.exit_code()
    } else if error.downcast_ref::<NotReady>().is_some() {
        NOT_READY
    } else if error.downcast_ref::<Usage>().is_some() {
        USAGE
    } else {
        FAILURE
    }
}

/// `tether fleet | head` ends when `head` has enough, and that is no failure. A pipe or a
/// connection that broke anywhere else is one.
fn is_closed_stdout(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<StdoutError>()
        .is_some_and(StdoutError::is_closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_is_told_once() {
        let io = || std::io::Error::from_raw_os_error(2);
        let read = ConfigError::Read {
            file: "a.toml".into(),
            source: io(),
        };
        let said = words(&anyhow::Error::new(read).context("starting"));
        assert_eq!(said.matches("os error 2").count(), 1, "{said}");
        assert!(said.starts_with("starting: cannot read the configuration a.toml: "));
        let plain = anyhow::Error::new(io()).context("starting");
        assert_eq!(words(&plain), format!("starting: {}", io()));
    }

    #[test]
    fn a_pipe_that_breaks_elsewhere_than_at_standard_output_is_a_failure() {
        let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        for error in [
            anyhow::Error::new(broken()),
            anyhow::Error::new(broken()).context("asking the gateway"),
        ] {
            assert!(!is_closed_stdout(&error), "{error:#}");
        }
    }

    #[test]
    fn scripts_can_tell_kinds_of_failure_apart() {
        let not_ready = anyhow::Error::new(NotReady("no".into()));
        assert_eq!(code(&not_ready.context("while probing")), NOT_READY);
        assert_eq!(code(&anyhow::anyhow!("no")), FAILURE);
        let config: anyhow::Result<()> = Err(ConfigError::Invalid {
            file: "a.toml".into(),
            key: "node.key".into(),
            why: "is missing".into(),
        })
        .context("starting");
        assert_eq!(code(&config.expect_err("failed")), CONFIG);
    }
}
