//! Tracing set-up, trace propagation, and every metric's name, help and unit. (OBS-1, OBS-2, OBS-3)
//!
//! # Layout
//!
//! * [`config`] – what a process may set
//! * [`init`](mod@init) – the subscriber of a process: log lines to stderr, spans to a collector
//! * [`trace`] – W3C `traceparent` in and out, spans with given times
//! * [`metrics`] – the metrics of each role, and their text form
//! * `otlp` – spans over OTLP/HTTP; absent collectors are survived
//!
//! Prompts, answers and keys never go into a span, a log line or a label: nothing here takes them,
//! and callers record counts, ids and names only.
#![forbid(unsafe_code)]

pub mod config;
pub mod init;
pub mod metrics;
mod otlp;
pub mod trace;

pub use config::{LogFormat, TelemetryConfig};
pub use init::{TelemetryError, TelemetryGuard, init};
