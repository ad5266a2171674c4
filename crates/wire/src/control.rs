//! What changes who belongs to a mesh: revocations, keys that were replaced, invites that were used.
//! (PRE-6) [T-CTL-1] to [T-CTL-6]
//!
//! Each is a sealed message that counts wherever it comes from. Orchestrators keep all of them and
//! pass them on to every node; no revocation is ever taken back.

use crate::codec::{self, CodecError, check_field, check_len};
use crate::envelope::{Signable, Signed, Verified};
use crate::grant::chain::Chain;
use crate::grant::{Grant, GrantError, Mesh, Role};
use crate::id::NodeId;
use serde::{Deserialize, Serialize};

/// Most bytes of one control message. [T-CTL-1]
pub const MAX_CONTROL_BYTES: usize = 8_192;
/// Longest reason for a revocation, in bytes. [T-CTL-2]
pub const MAX_REASON_BYTES: usize = 256;

/// One control message, sealed. [T-CTL-1]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Control {
    /// A sealed [`Revocation`].
    Revocation(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A sealed [`Grant`] that was passed on to a new key, or given for an invite: it shows that the
    /// old key, or one use of the invite, is spent.
    Grant(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl Control {
    /// Decodes a control message, unverified.
    ///
    /// # Errors
    /// When it is too large or not one.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("control message", bytes, MAX_CONTROL_BYTES)
    }

    /// Whether it says that the operator of this mesh revokes something; unverified.
    #[must_use]
    pub fn claims_root(&self, mesh: &Mesh) -> bool {
        let Self::Revocation(sealed) = self else {
            return false;
        };
        let signer = Signed::<Revocation>::from_bytes(sealed.as_slice()).claimed_signer();
        signer.is_some_and(|signer| mesh.is_root(&signer))
    }
}

/// What is taken back. [T-CTL-2]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A key, for good.
    Key(NodeId),
    /// What an operator gave this number: a grant, or an invite and all that came by it.
    Serial {
        /// The operator who gave it.
        issuer: NodeId,
        /// The number.
        serial: u64,
    },
}

/// An operator takes back a key or a grant, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What is taken back.
    pub target: Target,
    /// Whether what the key issued or was passed on to goes on holding. Without it all that rests on
    /// the key falls with it.
    #[serde(default)]
    pub keeps_issued: bool,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// Unix milliseconds at which it was signed; for people, it counts from ever.
    pub issued_ms: u64,
    /// The signer's own sealed [`Grant`], where it is an operator of a region.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub issuer: Option<Vec<u8>>,
}

impl Signable for Revocation {
    const WHAT: &'static str = "revocation";
    const DOMAIN: &'static str = "tether/revocation/1";
    const MAX_BYTES: usize = 6_144;

    fn check(&self, signer: &NodeId) -> Result<(), CodecError> {
        let what = Self::WHAT;
        check_len(what, "reason", self.reason.len(), MAX_REASON_BYTES)?;
        let oneself = matches!(self.target, Target::Key(key) if key == *signer);
        check_field(what, "target", !oneself, || {
            "is the key that signs: use the operator's other key".to_owned()
        })
    }
}

impl Signed<Revocation> {
    /// Verifies signature and right. The operator of the mesh revokes anything but the recovery key,
    /// which only ends with the mesh; an operator of a region what it gave itself. That its own grant
    /// ended since does not matter: what is revoked stays so. [T-CTL-3]
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify_revocation(&self, mesh: &Mesh) -> Result<Verified<Revocation>, GrantError> {
        let revocation = self.verify(&mesh.id)?;
        let signer = revocation.signer();
        let refuse = |why| Err(GrantError::Issuer { signer, why });
        if mesh.is_root(&signer) {
            let is_recovery =
                matches!(revocation.target, Target::Key(key) if Some(key) == mesh.recovery);
            if is_recovery {
                return refuse("the recovery key cannot be revoked");
            }
            return Ok(revocation);
        }
        let Some(own) = &revocation.issuer else {
            return refuse("it is not the operator of this mesh");
        };
        let chain = Chain::verify(&Signed::<Grant>::from_bytes(own.as_slice()), mesh)?;
        if chain.leaf().subject != signer || chain.leaf().role != Role::Operator {
            return refuse("its own grant does not make it an operator");
        }
        match revocation.target {
            Target::Serial { issuer, .. } if issuer == signer => Ok(revocation),
            _ => refuse("an operator of a region revokes what it gave itself"),
        }
    }
}

#[cfg(test)]
mod tests;
