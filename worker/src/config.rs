//! What a worker is told, with every bound it keeps.

mod device;
mod model;
mod server;

use crate::device::Device;
use crate::engine::protocol::{Continuation, EngineKind};
use crate::health::strain::Thresholds;
use crate::quota::RateLimits;
use crate::sandbox::SandboxConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use tether_wire::NodeId;
use tether_wire::card::MAX_MODELS;

pub use device::DeviceConfig;
pub use model::ModelConfig;
pub use server::{ServerConfig, ServerKind};

/// Most requests at once; the wire's own limit of a card's `capacity`.
const MAX_SLOTS: u32 = 65_536;
/// Most orchestrators that a worker keeps links to.
const MAX_ORCHESTRATORS: usize = 16;
/// Most cores that are shared out.
const MAX_CORES: u32 = 4_096;
/// Most threads of one process, which has them twice, once for each library that computes with some,
/// and a few more: within the threads that the sandbox allows.
pub(crate) const MAX_THREADS: u32 = 384;
/// Most processes of one model: each is looked after by itself, and what they give at once is one
/// worker's to carry.
const MAX_REPLICAS: u32 = 64;
/// Least memory that an engine's process can begin with, and the most that makes sense.
const MIN_MEMORY_MIB: u64 = 64;
const MAX_MEMORY_MIB: u64 = 64 * 1024 * 1024;

/// Most folders with artifacts.
const MAX_SOURCES: usize = 16;
/// Most GiB of a disk: an exbibyte, so that it is a number of bytes, too.
const MAX_DISK_GIB: u64 = 1 << 30;

/// Configuration of a worker. (WRK-1, WRK-2, WRK-5)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Models to serve. One that is refused is reported and leaves the others alone.
    pub models: Vec<ModelConfig>,
    /// Servers with OpenAI's API that run beside the worker; each serves one model of the mesh.
    pub servers: Vec<ServerConfig>,
    /// Keys of the publishers whose manifests are believed. Without one nothing is served.
    pub trusted_publishers: Vec<NodeId>,
    /// Requests that run at once, over all models. An engine that says that it answers fewer at
    /// once is given no more than that; the rest waits in the worker's queue.
    pub slots: u32,
    /// Requests that wait for a slot; beyond that the worker sheds with a time to come again.
    pub queue_limit: u32,
    /// How long a request may wait for its turn, in milliseconds; then it is turned away with a time
    /// to come again. Deadlines of the engine count from the turn.
    pub queue_timeout_ms: u64,
    /// Slots that one tenant may hold at once; 0 means all of them.
    pub per_tenant_slots: u32,
    /// Class of the accelerator, as placement knows it.
    pub gpu_class: String,
    /// Number of accelerators.
    pub accelerators: u32,
    /// Memory for models in GiB; 0 means as much as the machine has.
    pub memory_gib: u32,
    /// Memory that loaded models may take together, in MiB. 0 means `memory_gib` where that is set,
    /// else three quarters of the machine's memory, or of its container's. Models for which there
    /// is no room are offered all the same, and loaded when somebody asks for them.
    pub memory_budget_mib: u64,
    /// Accelerators by their names, as `engine.device` has them.
    pub devices: BTreeMap<Device, DeviceConfig>,
    /// Folders with artifacts from which `models` by name or digest are fetched.
    pub sources: Vec<PathBuf>,
    /// Most GiB of fetched artifacts that are kept in the data folder; 0 means as much as the disk
    /// holds. The least recently used go first, and none that is configured.
    pub disk_budget_gib: u64,
    /// Seconds after which a model that nobody asks for is unloaded; 0 means never.
    pub idle_unload_s: u64,
    /// LoRA adapters that are loaded at once, each with its base in an engine of its own; beyond that
    /// the one that was asked for least recently gives way. 0 means that none is served.
    pub max_warm_adapters: usize,
    /// Price in micro-credits for a thousand tokens.
    pub price_per_1k_micro: u64,
    /// Orchestrators of the region that this worker keeps links to, for its heartbeats.
    pub orchestrators: usize,
    /// How long running requests may take to end when the worker stops, in milliseconds.
    pub drain_timeout_ms: u64,
    /// What one tenant may ask of this worker in a minute, whatever the mesh allows it.
    pub quota: RateLimits,
    /// Beyond what the machine has too much to do: nothing is offered and nothing new is taken then.
    pub shed: Thresholds,
    /// Address at which a collector on this machine reads the worker's metrics, `/metrics`; nothing means
    /// that they are not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// The engine and its deadlines.
    pub engine: EngineConfig,
    /// What keeps engines in.
    pub sandbox: SandboxConfig,
}

