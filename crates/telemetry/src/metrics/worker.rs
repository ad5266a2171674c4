//! What a worker does.

use super::labels::{BoundedLabels, ByModel, Outcome, Reason, Tokens};
use super::registry::{
    FIRST_TOKEN_SECONDS, Histograms, REQUEST_SECONDS, Ratio, Registry, TOKEN_SECONDS,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Models that keep a label of their own.
const MAX_MODELS: usize = 128;

/// Metrics of a worker.
#[derive(Debug)]
pub struct WorkerMetrics {
    models: BoundedLabels,
    in_flight: Gauge,
    queued: Gauge,
    requests: Family<Outcome, Counter>,
    shed: Family<Reason, Counter>,
    engine_restarts: Family<Reason, Counter>,
    tokens: Family<Tokens, Counter>,
    doubted: Family<Reason, Counter>,
    models_loaded: Gauge,
    model_faults: Family<Reason, Counter>,
    load_seconds: Histograms<ByModel>,
    prefill_seconds: Histograms<ByModel>,
    token_seconds: Histograms<ByModel>,
    cpu: Ratio,
    memory_free: Gauge,
    gpu: Ratio,
    gpu_memory_free: Gauge,
    heartbeats_sent: Counter,
    orchestrators: Gauge,
    totals: Mutex<WorkerTotals>,
}

/// What a worker did since it started, for its provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerTotals {
    /// Orders that ended, by outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Orders that were not taken, by reason.
    pub shed: BTreeMap<&'static str, u64>,
    /// Starts of engines after the first, by the reason of the end.
    pub engine_restarts: BTreeMap<&'static str, u64>,
    /// Tokens of prompts that were answered.
    pub input_tokens: u64,
    /// Tokens of their answers.
    pub output_tokens: u64,
}

impl WorkerMetrics {
    /// Registers them, or gives those that are registered.
    pub fn register(registry: &Registry) -> Arc<Self> {
        registry.once(|d| Self {
            models: BoundedLabels::new(MAX_MODELS),
            in_flight: d.gauge(
                "tether_worker_requests_in_flight",
                "Orders that the engine works on",
            ),
            queued: d.gauge(
                "tether_worker_requests_queued",
                "Orders that wait for a slot",
            ),
            requests: d.add(
                "tether_worker_requests",
                "Orders that ended, by outcome",
                Family::default(),
            ),
            shed: d.add(
                "tether_worker_shed",
                "Orders that were not taken, by reason",
                Family::default(),
            ),
            engine_restarts: d.add(
                "tether_worker_engine_restarts",
                "Starts of an engine after the first, by the reason of its end",
                Family::default(),
            ),
            tokens: d.add(
                "tether_worker_tokens",
                "Tokens read and drawn, by model and type",
                Family::default(),
            ),
            doubted: d.add(
                "tether_worker_usage_doubted",
                "Counts of a provider's server that cannot be true, or that it did not give",
                Family::default(),
            ),
            models_loaded: d.gauge(
                "tether_worker_models_loaded",
                "Models that are loaded and advertised",
            ),
            model_faults: d.add(
                "tether_worker_model_faults",
                "Models that were refused or failed, by code",
                Family::default(),
            ),
            load_seconds: d.add_in(
                "tether_worker_model_load_duration",
                "Time from the start of an engine to its model being loaded",
                Unit::Seconds,
                Family::new_with_constructor(REQUEST_SECONDS),
            ),
            prefill_seconds: d.add_in(
                "tether_worker_prefill_duration",
                "Time in which the engine read the prompt",
                Unit::Seconds,
                Family::new_with_constructor(FIRST_TOKEN_SECONDS),
            ),
            token_seconds: d.add_in(
                "tether_worker_time_per_output_token",
                "Mean time per token after the first one, in the engine",
                Unit::Seconds,
                Family::new_with_constructor(TOKEN_SECONDS),
            ),
            cpu: d.ratio(
                "tether_worker_cpu_ratio",
                "Share of the machine's processors that is used, over all of them",
            ),
            memory_free: d.gauge(
                "tether_worker_memory_free_bytes",
                "Memory of the machine that is free for more",
            ),
            gpu: d.ratio(
                "tether_worker_accelerator_ratio",
                "Share of the accelerators that is used, the mean of all",
            ),
            gpu_memory_free: d.gauge(
                "tether_worker_accelerator_memory_free_bytes",
                "Memory of the accelerators that is free, over all",
            ),
            heartbeats_sent: d.counter(
                "tether_worker_heartbeats_sent",
                "Heartbeats that were pushed to orchestrators",
            ),
            orchestrators: d.gauge(
                "tether_worker_orchestrators",
                "Orchestrators that this worker is linked with",
            ),
            totals: Mutex::default(),
        })
    }

