//! Spans over OTLP/HTTP in protobuf.
//!
//! The SDK exports from a thread of its own, which has no runtime, while the HTTP client needs
//! one. So the exporter brings a runtime of one thread along: it works wherever it is made, and
//! flushing at the end cannot wait for a runtime that waits for it.

use crate::config::TelemetryConfig;
use crate::init::TelemetryError;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData,
    SpanExporter as Export,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Longest that one batch may take to be delivered.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often waiting spans are sent.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Most spans that wait; more are dropped, since telemetry must not grow memory.
const MAX_WAITING_SPANS: usize = 4_096;
/// Most spans of one batch.
const MAX_BATCH_SPANS: usize = 512;
/// Path of the traces' receiver below the collector's base URL (OTLP/HTTP specification).
const TRACES_PATH: &str = "/v1/traces";

/// The tracer provider of a process.
pub(crate) fn provider(config: &TelemetryConfig) -> Result<SdkTracerProvider, TelemetryError> {
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok(SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
            .build());
    };
    let exporter = QuietExporter::new(endpoint).map_err(|why| TelemetryError::Exporter {
        endpoint: endpoint.clone(),
        why,
    })?;
    let batches = BatchConfigBuilder::default()
        .with_scheduled_delay(EXPORT_INTERVAL)
        .with_max_queue_size(MAX_WAITING_SPANS)
        .with_max_export_batch_size(MAX_BATCH_SPANS)
        .build();
    let ratio = Sampler::TraceIdRatioBased(config.sample_ratio);
    Ok(SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_resource(resource(config))
        .with_span_processor(
            BatchSpanProcessor::builder(exporter)
                .with_batch_config(batches)
                .build(),
        )
        .build())
}

fn resource(config: &TelemetryConfig) -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "tether"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", config.service_instance.clone()),
        ])
        .build()
}

/// The URL that traces are posted to.
fn traces_url(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    if base.ends_with(TRACES_PATH) {
        base.to_owned()
    } else {
        format!("{base}{TRACES_PATH}")
    }
}

/// An exporter that brings its own runtime and speaks once when its collector comes or goes.
#[derive(Debug)]
struct QuietExporter {
    inner: Arc<SpanExporter>,
    runtime: Option<Runtime>,
    absent: AtomicBool,
    endpoint: String,
}

impl QuietExporter {
    fn new(endpoint: &str) -> Result<Self, String> {
        let url = traces_url(endpoint);
        let parsed: reqwest::Url = url.parse().map_err(|e| format!("not a URL: {e}"))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err("only http and https are known".to_owned());
        }
        let inner = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&url)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|e| e.to_string())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tether-otlp")
            .enable_all()
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self {
            inner: Arc::new(inner),
            runtime: Some(runtime),
            absent: AtomicBool::new(false),
            endpoint: url,
        })
    }

    fn report(&self, result: &OTelSdkResult) {
        match result {
            Ok(()) => {
                if self.absent.swap(false, Ordering::Relaxed) {
                    tracing::info!(endpoint = %self.endpoint, "the trace collector takes spans again");
                }
            }
            Err(error) => {
                if !self.absent.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        endpoint = %self.endpoint, %error,
                        "the trace collector does not take spans; they are dropped until it does"
                    );
                }
            }
        }
    }
}

impl Export for QuietExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Some(runtime) = &self.runtime else {
            return Err(OTelSdkError::AlreadyShutdown);
        };
        let inner = self.inner.clone();
        let task = runtime.spawn(async move { inner.export(batch).await });
        let result = task
            .await
            .unwrap_or_else(|e| Err(OTelSdkError::InternalFailure(e.to_string())));
        self.report(&result);
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.set_resource(resource);
        }
    }
}

impl Drop for QuietExporter {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The ordinary drop would block, and panics where that is not allowed.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_url_and_the_full_one_mean_the_same() {
        for endpoint in ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"] {
            assert_eq!(traces_url(endpoint), "http://c:4318/v1/traces");
        }
    }

    #[test]
    fn an_endpoint_that_is_no_url_is_refused_with_its_reason() {
        assert!(QuietExporter::new("grpc://c:4317").is_err());
        assert!(QuietExporter::new("not a url").is_err());
    }
}
