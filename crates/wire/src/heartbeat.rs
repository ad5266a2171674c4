//! Presence of workers. (PRE-1, PRE-2, PRE-3) [T-PRE-1] to [T-PRE-9]

use crate::codec::{self, CodecError, check_field, check_len};
use crate::envelope::Signable;
use crate::grant::Tier;
use crate::id::{Digest, ModelRef, NodeId, Region};
use serde::{Deserialize, Serialize};

/// A worker says that it lives once in this time. [T-PRE-2]
pub const HEARTBEAT_INTERVAL_MS: u64 = 5_000;
/// A worker that was not heard of for this time is gone. [T-PRE-3]
pub const EXPIRY_MS: u64 = 3 * HEARTBEAT_INTERVAL_MS;
/// How far in the future a heartbeat may be dated. [T-PRE-4]
pub const MAX_FUTURE_MS: u64 = 5_000;
/// How old a heartbeat may be when it comes; what is older would already have expired. [T-PRE-4]
pub const MAX_AGE_MS: u64 = EXPIRY_MS;
/// Most models that a worker may offer. [T-PRE-6]
pub const MAX_MODELS: usize = 64;
/// Most addresses that a worker may give. [T-PRE-6]
pub const MAX_ADDRESSES: usize = 16;
/// Most adapters of one model. [T-PRE-6]
pub const MAX_ADAPTERS: usize = 16;

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It starts; models are being loaded.
    Starting,
    /// It takes work.
    Serving,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// Goodbye: it is gone with this message. [T-PRE-8]
    Leaving,
    /// A state that this version does not know; not routable.
    #[serde(other)]
    Unknown,
}

impl WorkerState {
    /// Its name on the wire and on screen.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Unknown => "unknown",
        }
    }
}

/// A model that a worker serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOffer {
    /// Name and version.
    pub model: ModelRef,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Whether it is loaded and answers at once.
    pub warm: bool,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Digests of the adapters that are at hand.
    #[serde(default)]
    pub adapters: Vec<Digest>,
    /// Engine build, instruction set, dtype, kernels: answers are bit-equal within one class.
    #[serde(default)]
    pub numerics_class: String,
}

/// A model that a worker was told to serve and does not, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFault {
    /// What it was told to serve, as configured.
    pub model: String,
    /// Why it does not.
    pub reason: String,
}

/// The signed sign of life of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its key; must be the signer.
    pub worker: NodeId,
    /// Grows with each start of the worker. [T-PRE-5]
    pub epoch: u64,
    /// Grows with each heartbeat of an epoch. [T-PRE-5]
    pub seq: u64,
    /// Random; two heartbeats are never the same bytes.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 16],
    /// Unix milliseconds at which it was made.
    pub issued_ms: u64,
    /// What it is doing.
    pub state: WorkerState,
    /// Where it stands.
    pub region: Region,
    /// Class of its accelerator: `cpu`, `h100`, …
    pub gpu_class: String,
    /// Memory for models, in GiB, over all accelerators.
    pub vram_gb: u32,
    /// Number of accelerators.
    pub accelerators: u32,
    /// Requests that it runs at once.
    pub capacity: u32,
    /// Requests that wait in it.
    pub queue_depth: u32,
    /// Requests that it runs now.
    pub in_flight: u32,
    /// Models that it serves.
    #[serde(default)]
    pub models: Vec<ModelOffer>,
    /// Models that it should serve and does not.
    #[serde(default)]
    pub faults: Vec<ModelFault>,
    /// Price in micro-credits for a thousand tokens. (ECO-2)
    #[serde(default)]
    pub price_per_1k_micro: u64,
    /// What it claims; what counts is its grant. (TRU-1)
    #[serde(default)]
    pub tier: Tier,
    /// Engine and its version.
    #[serde(default)]
    pub engine: String,
    /// Tokens in a second that it made of late, over all requests.
    #[serde(default)]
    pub tokens_per_s: f32,
    /// Milliseconds to the first token that it saw of late, median.
    #[serde(default)]
    pub first_token_ms: u32,
    /// Minor version of the protocol that it speaks.
    #[serde(default)]
    pub minor: u16,
    /// Where it can be dialled, `IP:PORT`; also in its record on the DHT.
    #[serde(default)]
    pub addresses: Vec<String>,
}

impl Signable for Heartbeat {
    const WHAT: &'static str = "heartbeat";
    const DOMAIN: &'static str = "tether/heartbeat/1";
    const MAX_BYTES: usize = 16_384;

    fn check(&self, signer: &NodeId) -> Result<(), CodecError> {
        let what = Self::WHAT;
        check_field(what, "worker", self.worker == *signer, || {
            "is not the signer".to_owned()
        })?;
        check_len(what, "gpu_class", self.gpu_class.len(), 32)?;
        check_len(what, "engine", self.engine.len(), 64)?;
        check_len(what, "models", self.models.len(), MAX_MODELS)?;
        check_len(what, "faults", self.faults.len(), MAX_MODELS)?;
        check_len(what, "addresses", self.addresses.len(), MAX_ADDRESSES)?;
        check_field(
            what,
            "tokens_per_s",
            self.tokens_per_s.is_finite() && self.tokens_per_s >= 0.0,
            || "is not a number of tokens".to_owned(),
        )?;
        check_field(
            what,
            "capacity",
            (1..=65_536).contains(&self.capacity),
            || "is not between 1 and 65536".to_owned(),
        )?;
        for offer in &self.models {
            check_len(what, "adapters", offer.adapters.len(), MAX_ADAPTERS)?;
            check_len(what, "numerics_class", offer.numerics_class.len(), 96)?;
        }
        for fault in &self.faults {
            check_len(what, "faults", fault.model.len() + fault.reason.len(), 640)?;
        }
        for address in &self.addresses {
            codec::check_len(what, "addresses", address.len(), 64)?;
        }
        Ok(())
    }
}