/// The engine and its deadlines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Which engine.
    pub kind: EngineKind,
    /// Where models are computed: `cpu`, or with a build for it `cuda:N`, as `nvidia-smi` counts, or
    /// `metal`. A model may say otherwise.
    pub device: Device,
    /// Most answers that one engine computes in one batch. More than 1 on accelerators only; the last
    /// bits of an answer then depend on its neighbours, and no seed gives it again for certain.
    pub sequences: u32,
    /// Cores that the processes of one model share out; 0 means those of the machine. This and the
    /// next two are for models that are computed by the processor; on an accelerator a model is one
    /// process.
    pub cores: u32,
    /// Processes of one model, which give answers beside each other: each holds the weights once
    /// more, and one that falls takes only its own answers with it. At most `slots`. 0 means as many
    /// as there are cores (or `threads` of them each) and slots for, and room beside what the other
    /// models need: no model is kept out by another one's further processes.
    pub replicas: u32,
    /// Threads for the numeric kernels of one process, which is then kept to as many processors; 0
    /// means twice a process's share of `cores`, on any of them, so that an answer that is given alone
    /// has more than its share.
    pub threads: u32,
    /// How long a model may take to load, in milliseconds.
    pub start_timeout_ms: u64,
    /// How long the first token may take from the request's turn in the engine, the reading of the
    /// prompt included, in milliseconds.
    pub first_token_timeout_ms: u64,
    /// How long each further token may take, in milliseconds. An engine in which no request makes
    /// progress for so long is ended and started again.
    pub step_timeout_ms: u64,
    /// How long the engine's process may leave questions whether it lives unanswered, in milliseconds.
    pub hang_timeout_ms: u64,
    /// How an answer that another worker began is taken up again: `replay`, bit equal to what would
    /// have come, or `prefill`, quicker and only nearly.
    pub continuation: Continuation,
    /// Most memory of one engine's process in MiB; 0 means 4 times the bytes of the model's files,
    /// and 2 GiB. An engine over it is ended and started again.
    pub memory_limit_mib: u64,
    /// Milliseconds that the echo engine waits before each token, for load tests.
    pub echo_delay_ms: u64,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            models: Vec::new(),
            servers: Vec::new(),
            trusted_publishers: Vec::new(),
            slots: 4,
            queue_limit: 16,
            queue_timeout_ms: 120_000,
            per_tenant_slots: 0,
            gpu_class: "cpu".to_owned(),
            accelerators: 0,
            memory_gib: 0,
            memory_budget_mib: 0,
            devices: BTreeMap::new(),
            sources: Vec::new(),
            disk_budget_gib: 0,
            idle_unload_s: 0,
            max_warm_adapters: 4,
            price_per_1k_micro: 0,
            orchestrators: 3,
            drain_timeout_ms: 30_000,
            quota: RateLimits::default(),
            shed: Thresholds::default(),
            metrics: None,
            engine: EngineConfig::default(),
            sandbox: SandboxConfig::default(),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            kind: EngineKind::default(),
            device: Device::Cpu,
            sequences: 1,
            cores: 0,
            replicas: 0,
            threads: 0,
            start_timeout_ms: 300_000,
            first_token_timeout_ms: 120_000,
            step_timeout_ms: 30_000,
            hang_timeout_ms: 10_000,
            continuation: Continuation::default(),
            memory_limit_mib: 0,
            echo_delay_ms: 0,
        }
    }
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker.{field} {why}")]
pub struct ConfigError {
    field: &'static str,
    why: String,
}