    /// What was counted until now. The names of outcomes and reasons are few.
    pub fn totals(&self) -> WorkerTotals {
        self.counting().clone()
    }

    fn counting(&self) -> MutexGuard<'_, WorkerTotals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders that the engine works on.
    pub fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    /// Orders that wait for a slot.
    pub fn queued(&self) -> &Gauge {
        &self.queued
    }

    /// An order ended: `ok`, or the code of its error.
    pub fn request(&self, outcome: &'static str) {
        self.requests.get_or_create(&Outcome { outcome }).inc();
        *self.counting().requests.entry(outcome).or_default() += 1;
    }

    /// An order was not taken.
    pub fn shed(&self, reason: &'static str) {
        self.shed.get_or_create(&Reason { reason }).inc();
        *self.counting().shed.entry(reason).or_default() += 1;
    }

    /// An engine is started again.
    pub fn engine_restarted(&self, reason: &'static str) {
        self.engine_restarts.get_or_create(&Reason { reason }).inc();
        *self.counting().engine_restarts.entry(reason).or_default() += 1;
    }

    /// An answer ended in the engine.
    pub fn answered(
        &self,
        model: &str,
        input_tokens: u32,
        output_tokens: u32,
        prefill: Duration,
        decode: Duration,
    ) {
        {
            let mut totals = self.counting();
            totals.input_tokens += u64::from(input_tokens);
            totals.output_tokens += u64::from(output_tokens);
        }
        let gen_ai_request_model = self.models.label(model);
        for (kind, tokens) in [("input", input_tokens), ("output", output_tokens)] {
            self.tokens
                .get_or_create(&Tokens {
                    gen_ai_request_model: gen_ai_request_model.clone(),
                    gen_ai_token_type: kind,
                })
                .inc_by(u64::from(tokens));
        }
        let label = ByModel {
            gen_ai_request_model,
        };
        self.prefill_seconds
            .get_or_create(&label)
            .observe(prefill.as_secs_f64());
        if output_tokens > 1 {
            self.token_seconds
                .get_or_create(&label)
                .observe(decode.as_secs_f64() / f64::from(output_tokens - 1));
        }
    }

    /// A provider's server gave a count that cannot be true, or none.
    pub fn usage_doubted(&self, reason: &'static str) {
        self.doubted.get_or_create(&Reason { reason }).inc();
    }

    /// How the machine is.
    pub fn machine(&self, cpu_percent: u8, memory_free_mib: u64) {
        self.cpu.set(f64::from(cpu_percent) / 100.0);
        self.memory_free.set(bytes(memory_free_mib));
    }

    /// How its accelerators are, where it has any.
    pub fn accelerators(&self, percent: u8, memory_free_mib: u64) {
        self.gpu.set(f64::from(percent) / 100.0);
        self.gpu_memory_free.set(bytes(memory_free_mib));
    }

    /// How many models are loaded.
    pub fn set_models_loaded(&self, count: usize) {
        self.models_loaded
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A model was refused or failed; `code` such as `ArtifactError::code`.
    pub fn model_fault(&self, code: &'static str) {
        self.model_faults
            .get_or_create(&Reason { reason: code })
            .inc();
    }

    /// A model was loaded.
    pub fn model_loaded(&self, model: &str, took: Duration) {
        let gen_ai_request_model = self.models.label(model);
        self.load_seconds
            .get_or_create(&ByModel {
                gen_ai_request_model,
            })
            .observe(took.as_secs_f64());
    }

    /// A heartbeat was pushed to an orchestrator.
    pub fn heartbeat_sent(&self) {
        self.heartbeats_sent.inc();
    }

    /// How many orchestrators this worker is linked with.
    pub fn set_orchestrators(&self, count: usize) {
        self.orchestrators
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

fn bytes(mib: u64) -> i64 {
    i64::try_from(mib.saturating_mul(1_024 * 1_024)).unwrap_or(i64::MAX)
}
