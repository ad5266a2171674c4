//! What a worker signs about an answer that it gave. (TRU-3) [T-RCP-1] to [T-RCP-6]
//!
//! A receipt is evidence for whoever holds the answer: who gave it, by which artifact, to which
//! request, drawn from which seed. It goes to the caller, who may show it to others, so the tenant
//! is not in it. It cannot prove that the model was really run: a worker can sign what it did not
//! compute. It makes the worker answer for it, since anyone of the same numerics class can compute
//! the answer again.

pub mod hash;

use crate::card::MAX_ADAPTERS;
use crate::codec::{CodecError, check_field, check_len};
use crate::envelope::{Signable, Signed, Verified, VerifyError};
use crate::grant::chain::Chain;
use crate::grant::{Access, GRANT_SKEW_MS, Grant, GrantError, Mesh, Role, Tier};
use crate::id::{CorrelationId, Digest, ModelRef, NodeId};
use crate::infer::Finish;
use serde::{Deserialize, Serialize};

/// Most bytes of a sealed receipt: what a grant may have, and room for the rest. [T-RCP-1]
pub const MAX_RECEIPT_BYTES: usize = 6_144;
/// Most bytes of the name of an engine, as in a card.
const MAX_ENGINE_BYTES: usize = 64;
/// Most bytes of a numerics class, as in a card.
const MAX_NUMERICS_BYTES: usize = 96;

/// What a worker says about an answer that it gave; which worker says the envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The job.
    pub correlation: CorrelationId,
    /// Which try at the job this was, from 1.
    pub attempt: u32,
    /// Fencing number of the job's owner at the time.
    pub fence: u64,
    /// The model by name.
    pub model: ModelRef,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Digests of the adapters that were applied: its own where the model is one.
    #[serde(default)]
    pub adapters: Vec<Digest>,
    /// Within one class the same request and seed give the same tokens. [T-INF-5]
    #[serde(default)]
    pub numerics_class: String,
    /// Engine and its version.
    #[serde(default)]
    pub engine: String,
    /// What was asked. [T-RCP-3]
    pub request: Digest,
    /// The text of the answer. [T-RCP-4]
    pub text: Digest,
    /// The calls of tools that it holds, if any. [T-RCP-4]
    #[serde(default)]
    pub calls: Option<Digest>,
    /// The ids of its tokens, for who computes it again; nothing where the engine gives none.
    /// [T-RCP-4]
    #[serde(default)]
    pub tokens: Option<Digest>,
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u32,
    /// Tokens of the whole answer, the ending one included.
    pub completion_tokens: u32,
    /// Why it ended.
    pub finish: Finish,
    /// The seed that it was drawn from.
    pub seed: u64,
    /// Unix milliseconds of the worker's clock at which the request's turn came.
    pub began_ms: u64,
    /// When the first piece of the answer was there; nothing where it is empty.
    #[serde(default)]
    pub first_token_ms: Option<u64>,
    /// When it was whole.
    pub ended_ms: u64,
    /// Tokens that had been given before, on which this worker went on; 0 is the whole answer.
    #[serde(default)]
    pub continued_from: u32,
    /// The worker's sealed [`Grant`], so that whoever holds the receipt can judge it alone; only
    /// workers of an open mesh have none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub grant: Option<Vec<u8>>,
}

impl Signable for Receipt {
    const WHAT: &'static str = "receipt";
    const DOMAIN: &'static str = "tether/receipt/1";
    const MAX_BYTES: usize = MAX_RECEIPT_BYTES;

    fn check(&self, _: &NodeId) -> Result<(), CodecError> {
        let what = Self::WHAT;
        check_len(what, "adapters", self.adapters.len(), MAX_ADAPTERS)?;
        let class = self.numerics_class.len();
        check_len(what, "numerics_class", class, MAX_NUMERICS_BYTES)?;
        check_len(what, "engine", self.engine.len(), MAX_ENGINE_BYTES)?;
        check_field(what, "attempt", self.attempt > 0, || {
            "is 0: attempts count from 1".to_owned()
        })?;
        let first_ms = self.first_token_ms.unwrap_or(self.began_ms);
        let in_order = self.began_ms <= first_ms && first_ms <= self.ended_ms;
        check_field(what, "ended_ms", in_order, || {
            "is before the answer began".to_owned()
        })?;
        check_field(
            what,
            "continued_from",
            self.continued_from <= self.completion_tokens,
            || "is beyond the end of the answer".to_owned(),
        )?;
        let grant = self.grant.as_ref().map_or(0, Vec::len);
        check_len(what, "grant", grant, Grant::MAX_BYTES)
    }
}

/// Why a receipt proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not rightly signed, for another mesh, or malformed.
    #[error(transparent)]
    Invalid(#[from] VerifyError),
    /// The grant that it shows counts for nothing.
    #[error("the worker's grant in the receipt: {0}")]
    Grant(GrantError),
    /// The grant that it shows is of another key.
    #[error("the receipt shows the grant of {subject}, but {signer} signed it")]
    AnothersGrant {
        /// Whose grant it is.
        subject: NodeId,
        /// Who signed the receipt.
        signer: NodeId,
    },
    /// The signer may do something else in the mesh.
    #[error("the receipt is signed by a {role}; only a worker makes receipts")]
    Role {
        /// What the signer is.
        role: Role,
    },
    /// No grant, where every worker has one.
    #[error("the receipt shows no grant, and this mesh has no workers without one")]
    Ungranted,
    /// The answer was given when the grant did not hold.
    #[error("the answer ended when the worker's grant did not hold")]
    OutsideGrant,
}

/// A receipt that was verified, and what its signer is in the mesh.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The receipt.
    pub receipt: Verified<Receipt>,
    /// How far the operator believes the signer; nothing where it showed no grant, which is
    /// enough in an open mesh.
    pub tier: Option<Tier>,
}

/// Verifies a receipt: its signature, and by the grant inside that its signer was a worker of the
/// mesh when the answer ended. What was revoked since is not known here. [T-RCP-2]
///
/// # Errors
/// Why it proves nothing.
pub fn verify(sealed: &Signed<Receipt>, mesh: &Mesh) -> Result<Proof, ReceiptError> {
    let receipt = sealed.verify(&mesh.id)?;
    let signer = receipt.signer();
    let Some(grant) = &receipt.grant else {
        return match mesh.access {
            Access::Open => Ok(Proof {
                receipt,
                tier: None,
            }),
            Access::Invite | Access::AllowList => Err(ReceiptError::Ungranted),
        };
    };
    let grant = Signed::<Grant>::from_bytes(grant.as_slice());
    let grant = Chain::verify(&grant, mesh)
        .map_err(ReceiptError::Grant)?
        .into_leaf();
    if grant.subject != signer {
        let subject = grant.subject;
        return Err(ReceiptError::AnothersGrant { subject, signer });
    }
    if grant.role != Role::Worker {
        return Err(ReceiptError::Role { role: grant.role });
    }
    let begins_ms = grant.not_before_ms.saturating_sub(GRANT_SKEW_MS);
    if !(begins_ms..grant.expires_ms).contains(&receipt.ended_ms) {
        return Err(ReceiptError::OutsideGrant);
    }
    Ok(Proof {
        receipt,
        tier: Some(grant.tier),
    })
}

#[cfg(test)]
mod tests;
