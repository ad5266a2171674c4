//! Grants: who may do what in a mesh. (NET-8) [T-GRA-1] to [T-GRA-9]
//!
//! A mesh is its operator's key. The operator signs grants; a grant gives one key one role, in one
//! region or in all, for a time. What others sign counts by the grants that they show inside: an
//! operator of a region issues for it, a node passes its own grant on to its next key, an
//! orchestrator lets in whom an invite allows ([`chain`]).

pub mod chain;

use crate::codec::{self, CodecError};
use crate::envelope::{Signable, VerifyError};
use crate::id::{MeshId, NodeId, Region};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a node is in the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Takes tenants' requests.
    Gateway,
    /// Keeps the fleet, places requests, owns jobs.
    Orchestrator,
    /// Serves inference.
    Worker,
    /// Signs artifacts.
    Publisher,
    /// Issues grants for one region.
    Operator,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Orchestrator => "orchestrator",
            Self::Worker => "worker",
            Self::Publisher => "publisher",
            Self::Operator => "operator",
        })
    }
}

impl std::str::FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        [
            Self::Gateway,
            Self::Orchestrator,
            Self::Worker,
            Self::Publisher,
            Self::Operator,
        ]
        .into_iter()
        .find(|role| role.to_string() == text)
        .ok_or_else(|| {
            format!(
                "`{text}` is not a role: use gateway, orchestrator, worker, publisher or operator"
            )
        })
    }
}

/// How far the results of a worker are believed. (TRU-1)
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Anyone: results are validated.
    #[default]
    Untrusted,
    /// Vetted by the operator: results are spot-checked.
    Trusted,
}

/// Who may come. (PRE-6) [T-GRA-6]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Every node needs a grant, from an operator or by an invite; the topics' keys are keyed with
    /// the mesh id.
    #[default]
    Invite,
    /// As invite, and this node links only with keys that its operator listed, whatever they show.
    AllowList,
    /// Workers may come without a grant, as untrusted; the topics' keys are unkeyed.
    Open,
}

/// A mesh as a node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mesh {
    /// Public key of the operator.
    pub id: MeshId,
    /// Public key of the operator's second key, which is kept offline and may do the same: what is
    /// left when the first one is stolen. [T-GRA-7]
    pub recovery: Option<NodeId>,
    /// Who may come.
    pub access: Access,
}

impl Mesh {
    /// What the topics' keys are keyed with. [T-TOP-4]
    #[must_use]
    pub fn topic_key(&self, topic: &crate::Topic) -> crate::TopicKey {
        topic.key(match self.access {
            Access::Invite | Access::AllowList => Some(&self.id),
            Access::Open => None,
        })
    }

    /// Whether this key is its operator's, the first or the one for recovery.
    #[must_use]
    pub fn is_root(&self, key: &NodeId) -> bool {
        *key == self.id.operator() || self.recovery.as_ref() == Some(key)
    }
}

/// A role given to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose role it is.
    pub subject: NodeId,
    /// The role.
    pub role: Role,
    /// Where it holds; nothing means in every region.
    #[serde(default)]
    pub region: Option<Region>,
    /// How far a worker is believed.
    #[serde(default)]
    pub tier: Tier,
    /// Unix milliseconds from which it holds.
    pub not_before_ms: u64,
    /// Unix milliseconds from which it no longer holds.
    pub expires_ms: u64,
    /// Number given by the issuer, by which it can be revoked.
    pub serial: u64,
    /// The issuer's own sealed [`Grant`], where the issuer is not the operator of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub issuer: Option<Vec<u8>>,
    /// The sealed [`Consent`] of the subject, where the issuer passes its own grant on to it.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub consent: Option<Vec<u8>>,
    /// The sealed [`crate::Invite`] by which the issuer, an orchestrator, let the subject in.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub invite: Option<Vec<u8>>,
}

/// A key agrees to take over the grant of another: nobody can pass theirs on to a key that is not
/// their own. [T-GRA-8]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// The key whose grant it takes over.
    pub old: NodeId,
    /// Unix milliseconds at which it agreed.
    pub issued_ms: u64,
}

impl Signable for Consent {
    const WHAT: &'static str = "consent";
    const DOMAIN: &'static str = "tether/consent/1";
    const MAX_BYTES: usize = 256;

    fn check(&self, signer: &NodeId) -> Result<(), CodecError> {
        codec::check_field(Self::WHAT, "old", self.old != *signer, || {
            "is the key that takes over".to_owned()
        })
    }
}

/// Longest life of a grant: two years. Grants renew. [T-GRA-3]
pub const MAX_GRANT_LIFE_MS: u64 = 2 * 366 * 24 * 3_600_000;
/// How far a verifier's clock may be behind the issuer's. [T-GRA-4]
pub const GRANT_SKEW_MS: u64 = 5 * 60_000;

impl Signable for Grant {
    const WHAT: &'static str = "grant";
    const DOMAIN: &'static str = "tether/grant/1";
    const MAX_BYTES: usize = 4_096;

    fn check(&self, _: &NodeId) -> Result<(), CodecError> {
        codec::check_field(
            Self::WHAT,
            "expires_ms",
            self.expires_ms > self.not_before_ms,
            || "is not after not_before_ms".to_owned(),
        )?;
        let life = self.expires_ms.saturating_sub(self.not_before_ms);
        codec::check_field(Self::WHAT, "expires_ms", life <= MAX_GRANT_LIFE_MS, || {
            "is more than two years after not_before_ms".to_owned()
        })
    }
}

/// Why a grant is worth nothing here and now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not rightly signed.
    #[error(transparent)]
    Invalid(#[from] VerifyError),
    /// Signed by somebody who may not issue it.
    #[error("the grant is signed by {signer}, who may not issue it: {why}")]
    Issuer {
        /// The signer.
        signer: NodeId,
        /// Why they may not.
        why: &'static str,
    },
    /// Over.
    #[error("the grant (serial {serial}) expired {ago_s} s ago: ask the operator for a new one")]
    Expired {
        /// Its number.
        serial: u64,
        /// Seconds since.
        ago_s: u64,
    },
    /// Not yet begun.
    #[error("the grant (serial {serial}) holds only in {in_s} s: check this node's clock")]
    NotYet {
        /// Its number.
        serial: u64,
        /// Seconds until.
        in_s: u64,
    },
    /// Taken back, or something that it rests on was.
    #[error("{0}")]
    Revoked(String),
    /// An invite has let in all whom it was for.
    #[error(
        "the invite (serial {serial}) has let in all whom it was for ({uses}): ask the operator for another"
    )]
    Spent {
        /// Its number.
        serial: u64,
        /// How many it was for.
        uses: u32,
    },
}
