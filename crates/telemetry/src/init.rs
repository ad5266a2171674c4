//! The subscriber of a process: log lines to stderr, spans to a collector.

use crate::config::{LogFormat, TelemetryConfig};
use crate::otlp;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// How long a stopping process waits for its last spans to be taken.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log_filter` is not a filter.
    #[error("log_filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// `sample_ratio` is outside its range.
    #[error("sample_ratio is {0}, not between 0 and 1")]
    Ratio(f64),
    /// The exporter could not be made.
    #[error("otlp_endpoint {endpoint:?} cannot be used: {why}")]
    Exporter {
        /// The endpoint as configured.
        endpoint: String,
        /// The exporter's words.
        why: String,
    },
    /// A subscriber is set already.
    #[error("telemetry is set up already in this process")]
    Already,
}

/// Keeps telemetry going; [`TelemetryGuard::shutdown`] sends what is left.
#[derive(Debug)]
#[must_use = "spans are lost when the guard is dropped at once"]
pub struct TelemetryGuard {
    provider: SdkTracerProvider,
}

impl TelemetryGuard {
    /// Sends the remaining spans, waiting at most a few seconds. It blocks the thread; a runtime's
    /// other work goes on.
    pub fn shutdown(self) {
        // A collector that is gone was reported already, and there is nobody left to tell.
        let _ = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT);
    }

    /// Sends nothing and waits for nothing: the process ends now. Dropping the guard would wait.
    pub fn abandon(self) {
        std::mem::forget(self.provider);
    }
}

impl TelemetryConfig {
    /// Checks what can be checked without touching the process.
    ///
    /// # Errors
    /// Names the setting that is wrong.
    pub fn check(&self) -> Result<(), TelemetryError> {
        EnvFilter::try_new(&self.log_filter)?;
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(TelemetryError::Ratio(self.sample_ratio));
        }
        Ok(())
    }
}

/// Sets up logs and traces for this process, once.
///
/// Without an endpoint spans are not exported, but a caller's `traceparent` still travels through
/// this process, so that a trace does not break at a node that exports nothing.
///
/// # Errors
/// When a setting is wrong or a subscriber is set already.
pub fn init(config: &TelemetryConfig) -> Result<TelemetryGuard, TelemetryError> {
    config.check()?;
    let provider = otlp::provider(config)?;
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tether"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(FilterFn::new(|metadata| is_ours(metadata.target())))
        .boxed();
    Registry::default()
        .with(vec![spans, log_lines(config)?])
        .try_init()
        .map_err(|_| TelemetryError::Already)?;
    opentelemetry::global::set_tracer_provider(provider.clone());
    Ok(TelemetryGuard { provider })
}

/// Only our own spans are exported: those of libraries are theirs to debug, and the exporter's own
/// would feed themselves.
fn is_ours(target: &str) -> bool {
    target.starts_with("tether")
}

fn log_lines(config: &TelemetryConfig) -> Result<AnyLayer, TelemetryError> {
    let filter = EnvFilter::try_new(&config.log_filter)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Told by `eprintln!`, which panics: a log that cannot be written stops no process.
        .log_internal_errors(false);
    Ok(match config.log_format {
        LogFormat::Pretty => lines
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .with_filter(filter)
            .boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
    })
}

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;
