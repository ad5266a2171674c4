//! What a grant rests on: from the node's key up to the operator's. [T-GRA-2], [T-GRA-5], [T-GRA-8],
//! [T-GRA-9]
//!
//! Signatures and rights alone: they depend on nothing but the bytes and the mesh, and never change.
//! Whether all that is still so, at this time and after what was revoked, says
//! [`crate::Membership`].

use super::{Consent, Grant, GrantError, Mesh, Role, Tier};
use crate::envelope::{Signed, Verified, VerifyError};
use crate::id::{MeshId, NodeId};
use crate::invite::Invite;
use crate::key::NodeKey;

/// Most keys that one grant was passed on to, one after the other; then the node needs a new one.
/// [T-GRA-8]
pub const MAX_TRANSFERS: usize = 4;
/// Most grants that one rests on: its transfers, the orchestrator's that let it in and the
/// operator's of a region, with transfers of their own. [T-GRA-2]
pub const MAX_DEPTH: usize = 10;

/// A grant, and those that it rests on.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The grant itself first, then the one that its issuer shows, up to one by the operator.
    grants: Vec<Verified<Grant>>,
    invited: Option<Invited>,
}

/// How a node was let in.
#[derive(Clone, Debug)]
pub struct Invited {
    at: usize,
    /// The invite.
    pub invite: Verified<Invite>,
    /// Grants that the right of the invite's issuer rests on.
    pub rests_on: Vec<Verified<Grant>>,
}

impl Chain {
    /// Verifies signatures and rights.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn verify(sealed: &Signed<Grant>, mesh: &Mesh) -> Result<Self, GrantError> {
        let mut chain = Self {
            grants: Vec::new(),
            invited: None,
        };
        chain.climb(sealed.verify(&mesh.id)?, mesh)?;
        Ok(chain)
    }

    fn climb(&mut self, mut grant: Verified<Grant>, mesh: &Mesh) -> Result<(), GrantError> {
        let mut transfers = 0;
        loop {
            let signer = grant.signer();
            transfers = grant.consent.as_ref().map_or(0, |_| transfers + 1);
            if transfers > MAX_TRANSFERS {
                return refuse(signer, "it was passed on too often");
            }
            let Some(shown) = above(&grant, mesh)? else {
                self.grants.push(grant);
                return Ok(());
            };
            let at = self.grants.len();
            if at + 1 >= MAX_DEPTH {
                return refuse(signer, "it rests on too many others");
            }
            let parent = shown.verify(&mesh.id)?;
            if let Some((invite, rests_on)) = judge(&grant, &parent, mesh)? {
                self.invited = Some(Invited {
                    at,
                    invite,
                    rests_on,
                });
            }
            self.grants.push(std::mem::replace(&mut grant, parent));
        }
    }

    /// The grant itself.
    #[must_use]
    pub fn leaf(&self) -> &Verified<Grant> {
        &self.grants[0]
    }

    /// The grant itself, alone.
    #[must_use]
    pub fn into_leaf(mut self) -> Verified<Grant> {
        self.grants.swap_remove(0)
    }

    /// All grants, from the node's own up.
    #[must_use]
    pub fn grants(&self) -> &[Verified<Grant>] {
        &self.grants
    }

    /// The grant that was given for an invite, and how; there is one at most, since orchestrators
    /// need the operator's own grant.
    #[must_use]
    pub fn invited(&self) -> Option<(&Verified<Grant>, &Invited)> {
        let invited = self.invited.as_ref()?;
        Some((&self.grants[invited.at], invited))
    }

    /// Keys that passed this grant on, and to which.
    pub fn transfers(&self) -> impl Iterator<Item = (NodeId, NodeId)> {
        (self.grants.iter())
            .filter(|grant| grant.consent.is_some())
            .map(|grant| (grant.signer(), grant.subject))
    }
}

/// Passes the grant that `old` holds on to `new`, which agrees with its own signature. [T-GRA-8]
///
/// # Errors
/// When the grant is not one of this mesh, or was passed on so often that it no longer fits.
pub fn pass_on(
    held: &Signed<Grant>,
    old: &NodeKey,
    new: &NodeKey,
    mesh: &MeshId,
    now_ms: u64,
) -> Result<Signed<Grant>, VerifyError> {
    let consent = Consent {
        old: old.id(),
        issued_ms: now_ms,
    };
    let passed = Grant {
        subject: new.id(),
        issuer: Some(held.as_bytes().to_vec()),
        consent: Some(Signed::seal(new, mesh, &consent)?.as_bytes().to_vec()),
        invite: None,
        ..held.verify(mesh)?.into_inner()
    };
    Signed::seal(old, mesh, &passed)
}

