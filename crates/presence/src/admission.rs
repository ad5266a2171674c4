//! Whose signature and whose grant count. (PRE-6, NET-8) [T-CRD-4]
//!
//! Both cost public-key arithmetic, and both depend on nothing but bytes, mesh and time; so they are
//! decided here, away from the state machines, which get the result as a type.

use crate::rejected::Rejected;
use std::sync::Arc;
use tether_wire::grant::{Access, GrantError};
use tether_wire::{
    Beat, Card, Digest, Membership, NodeId, Role, Signable, Signed, Tier, Verified, VerifyError,
};

/// A card whose signature and grant were found good. Only a [`Verifier`] should make one.
#[derive(Clone, Debug)]
pub struct AdmittedCard {
    card: Verified<Card>,
    digest: Digest,
    tier: Tier,
    until_ms: u64,
}

impl AdmittedCard {
    /// Takes a verifier's word for it: `tier` is what the grant says, `until_ms` the Unix time at
    /// which it ends, `None` where the node needs none.
    #[must_use]
    pub fn new(card: Verified<Card>, tier: Tier, until_ms: Option<u64>) -> Self {
        Self {
            digest: Digest::of(card.bytes()),
            card,
            tier,
            until_ms: until_ms.unwrap_or(u64::MAX),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.card.signer()
    }
    /// What it says, with its sealed bytes.
    #[must_use]
    pub fn card(&self) -> &Verified<Card> {
        &self.card
    }
    /// Digest of its sealed bytes, by which beats name it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Its node's role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.card.role
    }
    /// How far its node is believed.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.tier
    }
    /// Unix milliseconds at which its grant ends; `u64::MAX` is never.
    #[must_use]
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }
    /// The verified card alone.
    #[must_use]
    pub fn into_card(self) -> Verified<Card> {
        self.card
    }
}

/// Checks signatures and grants. An orchestrator uses [`Signatures`]; a simulator its own.
pub trait Verifier {
    /// Checks a beat.
    ///
    /// # Errors
    /// The reason against it.
    fn beat(&self, sealed: &Signed<Beat>) -> Result<Verified<Beat>, Rejected>;

    /// Checks a card and its grant at this Unix time.
    ///
    /// # Errors
    /// The reason against it.
    fn card(&self, sealed: &Signed<Card>, now_unix_ms: u64) -> Result<AdmittedCard, Rejected>;
}

/// The rules of a mesh: Ed25519, grants of its operator, and what was revoked of them.
#[derive(Clone, Debug)]
pub struct Signatures {
    /// Who belongs to the mesh.
    pub members: Arc<Membership>,
}

impl Verifier for Signatures {
    fn beat(&self, sealed: &Signed<Beat>) -> Result<Verified<Beat>, Rejected> {
        (sealed.verify(&self.members.mesh().id)).map_err(|error| reason(&error))
    }

    fn card(&self, sealed: &Signed<Card>, now_unix_ms: u64) -> Result<AdmittedCard, Rejected> {
        let card = sealed
            .verify(&self.members.mesh().id)
            .map_err(|error| reason(&error))?;
        admit(&self.members, card, now_unix_ms)
    }
}

/// Judges a verified card by its grant, as the greeting of a link would. [T-CRD-4]
///
/// # Errors
/// [`Rejected::Ungranted`] where there is no grant that holds, [`Rejected::WrongGrant`] where there
/// is one that says something else, [`Rejected::Revoked`] where key or grant were taken back.
pub fn admit(
    members: &Membership,
    card: Verified<Card>,
    now_unix_ms: u64,
) -> Result<AdmittedCard, Rejected> {
    let node = card.signer();
    members.check_key(&node).map_err(|_| Rejected::Revoked)?;
    let Some(bytes) = &card.grant else {
        if members.mesh().access == Access::Open && card.role == Role::Worker {
            return Ok(AdmittedCard::new(card, Tier::Untrusted, None));
        }
        return Err(Rejected::Ungranted);
    };
    let grant = members
        .verify_grant(&Signed::from_bytes(bytes.as_slice()), now_unix_ms)
        .map_err(|error| match error {
            GrantError::Revoked(_) => Rejected::Revoked,
            _ => Rejected::Ungranted,
        })?;
    let elsewhere = (grant.region.as_ref()).is_some_and(|region| *region != card.region);
    if grant.subject != node || grant.role != card.role || elsewhere {
        return Err(Rejected::WrongGrant);
    }
    let (tier, until_ms) = (grant.tier, grant.expires_ms);
    Ok(AdmittedCard::new(card, tier, Some(until_ms)))
}

/// The label of what is wrong with an envelope.
#[must_use]
pub fn reason(error: &VerifyError) -> Rejected {
    match error {
        VerifyError::TooLarge { .. } => Rejected::Oversized,
        VerifyError::NotAnEnvelope { .. } | VerifyError::BadSignature { .. } => Rejected::Forged,
        VerifyError::Body(_) => Rejected::Malformed,
    }
}

/// Whether bytes may be of this kind at all, before anything is spent on them.
pub(crate) fn fits<T: Signable>(bytes: &[u8]) -> bool {
    bytes.len() <= T::MAX_BYTES
}
