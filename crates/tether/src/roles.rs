//! One role as a process: read the configuration, set up telemetry, start, serve, drain.

pub(crate) mod bootstrap;
pub(crate) mod gateway;
pub(crate) mod orchestrator;
pub(crate) mod worker;

use crate::logging::LoggingArgs;
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
    Ok(tether_telemetry::init(&config)?)
}

/// Says on stdout that the process is ready, where a program asked for it.
pub(crate) fn announce_ready(json: bool, ready: &serde_json::Value) -> anyhow::Result<()> {
    use std::io::Write;
    if json {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{ready}")?;
        stdout.flush()?;
    }
    Ok(())
}