fn refuse<T>(signer: NodeId, why: &'static str) -> Result<T, GrantError> {
    Err(GrantError::Issuer { signer, why })
}

/// The grant that the issuer shows; nothing where the operator of the mesh signed.
fn above(grant: &Verified<Grant>, mesh: &Mesh) -> Result<Option<Signed<Grant>>, GrantError> {
    let signer = grant.signer();
    if mesh.is_root(&signer) {
        if grant.consent.is_some() || grant.invite.is_some() {
            return refuse(signer, "the operator neither passes on nor needs an invite");
        }
        return Ok(None);
    }
    let Some(bytes) = &grant.issuer else {
        return refuse(signer, "it is not the operator of this mesh");
    };
    Ok(Some(Signed::from_bytes(bytes.as_slice())))
}

/// An invite, and the grants that it rests on.
type Shown = (Verified<Invite>, Vec<Verified<Grant>>);

/// Whether who holds `parent` may issue `grant`.
fn judge(
    grant: &Verified<Grant>,
    parent: &Verified<Grant>,
    mesh: &Mesh,
) -> Result<Option<Shown>, GrantError> {
    let signer = grant.signer();
    if parent.subject != signer {
        return refuse(signer, "the grant that it shows is another's");
    }
    match (&grant.consent, &grant.invite) {
        (Some(_), Some(_)) => refuse(signer, "it is passed on and by an invite at once"),
        (Some(consent), None) => judge_transfer(grant, parent, consent, mesh).map(|()| None),
        (None, Some(invite)) => judge_invited(grant, parent, invite, mesh).map(Some),
        (None, None) => judge_regional(grant, parent).map(|()| None),
    }
}

/// One level of delegation: an operator of a region issues for it.
fn judge_regional(grant: &Verified<Grant>, parent: &Grant) -> Result<(), GrantError> {
    let signer = grant.signer();
    if parent.role != Role::Operator {
        return refuse(signer, "its own grant does not make it an operator");
    }
    if grant.role == Role::Operator {
        return refuse(signer, "only the operator of the mesh makes operators");
    }
    if parent.region.is_some() && parent.region != grant.region {
        return refuse(signer, "it is operator of another region");
    }
    if grant.expires_ms > parent.expires_ms || grant.not_before_ms < parent.not_before_ms {
        return refuse(signer, "the grant outlives its issuer's own");
    }
    Ok(())
}

/// A node's next key takes over all that the old one had, and nothing else.
fn judge_transfer(
    grant: &Verified<Grant>,
    parent: &Grant,
    consent: &[u8],
    mesh: &Mesh,
) -> Result<(), GrantError> {
    let signer = grant.signer();
    let same = grant.role == parent.role
        && grant.region == parent.region
        && grant.tier == parent.tier
        && grant.serial == parent.serial
        && grant.not_before_ms == parent.not_before_ms
        && grant.expires_ms == parent.expires_ms;
    if !same {
        return refuse(signer, "a grant is passed on as it is or not at all");
    }
    let consent = Signed::<Consent>::from_bytes(consent).verify(&mesh.id)?;
    if consent.signer() != grant.subject || consent.old != signer {
        return refuse(signer, "the key that takes it over did not agree");
    }
    Ok(())
}

/// An orchestrator lets a worker in, as an invite allows.
fn judge_invited(
    grant: &Verified<Grant>,
    parent: &Grant,
    invite: &[u8],
    mesh: &Mesh,
) -> Result<Shown, GrantError> {
    let signer = grant.signer();
    if parent.role != Role::Orchestrator {
        return refuse(signer, "only orchestrators let in whom an invite allows");
    }
    if parent.region.is_some() && parent.region != grant.region {
        return refuse(signer, "it is an orchestrator of another region");
    }
    if !(parent.not_before_ms..parent.expires_ms).contains(&grant.not_before_ms) {
        return refuse(signer, "its own grant did not hold when it issued this one");
    }
    let (invite, rests_on) = Signed::<Invite>::from_bytes(invite).verify_invite(mesh)?;
    let invited_until_ms = rests_on.first().map_or(u64::MAX, |own| own.expires_ms);
    if grant.expires_ms > parent.expires_ms.min(invited_until_ms) {
        return refuse(signer, "the grant outlives those of who lets in or invites");
    }
    let allowed = grant.role == Role::Worker
        && grant.region.as_ref() == Some(&invite.region)
        && (grant.tier == Tier::Untrusted || invite.tier == Tier::Trusted)
        && (invite.not_before_ms..invite.expires_ms).contains(&grant.not_before_ms)
        && grant.expires_ms - grant.not_before_ms <= invite.grant_life_ms;
    if !allowed {
        return refuse(signer, "the invite does not allow it");
    }
    Ok((invite, rests_on))
}

#[cfg(test)]
mod tests;
