//! One role as a process: read the configuration, set up telemetry, start, serve, drain.

pub(crate) mod bootstrap;
pub(crate) mod gateway;
pub(crate) mod orchestrator;
pub(crate) mod worker;

use crate::config;
use crate::logging::LoggingArgs;
use crate::stdout;
use clap::Args;
use std::path::PathBuf;
use tether_telemetry::{TelemetryConfig, TelemetryGuard};

/// Options that every role has.
#[derive(Debug, Args)]
pub(crate) struct CommonArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// When ready, print one JSON object with ids and addresses on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Telemetry of a process: its configuration, overridden by the command line.
pub(crate) fn telemetry(
    mut config: TelemetryConfig,
    logging: &LoggingArgs,
    instance: &str,
) -> anyhow::Result<TelemetryGuard> {
    logging.apply(&mut config);
    if config.service_instance.is_empty() {
        instance.clone_into(&mut config.service_instance);
    }
    let guard = tether_telemetry::init(&config)?;
    warn_of_unread_variables();
    Ok(guard)
}

/// A variable that nothing reads may be a mistake, or somebody else's: it is told and no more.
pub(crate) fn warn_of_unread_variables() {
    for name in config::unread_variables() {
        tracing::warn!("environment variable {name} is not read: a setting is TETHER_SECTION__KEY");
    }
}

/// Says on stdout that the process is ready, where a program asked for it.
pub(crate) fn announce_ready(json: bool, ready: impl std::fmt::Display) -> anyhow::Result<()> {
    if json && let Err(error) = stdout::line(ready) {
        // Whoever asked for the line is gone. A process that should serve does not end as if all
        // were well, which is what a closed standard output means to a command.
        anyhow::bail!("nobody hears that this process is ready: {error}");
    }
    Ok(())
}
