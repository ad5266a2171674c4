//! How the command line shapes what is logged.

use clap::{Args, ValueEnum};
use tether_telemetry::{LogFormat, TelemetryConfig};

/// Options of every command that runs a node.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct LoggingArgs {
    /// How log lines look on stderr
    #[arg(long, global = true, value_enum, help_heading = "Logging")]
    pub(crate) log_format: Option<Format>,
    /// What is logged: a level, or a filter such as `info,tether_worker=debug`
    #[arg(long, global = true, value_name = "FILTER", value_parser = parse_filter, help_heading = "Logging")]
    pub(crate) log_level: Option<String>,
    /// More log lines: -v for debug, -vv for trace
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Logging")]
    pub(crate) verbose: u8,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Pretty,
    /// One JSON object per line
    Json,
}

fn parse_filter(text: &str) -> Result<String, String> {
    let telemetry = TelemetryConfig {
        log_filter: text.to_owned(),
        ..TelemetryConfig::default()
    };
    match telemetry.check() {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl LoggingArgs {
    /// The command line wins over the configuration.
    pub(crate) fn apply(&self, telemetry: &mut TelemetryConfig) {
        match self.log_format {
            Some(Format::Pretty) => telemetry.log_format = LogFormat::Pretty,
            Some(Format::Json) => telemetry.log_format = LogFormat::Json,
            None => {}
        }
        if let Some(filter) = &self.log_level {
            telemetry.log_filter.clone_from(filter);
        }
        match self.verbose {
            0 => {}
            // The mesh's own crates only: a dependency's debug lines drown everything.
            1 => telemetry.log_filter = verbose_filter("debug"),
            _ => telemetry.log_filter = verbose_filter("trace"),
        }
    }
}

const OWN_CRATES: [&str; 7] = [
    "tether",
    "tether_net",
    "tether_gateway",
    "tether_orchestrator",
    "tether_worker",
    "tether_artifact_store",
    "tether_telemetry",
];

fn verbose_filter(level: &str) -> String {
    OWN_CRATES.iter().fold("info".to_owned(), |filter, name| {
        format!("{filter},{name}={level}")
    })
}
