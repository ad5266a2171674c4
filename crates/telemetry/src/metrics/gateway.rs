//! What tenants see.

use super::labels::{BoundedLabels, ByModel, Reason, Tokens};
use super::registry::{FIRST_TOKEN_SECONDS, Histograms, REQUEST_SECONDS, Registry, TOKEN_SECONDS};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use std::sync::Arc;
use std::time::Duration;

/// Models that keep a label of their own.
const MAX_MODELS: usize = 128;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    route: &'static str,
    status_class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    gen_ai_operation_name: &'static str,
    gen_ai_request_model: String,
    error_type: &'static str,
}

/// Metrics of a gateway.
#[derive(Debug)]
pub struct GatewayMetrics {
    models: BoundedLabels,
    http_requests: Family<HttpLabels, Counter>,
    request_seconds: Histograms<RequestLabels>,
    first_token_seconds: Histograms<ByModel>,
    token_seconds: Histograms<ByModel>,
    tokens: Family<Tokens, Counter>,
    in_flight: Gauge,
    connections: Gauge,
    disconnects: Counter,
    broken_streams: Family<Reason, Counter>,
    auth_failures: Family<Reason, Counter>,
    limited: Family<Reason, Counter>,
    orchestrators: Gauge,
    directory_version: Gauge,
    directory_updates: Counter,
}

impl GatewayMetrics {
    /// Registers them, or gives those that are registered.
    pub fn register(registry: &Registry) -> Arc<Self> {
        registry.once(|d| Self {
            models: BoundedLabels::new(MAX_MODELS),
            http_requests: d.add(
                "tether_gateway_http_requests",
                "HTTP requests that were answered, by route and class of status",
                Family::default(),
            ),
            request_seconds: d.add_in(
                "gen_ai_server_request_duration",
                "Time from a request to the end of its answer",
                Unit::Seconds,
                Family::new_with_constructor(REQUEST_SECONDS),
            ),
            first_token_seconds: d.add_in(
                "gen_ai_server_time_to_first_token",
                "Time from a request to the first piece of its answer",
                Unit::Seconds,
                Family::new_with_constructor(FIRST_TOKEN_SECONDS),
            ),
            token_seconds: d.add_in(
                "gen_ai_server_time_per_output_token",
                "Mean time per token after the first one",
                Unit::Seconds,
                Family::new_with_constructor(TOKEN_SECONDS),
            ),
            tokens: d.add(
                "tether_gateway_tokens",
                "Tokens of finished answers, by model and type",
                Family::default(),
            ),
            in_flight: d.gauge(
                "tether_gateway_requests_in_flight",
                "Requests for inference that are being answered",
            ),
            connections: d.gauge("tether_gateway_connections", "Open connections of clients"),
            disconnects: d.counter(
                "tether_gateway_disconnects",
                "Clients that left before their answer was whole",
            ),
            broken_streams: d.add(
                "tether_gateway_broken_answers",
                "Answers that broke off after they had begun, by the code of the error",
                Family::default(),
            ),
            auth_failures: d.add(
                "tether_gateway_auth_failures",
                "Requests without a valid key, by reason",
                Family::default(),
            ),
            limited: d.add(
                "tether_gateway_limited",
                "Requests and connections refused by a limit, by limit",
                Family::default(),
            ),
            orchestrators: d.gauge(
                "tether_gateway_orchestrators",
                "Orchestrators that this gateway is linked with",
            ),
            directory_version: d.gauge(
                "tether_gateway_directory_version",
                "Version of the directory that this gateway works with",
            ),
            directory_updates: d.counter(
                "tether_gateway_directory_updates",
                "Updates of the directory that were taken over",
            ),
        })
    }

    /// An HTTP request was answered. `route` is the matched route, never the path as it came.
    pub fn http_request(&self, route: &'static str, status: u16) {
        let status_class = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.http_requests
            .get_or_create(&HttpLabels {
                route,
                status_class,
            })
            .inc();
    }

    /// A request for inference ended; `error` is `none` or the code of its error.
    pub fn inference(
        &self,
        operation: &'static str,
        model: &str,
        error: &'static str,
        took: Duration,
    ) {
        self.request_seconds
            .get_or_create(&RequestLabels {
                gen_ai_operation_name: operation,
                gen_ai_request_model: self.models.label(model),
                error_type: error,
            })
            .observe(took.as_secs_f64());
    }

    /// The first piece of an answer came.
    pub fn first_token(&self, model: &str, after: Duration) {
        let gen_ai_request_model = self.models.label(model);
        self.first_token_seconds
            .get_or_create(&ByModel {
                gen_ai_request_model,
            })
            .observe(after.as_secs_f64());
    }

    /// An answer is whole.
    pub fn finished(&self, model: &str, input_tokens: u32, output_tokens: u32, decode: Duration) {
        let model = self.models.label(model);
        for (kind, tokens) in [("input", input_tokens), ("output", output_tokens)] {
            self.tokens
                .get_or_create(&Tokens {
                    gen_ai_request_model: model.clone(),
                    gen_ai_token_type: kind,
                })
                .inc_by(u64::from(tokens));
        }
        if output_tokens > 1 {
            self.token_seconds
                .get_or_create(&ByModel {
                    gen_ai_request_model: model,
                })
                .observe(decode.as_secs_f64() / f64::from(output_tokens - 1));
        }
    }

    /// Requests for inference that are being answered.
    pub fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    /// Open connections of clients.
    pub fn connections(&self) -> &Gauge {
        &self.connections
    }

    /// A client left early.
    pub fn disconnected(&self) {
        self.disconnects.inc();
    }

    /// An answer broke off after it had begun.
    pub fn broken(&self, reason: &'static str) {
        self.broken_streams.get_or_create(&Reason { reason }).inc();
    }

    /// A request had no valid key.
    pub fn auth_failure(&self, reason: &'static str) {
        self.auth_failures.get_or_create(&Reason { reason }).inc();
    }

    /// A limit refused something.
    pub fn limited(&self, reason: &'static str) {
        self.limited.get_or_create(&Reason { reason }).inc();
    }

    /// How many orchestrators this gateway is linked with.
    pub fn set_orchestrators(&self, count: usize) {
        self.orchestrators
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The directory was updated.
    pub fn directory(&self, version: u64) {
        self.directory_version
            .set(i64::try_from(version).unwrap_or(i64::MAX));
        self.directory_updates.inc();
    }
}
