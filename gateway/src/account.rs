//! What is counted and traced of one request for inference. Counts, ids and names only. (OBS-3)

use crate::problem::Problem;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::ModelRef;
use tether_wire::infer::{Accepted, Usage};
use tracing::Span;

/// Model label of a request whose model nobody knows, or that was refused before its model was read.
const UNKNOWN_MODEL: &str = "unknown";

/// The account of one request. When it is dropped without an end, the client has left.
pub(crate) struct Account {
    operation: &'static str,
    metrics: Arc<GatewayMetrics>,
    span: Span,
    started: Instant,
    first_piece: Option<Instant>,
    model: Option<String>,
    ended: bool,
}

impl Account {
    pub(crate) fn new(operation: &'static str, metrics: Arc<GatewayMetrics>, span: Span) -> Self {
        Self {
            operation,
            metrics,
            span,
            started: Instant::now(),
            first_piece: None,
            model: None,
            ended: false,
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What was asked for, where the mesh knows such a model: tenants do not name our metrics.
    pub(crate) fn asked(&mut self, known: &ModelRef) {
        self.model = Some(known.to_string());
    }

    /// A worker has begun to answer.
    pub(crate) fn begun(&mut self, accepted: &Accepted) {
        self.first_piece = Some(Instant::now());
        let model = accepted.model.to_string();
        self.span.record("tether.worker", accepted.worker.to_hex());
        self.span.record("gen_ai.response.model", model.as_str());
        self.metrics.first_token(&model, self.elapsed());
        self.model = Some(model);
    }

    /// The answer is whole.
    pub(crate) fn finished(&mut self, usage: Usage) {
        self.span
            .record("gen_ai.usage.input_tokens", usage.prompt_tokens);
        self.span
            .record("gen_ai.usage.output_tokens", usage.completion_tokens);
        self.span.record("http.response.status_code", 200);
        let decode = self.first_piece.map_or(Duration::ZERO, |at| at.elapsed());
        let model = self.model.as_deref().unwrap_or(UNKNOWN_MODEL);
        self.metrics
            .finished(model, usage.prompt_tokens, usage.completion_tokens, decode);
        self.end("none");
    }

    /// The request ended with a problem, before or after its answer had begun.
    pub(crate) fn failed(&mut self, problem: &Problem) {
        let status = problem.status.as_u16();
        self.span.record("error.type", problem.code);
        self.span.record("http.response.status_code", status);
        if problem.status.is_server_error() {
            self.span.record("otel.status_code", "ERROR");
        }
        if self.first_piece.is_some() {
            self.metrics.broken(problem.code);
        }
        if status == 401 {
            self.metrics.auth_failure(problem.code);
        }
        self.span.in_scope(
            || tracing::info!(status, code = problem.code, error = %problem, "request failed"),
        );
        self.end(problem.code);
    }

    fn end(&mut self, error: &'static str) {
        self.ended = true;
        let model = self.model.as_deref().unwrap_or(UNKNOWN_MODEL);
        self.metrics
            .inference(self.operation, model, error, self.elapsed());
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        if !self.ended {
            self.span.record("error.type", "client_disconnect");
            self.metrics.disconnected();
            self.end("client_disconnect");
        }
    }
}