impl WorkerConfig {
    /// Checks every setting; nothing is opened or bound before.
    ///
    /// # Errors
    /// The first setting that cannot be, by its name.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |field, ok: bool, why: &str| {
            if ok {
                Ok(())
            } else {
                let why = why.to_owned();
                Err(ConfigError { field, why })
            }
        };
        check(
            "models",
            self.models.len() + self.servers.len() <= MAX_MODELS,
            &format!("has more than {MAX_MODELS} entries, with those of `servers`"),
        )?;
        if let Some(why) = self.servers.iter().find_map(ServerConfig::fault) {
            return check("servers", false, &format!("has an entry that {why}"));
        }
        let has_sources = !self.sources.is_empty();
        if let Some(why) = self.models.iter().find_map(|m| m.fault(has_sources)) {
            return check("models", false, why);
        }
        check(
            "sources",
            self.sources.len() <= MAX_SOURCES,
            &format!("has more than {MAX_SOURCES} entries"),
        )?;
        check(
            "disk_budget_gib",
            self.disk_budget_gib <= MAX_DISK_GIB,
            &format!("must be at most {MAX_DISK_GIB}"),
        )?;
        check(
            "max_warm_adapters",
            self.max_warm_adapters <= MAX_MODELS,
            &format!("must be at most {MAX_MODELS}; 0 means that no adapters are served"),
        )?;
        check(
            "trusted_publishers",
            (self.models.is_empty() && self.servers.is_empty())
                || !self.trusted_publishers.is_empty(),
            "is empty: no model can be served; add the key that signed its manifest",
        )?;
        check(
            "slots",
            (1..=MAX_SLOTS).contains(&self.slots),
            &format!("must be between 1 and {MAX_SLOTS}"),
        )?;
        check(
            "queue_limit",
            self.queue_limit <= MAX_SLOTS,
            &format!("must be at most {MAX_SLOTS}"),
        )?;
        check(
            "per_tenant_slots",
            self.per_tenant_slots <= self.slots,
            "must be at most `slots`; 0 means all of them",
        )?;
        check(
            "gpu_class",
            (1..=32).contains(&self.gpu_class.len()),
            "must have 1 to 32 bytes",
        )?;
        check(
            "orchestrators",
            (1..=MAX_ORCHESTRATORS).contains(&self.orchestrators),
            &format!("must be between 1 and {MAX_ORCHESTRATORS}"),
        )?;
        check(
            "shed.cpu_pct",
            self.shed.cpu_pct <= 100,
            "must be at most 100; 0 means never",
        )?;
        if let Some((field, why)) = self.quota.fault() {
            return check(field, false, why);
        }
        if let Some(address) = self.metrics {
            check(
                "metrics",
                address.ip().is_loopback(),
                &format!(
                    "is {address}, not a loopback address: a collector elsewhere reads them through one on this machine"
                ),
            )?;
        }
        let engine = &self.engine;
        for (field, ms) in [
            ("queue_timeout_ms", self.queue_timeout_ms),
            ("engine.start_timeout_ms", engine.start_timeout_ms),
            (
                "engine.first_token_timeout_ms",
                engine.first_token_timeout_ms,
            ),
            ("engine.step_timeout_ms", engine.step_timeout_ms),
            ("engine.hang_timeout_ms", engine.hang_timeout_ms),
        ] {
            check(field, ms >= 100, "must be at least 100")?;
        }
        for (field, number, most) in [
            ("engine.cores", engine.cores, MAX_CORES),
            ("engine.replicas", engine.replicas, MAX_REPLICAS),
            ("engine.threads", engine.threads, MAX_THREADS),
        ] {
            check(field, number <= most, &format!("must be at most {most}"))?;
        }
        check(
            "engine.replicas",
            engine.replicas <= self.slots,
            &format!(
                "is {}, but `worker.slots` is {}, and no more answers than that are given at once: \
                 raise `worker.slots` or lower `engine.replicas`",
                engine.replicas, self.slots
            ),
        )?;
        check(
            "engine.memory_limit_mib",
            engine.memory_limit_mib == 0
                || (MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&engine.memory_limit_mib),
            &format!(
                "must be between {MIN_MEMORY_MIB} and {MAX_MEMORY_MIB}, or 0 for what the model's size says"
            ),
        )?;
        check(
            "engine.kind",
            engine.kind != EngineKind::Escape,
            "is `escape`, which serves nothing: it is for `tether worker doctor`",
        )?;
        self.check_devices()?;
        (self.sandbox.check()).map_err(|(field, why)| ConfigError { field, why })?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::Digest;

    fn refused(change: fn(&mut WorkerConfig)) -> String {
        let mut config = WorkerConfig::default();
        change(&mut config);
        config.validate().expect_err("refused").to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        WorkerConfig::default().validate().expect("valid");
    }

    #[test]
    fn each_wrong_setting_is_named() {
        assert!(refused(|c| c.slots = 0).contains("worker.slots"));
        assert!(refused(|c| c.max_warm_adapters = 65).contains("worker.max_warm_adapters"));
        assert!(refused(|c| c.slots = 65_537).contains("worker.slots"));
        assert!(refused(|c| c.per_tenant_slots = 5).contains("per_tenant_slots"));
        assert!(refused(|c| c.shed.cpu_pct = 101).contains("shed.cpu_pct"));
        assert!(refused(|c| c.orchestrators = 0).contains("orchestrators"));
        let alone = refused(|c| c.quota.request_burst = 5);
        assert!(
            alone.contains("worker.quota.request_burst") && alone.contains("requests_per_minute")
        );
        assert!(refused(|c| c.quota.token_burst = 5).contains("worker.quota.token_burst"));
        assert!(refused(|c| c.metrics = Some(([0, 0, 0, 0], 1).into())).contains("loopback"));
        assert!(refused(|c| c.gpu_class.clear()).contains("gpu_class"));
        assert!(refused(|c| c.queue_timeout_ms = 0).contains("queue_timeout_ms"));
        assert!(refused(|c| c.engine.step_timeout_ms = 0).contains("engine.step_timeout_ms"));
        assert!(refused(|c| c.engine.cores = 4_097).contains("engine.cores"));
        assert!(refused(|c| c.engine.replicas = 65).contains("engine.replicas"));
        assert!(refused(|c| c.engine.threads = MAX_THREADS + 1).contains("engine.threads"));
        let idle = refused(|c| (c.slots, c.engine.replicas) = (2, 6));
        for part in ["worker.engine.replicas is 6", "`worker.slots` is 2"] {
            assert!(idle.contains(part), "{part} in {idle}");
        }
        assert!(refused(|c| c.engine.memory_limit_mib = 1).contains("engine.memory_limit_mib"));
        assert!(refused(|c| c.engine.kind = EngineKind::Escape).contains("worker doctor"));
        let devices = refused(|c| c.sandbox.devices = vec!["/etc".into()]);
        assert!(devices.contains("worker.sandbox.devices"), "{devices}");
        let model = |path: &str| ModelConfig::at(path);
        let mut config = WorkerConfig {
            models: vec![model("m")],
            ..WorkerConfig::default()
        };
        let error = config.validate().expect_err("nobody is trusted");
        assert!(error.to_string().contains("trusted_publishers"), "{error}");
        config.trusted_publishers = vec![NodeId([1; 32])];
        config.validate().expect("valid");
        config.models = vec![model("m"); MAX_MODELS + 1];
        assert!(config.validate().is_err());
        config.models = vec![model("")];
        assert!(config.validate().is_err());
        config.models = vec![ModelConfig::default()];
        let error = config.validate().expect_err("nothing").to_string();
        assert!(
            error.contains("without a path, a name or a digest"),
            "{error}"
        );
        config.models[0].digest = Some(Digest([1; 32]));
        let error = config.validate().expect_err("nowhere").to_string();
        assert!(error.contains("sources"), "{error}");
        config.sources = vec!["shelf".into()];
        config.validate().expect("valid");
        config.models[0] = model("m");
        config.models[0].name = Some("tiny@1.0".parse().expect("valid"));
        assert!(config.validate().is_err(), "two ways to say it");
    }

    #[test]
    fn the_most_processes_and_threads_are_valid() {
        let mut config = WorkerConfig {
            slots: MAX_REPLICAS,
            ..WorkerConfig::default()
        };
        config.engine.replicas = MAX_REPLICAS;
        config.engine.threads = MAX_THREADS;
        config.validate().expect("valid");
    }

    #[test]
    fn a_process_with_the_most_threads_is_within_what_the_sandbox_allows() {
        // Both libraries that are told, and what the engine has besides.
        let threads = u64::from(MAX_THREADS) * 2 + 128;
        assert!(threads <= crate::engine::memory::MAX_THREADS);
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        let wrong = serde_json::from_str::<WorkerConfig>(r#"{"slotz": 3}"#);
        assert!(wrong.expect_err("unknown").to_string().contains("slotz"));
    }
}
