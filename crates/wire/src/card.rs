//! What a node says of itself that changes rarely, signed when it changes. (PRE-1) [T-CRD-1] to [T-CRD-4]

use crate::codec::{CodecError, check_field, check_len};
use crate::envelope::Signable;
use crate::grant::{Role, Tier};
use crate::id::{Digest, ModelRef, NodeId, Region};
use serde::{Deserialize, Serialize};

/// Most models that a worker may offer. [T-CRD-3]
pub const MAX_MODELS: usize = 64;
/// Most addresses that a node may give. [T-CRD-3]
pub const MAX_ADDRESSES: usize = 16;
/// Most adapters of one model. [T-CRD-3]
pub const MAX_ADAPTERS: usize = 16;

/// A model that a worker serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelOffer {
    /// Name and version.
    pub model: ModelRef,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Whether it is loaded and answers at once.
    pub warm: bool,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Digests of the adapters that are loaded over it here.
    #[serde(default)]
    pub adapters: Vec<Digest>,
    /// Engine build, instruction set, dtype, kernels: answers are bit-equal within one class.
    #[serde(default)]
    pub numerics_class: String,
}

/// A model that a worker was told to serve and does not, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelFault {
    /// What it was told to serve: `NAME@MAJOR.MINOR` where the worker knows that, else as configured.
    pub model: String,
    /// Why it does not: a word for its kind, and after a colon more for people.
    pub reason: String,
}

/// What a worker has to offer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WorkerCard {
    /// Class of its accelerator: `cpu`, `h100`, …
    pub gpu_class: String,
    /// Memory for models, in GiB, over all accelerators.
    pub vram_gb: u32,
    /// Number of accelerators.
    pub accelerators: u32,
    /// Requests that it runs at once.
    pub capacity: u32,
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
}

/// What a node says of itself; whose it is says the envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Its role.
    pub role: Role,
    /// The boot epoch in which it was made, as in its beats.
    pub epoch: u64,
    /// Grows with each card of an epoch.
    pub revision: u64,
    /// Unix milliseconds at which it was made.
    pub issued_ms: u64,
    /// Where it stands.
    pub region: Region,
    /// Its sealed [`crate::Grant`], so that whoever the card is passed on to can judge it alone.
    #[serde(default, with = "serde_bytes")]
    pub grant: Option<Vec<u8>>,
    /// Name and version of the software, for people.
    #[serde(default)]
    pub agent: String,
    /// Minor version of the protocol that it speaks.
    #[serde(default)]
    pub minor: u16,
    /// Where it can be dialled, `IP:PORT`; also in its record on the DHT.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// What it has to offer; there if and only if it is a worker.
    #[serde(default)]
    pub worker: Option<WorkerCard>,
}

impl Signable for Card {
    const WHAT: &'static str = "card";
    const DOMAIN: &'static str = "tether/card/1";
    const MAX_BYTES: usize = 16_384;

    fn check(&self, _: &NodeId) -> Result<(), CodecError> {
        let what = Self::WHAT;
        check_len(what, "agent", self.agent.len(), 128)?;
        check_len(what, "addresses", self.addresses.len(), MAX_ADDRESSES)?;
        for address in &self.addresses {
            check_len(what, "addresses", address.len(), 64)?;
        }
        let is_worker = self.role == Role::Worker;
        check_field(what, "worker", self.worker.is_some() == is_worker, || {
            format!("is there or missing, but the role is {}", self.role)
        })?;
        check_field(
            what,
            "role",
            matches!(self.role, Role::Gateway | Role::Orchestrator | Role::Worker),
            || format!("is {}, which has no presence", self.role),
        )?;
        self.worker.as_ref().map_or(Ok(()), WorkerCard::check)
    }
}

impl WorkerCard {
    fn check(&self) -> Result<(), CodecError> {
        let what = Card::WHAT;
        check_len(what, "gpu_class", self.gpu_class.len(), 32)?;
        check_len(what, "engine", self.engine.len(), 64)?;
        check_len(what, "models", self.models.len(), MAX_MODELS)?;
        check_len(what, "faults", self.faults.len(), MAX_MODELS)?;
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
        Ok(())
    }
}
