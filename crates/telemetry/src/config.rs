//! What a process may set about its telemetry.

use serde::{Deserialize, Serialize};

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object per line, for collectors.
    Json,
}

/// Logs and traces of one process. Logs go to stderr, since stdout belongs to the command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Form of log lines.
    pub log_format: LogFormat,
    /// Which lines are written, in the syntax of `tracing-subscriber`'s `EnvFilter`.
    pub log_filter: String,
    /// Base URL of an OTLP/HTTP collector, such as `http://127.0.0.1:4318`. Nothing: no export.
    pub otlp_endpoint: Option<String>,
    /// Share of traces that are exported, 0 to 1, where the caller has not decided already.
    pub sample_ratio: f64,
    /// `service.instance.id` of exported spans; the binary sets it to the node's id.
    pub service_instance: String,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Pretty,
            log_filter: "info,iroh=warn,peeroxide=warn,libudx=warn,opentelemetry=warn".to_owned(),
            otlp_endpoint: None,
            sample_ratio: 1.0,
            service_instance: String::new(),
        }
    }
}
