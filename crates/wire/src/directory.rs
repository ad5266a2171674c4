//! What orchestrators tell gateways about tenants and models. [T-DIR-1] to [T-DIR-5]
//!
//! A gateway opens no database. It subscribes, is given everything once and then what changed.

mod pieces;
mod rule;

pub use pieces::MAX_TENANTS_PER_UPDATE;
pub use rule::{MAX_RULES, MAX_SELECTORS, ModelRule, ModelSelector};

use crate::id::{Digest, ModelRef, TenantId};
use serde::{Deserialize, Serialize};

/// Most bytes of one update. [T-DIR-3]
pub const MAX_UPDATE_BYTES: usize = crate::rpc::MAX_FRAME_BYTES - 1;

/// A tenant as gateways need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantEntry {
    /// Its id.
    pub id: TenantId,
    /// Hashes of its API keys, see [`api_key_hash`]; the keys themselves are nowhere.
    pub key_hashes: Vec<Digest>,
    /// Which of [`DirectoryUpdate::rules`] says what models it may use, beside the first one, which
    /// holds for all. [T-DIR-5]
    #[serde(default, skip_serializing_if = "is_first")]
    pub rule: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
fn is_first(rule: &u32) -> bool {
    *rule == 0
}

/// Whether a model can be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// At least one worker is routable for it.
    Available,
    /// It is known, from a release or an earlier offer, and nothing serves it now.
    Unavailable,
}

/// A model as tenants see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelEntry {
    /// Name and version.
    pub model: ModelRef,
    /// Unix milliseconds at which it was first known here.
    pub created_ms: u64,
    /// Whether it can be had now.
    pub availability: Availability,
}

/// One update, or a piece of one; the first of a subscription has `whole` set. [T-DIR-2]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryUpdate {
    /// Grows with each update of one orchestrator.
    pub version: u64,
    /// Whether it replaces everything before it.
    pub whole: bool,
    /// Tenants that are new or changed.
    #[serde(default)]
    pub tenants: Vec<TenantEntry>,
    /// Tenants that are gone.
    #[serde(default)]
    pub removed_tenants: Vec<TenantId>,
    /// All models, where they changed.
    #[serde(default)]
    pub models: Option<Vec<ModelEntry>>,
    /// All rules about who may use which models, where they changed; the first one holds for every
    /// tenant. [T-DIR-5]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<ModelRule>>,
    /// Whether another piece of this version follows: what all of them say counts with the last one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
}

/// Hash of an API key. Keys are 256 random bits, so a fast hash gives nothing away. [T-DIR-4]
#[must_use]
pub fn api_key_hash(key: &str) -> Digest {
    Digest(blake3::derive_key(
        "tether 2026 tenant api key v1",
        key.as_bytes(),
    ))
}
