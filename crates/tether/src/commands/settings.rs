//! `tether config`: is it right, and what does it come to?

use crate::config::{self, Process};
use crate::stderr;
use crate::stdout;
use clap::Subcommand;
use std::path::PathBuf;
use tether_artifact_store::MANIFEST_FILE;

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check a configuration file in full and print what it comes to
    ///
    /// Which role it is for is told by its section: `bootstrap`, `gateway`, `orchestrator` or
    /// `worker`. Overrides from the environment are part of the check. Exit code 3 if it is
    /// invalid. Secrets appear as paths only.
    #[command(after_long_help = "\
Examples:
  tether config check worker.toml
  TETHER_WORKER__SLOTS=8 tether config check worker.toml")]
    Check {
        /// The file
        file: PathBuf,
    },
}

impl ConfigCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self::Check { file } = self;
        for name in config::unread_variables() {
            stderr::line(format_args!(
                "warning: environment variable {name} is not read"
            ));
        }
        let text = match config::role_of(&file)? {
            Process::Bootstrap => config::bootstrap(&file)?.to_toml()?,
            Process::Gateway => config::gateway(&file)?.to_toml()?,
            Process::Orchestrator => config::orchestrator(&file)?.to_toml()?,
            Process::Worker => {
                let checked = config::worker(&file)?;
                // A worker starts without it, and says so; it may be copied there later.
                let models = &checked.file.worker.models;
                for path in models.iter().filter_map(|model| model.path.as_ref()) {
                    if !path.join(MANIFEST_FILE).exists() {
                        stderr::line(format_args!(
                            "warning: {} holds no {MANIFEST_FILE}: it will not be served until a packed model is there and the worker is started again",
                            path.display()
                        ));
                    }
                }
                checked.to_toml()?
            }
        };
        Ok(stdout::write(text)?)
    }
}
