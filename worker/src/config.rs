//! What a worker is told, with every bound it keeps.

mod server;

use crate::engine::protocol::EngineKind;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tether_wire::card::MAX_MODELS;
use tether_wire::{Digest, NodeId};

pub use server::{ServerConfig, ServerKind};

/// Most requests at once; the wire's own limit of a card's `capacity`.
const MAX_SLOTS: u32 = 65_536;
/// Most orchestrators that a worker keeps links to.
const MAX_ORCHESTRATORS: usize = 16;

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
    /// Price in micro-credits for a thousand tokens.
    pub price_per_1k_micro: u64,
    /// Orchestrators of the region that this worker keeps links to, for its heartbeats.
    pub orchestrators: usize,
    /// How long running requests may take to end when the worker stops, in milliseconds.
    pub drain_timeout_ms: u64,
    /// The engine and its deadlines.
    pub engine: EngineConfig,
}

/// One model to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The artifact's folder, with its `tether.manifest`.
    pub path: PathBuf,
    /// The digest that it must have; nothing means whatever a trusted publisher signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// The engine and its deadlines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Which engine.
    pub kind: EngineKind,
    /// Threads for the numeric kernels of one engine; 0 means as many as the machine has cores.
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
            price_per_1k_micro: 0,
            orchestrators: 3,
            drain_timeout_ms: 30_000,
            engine: EngineConfig::default(),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            kind: EngineKind::default(),
            threads: 0,
            start_timeout_ms: 300_000,
            first_token_timeout_ms: 120_000,
            step_timeout_ms: 30_000,
            hang_timeout_ms: 10_000,
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
        check(
            "models",
            self.models.iter().all(|m| !m.path.as_os_str().is_empty()),
            "has an entry with an empty path",
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(refused(|c| c.slots = 65_537).contains("worker.slots"));
        assert!(refused(|c| c.per_tenant_slots = 5).contains("per_tenant_slots"));
        assert!(refused(|c| c.orchestrators = 0).contains("orchestrators"));
        assert!(refused(|c| c.gpu_class.clear()).contains("gpu_class"));
        assert!(refused(|c| c.queue_timeout_ms = 0).contains("queue_timeout_ms"));
        assert!(refused(|c| c.engine.step_timeout_ms = 0).contains("engine.step_timeout_ms"));
        let model = |path: &str| ModelConfig {
            path: path.into(),
            digest: None,
        };
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
    }

    #[test]
    fn a_misspelt_setting_is_refused() {
        let wrong = serde_json::from_str::<WorkerConfig>(r#"{"slotz": 3}"#);
        assert!(wrong.expect_err("unknown").to_string().contains("slotz"));
    }
}
