//! Who belongs to a mesh now: its operator's keys, and all that was taken back, replaced or used up.
//! (PRE-6) [T-CTL-4] to [T-CTL-7]
//!
//! Nodes that have heard the same control messages judge alike, in whatever order they heard them.
//! Revocations never end; that a key was replaced, or an invite used, is forgotten once all that it
//! is about is over.

mod fact;
mod heirs;
mod invites;
mod revoked;
mod shelf;

pub use fact::{Checked, Fact};

use crate::control::{Control, Target};
use crate::envelope::{Signed, Verified};
use crate::grant::chain::Chain;
use crate::grant::{GRANT_SKEW_MS, Grant, GrantError, Mesh};
use crate::id::NodeId;
use crate::invite::Invite;
use crate::link::{Refusal, RefusalCode};
use fact::invite_group;
use heirs::{Heir, Heirs};
use invites::Uses;
use revoked::Revoked;
use shelf::Basis;
use std::collections::HashSet;
use std::sync::Arc;

/// Most keys and serials that one key of the mesh's operator revokes. [T-CTL-6]
pub const MAX_REVOKED: usize = 16_384;
/// Most serials that one operator of a region revokes, with all keys that its grant was passed on to.
/// [T-CTL-6]
pub const MAX_REVOKED_BY_ONE: usize = 1_024;
/// Most serials that operators of regions revoke together. [T-CTL-6]
pub const MAX_REVOKED_IN_REGIONS: usize = 8_192;
/// Most keys that were replaced. [T-CTL-6]
pub const MAX_REPLACED: usize = 32_768;
/// Most of these whose grants rest on one that the operator of the mesh gave to one key. [T-CTL-6]
pub const MAX_REPLACED_BY_ONE: usize = 16_384;
/// Most of these that begin with one key. [T-CTL-6]
pub const MAX_REPLACED_OF_KEY: usize = 8;
/// Most workers that are remembered as let in by invites. [T-CTL-6]
pub const MAX_INVITED: usize = 65_536;
/// Most of these that came by the invites of one operator of a region. [T-CTL-6]
pub const MAX_INVITED_BY_ONE: usize = 16_384;
/// Most facts that can be held, all kinds together. [T-CTL-6]
pub const MAX_FACTS: usize = 2 * MAX_REVOKED + MAX_REVOKED_IN_REGIONS + MAX_REPLACED + MAX_INVITED;

/// Why a control message is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Not a control message.
    #[error(transparent)]
    Malformed(#[from] crate::codec::CodecError),
    /// Not rightly signed, or by somebody who may not.
    #[error(transparent)]
    Unauthorised(#[from] GrantError),
    /// A grant that neither replaces a key nor uses an invite.
    #[error("the grant of {0} replaces no key and uses no invite: it is nothing to pass on")]
    Plain(NodeId),
    /// The bound of what is kept is reached.
    #[error("{what} are full: {limit} are held")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// It counts, but would be forgotten with the next start.
    #[error("it counts from now on, but cannot be kept on the disk: {0}")]
    NotKept(String),
}

/// Who belongs to a mesh.
#[derive(Clone, Debug)]
pub struct Membership {
    mesh: Mesh,
    revoked: Revoked,
    heirs: Heirs,
    uses: Uses,
    /// See [`Membership::unseated`].
    unseated: u64,
    /// Keys with which this node links, where its operator listed them.
    allowed: Option<Arc<HashSet<NodeId>>>,
}

impl Membership {
    /// Nobody revoked.
    #[must_use]
    pub fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            revoked: Revoked::new(&mesh),
            heirs: Heirs::new(),
            uses: Uses::new(),
            unseated: 0,
            allowed: None,
        }
    }

    /// The mesh.
    #[must_use]
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Links with these keys alone from now on; nothing is with all.
    pub fn allow_only(&mut self, keys: Option<HashSet<NodeId>>) {
        self.allowed = keys.map(Arc::new);
    }

    /// Keys that are revoked or were replaced.
    pub fn barred(&self) -> impl Iterator<Item = NodeId> {
        self.revoked.keys().chain(self.heirs.replaced())
    }

    /// How many revocations, replaced keys and used invites are known.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [self.revoked.len(), self.heirs.len(), self.uses.len()]
    }

    /// Checks who signed a control message. That is most of what it costs to take it, and needs
    /// nothing but the mesh. A grant that rests on others says what they say, too.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn check(&self, control: &Control) -> Result<Vec<Checked>, ControlError> {
        Checked::all(control, &self.mesh)
    }

    /// Takes a fact at this time, in Unix milliseconds. Nothing, where it changes nothing: it need
    /// neither be kept nor passed on. Otherwise the facts that no longer matter beside it. Which ones
    /// matter does not depend on the order in which they came.
    ///
    /// # Errors
    /// [`ControlError::Full`].
    pub fn apply(
        &mut self,
        checked: &Checked,
        now_ms: u64,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        let fell = |key| self.revoked.key(key) == Some(false);
        if checked.basis.signers.iter().any(fell) || is_over(&checked.basis, now_ms) {
            return Ok(None);
        }
        let basis = &checked.basis;
        let gone = match (checked.fact, &checked.group) {
            (
                Fact::Replaced {
                    depth, old, new, ..
                },
                Some(group),
            ) => self.heirs.learn(group, (depth, old, new), basis)?,
            (
                Fact::Used {
                    came_ms,
                    subject,
                    by,
                    ..
                },
                Some(group),
            ) => self.uses.learn(group, (came_ms, subject, by), basis)?,
            (
                Fact::Key {
                    key,
                    keeps_issued,
                    by,
                },
                _,
            ) => (self.revoked).learn(by, Target::Key(key), keeps_issued, basis)?,
            (Fact::Serial { issuer, serial, by }, _) => {
                (self.revoked).learn(by, Target::Serial { issuer, serial }, false, basis)?
            }
            // Neither is made without what it rests on.
            (Fact::Replaced { .. } | Fact::Used { .. }, None) => None,
        };
        let Some(mut gone) = gone else {
            return Ok(None);
        };
        if let Fact::Key {
            key,
            keeps_issued: false,
            ..
        } = checked.fact
        {
            let rests = |basis: &Basis| basis.signers.contains(&key);
            gone.extend(self.revoked.drop_signed(&key));
            gone.extend(self.heirs.drop_where(rests));
            gone.extend(self.uses.drop_where(rests));
        }
        let unseats = checked.fact.is_revocation()
            || gone.iter().any(|it| matches!(it, Fact::Used { .. }))
            || matches!(checked.fact, Fact::Replaced { old, .. } if self.heirs.of(&old) == Some(Heir::Contested));
        self.unseated += u64::from(unseats);
        Ok(Some(gone))
    }

    /// Forgets the facts that are over at this time, in Unix milliseconds, and says which.
    pub fn forget(&mut self, now_ms: u64) -> Vec<Fact> {
        let mut gone = self.heirs.drop_where(|basis| is_over(basis, now_ms));
        gone.extend(self.uses.drop_where(|basis| is_over(basis, now_ms)));
        gone
    }

    /// Checks and takes a control message; says whether it changed anything.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn learn(&mut self, control: &Control, now_ms: u64) -> Result<bool, ControlError> {
        let mut news = false;
        for checked in self.check(control)? {
            news |= self.apply(&checked, now_ms)?.is_some();
        }
        Ok(news)
    }

    /// Grows whenever somebody who was admitted may have to go who is not named in
    /// [`Membership::barred`].
    #[must_use]
    pub fn unseated(&self) -> u64 {
        self.unseated
    }

    /// Whether a key may be talked with at all, whatever it shows. [T-CTL-4]
    ///
    /// # Errors
    /// The refusal to give it.
    pub fn check_key(&self, key: &NodeId) -> Result<(), Refusal> {
        let revoked = |why| Err(Refusal::new(RefusalCode::Revoked, why));
        if self.revoked.key(key).is_some() {
            return revoked(format!(
                "key {key} was revoked: it needs a new key and a new grant"
            ));
        }
        if let Some(heir) = self.heirs.of(key) {
            return revoked(match heir {
                Heir::By(new) => format!("key {key} was replaced by {new}"),
                Heir::Contested => format!(
                    "key {key} was replaced by two others at once, so none of them counts: the operator must grant a new one"
                ),
            });
        }
        match &self.allowed {
            Some(allowed) if !allowed.contains(key) => Err(Refusal::new(
                RefusalCode::UnknownKey,
                format!("key {key} is not on this node's list of allowed keys"),
            )),
            _ => Ok(()),
        }
    }

    /// Verifies a grant: signatures, rights, that nothing it rests on was taken back, and the time.
    /// Whether the subject's key counts says [`Membership::check_key`]. [T-GRA-4], [T-CTL-4]
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify_grant(
        &self,
        sealed: &Signed<Grant>,
        now_ms: u64,
    ) -> Result<Verified<Grant>, GrantError> {
        let chain = Chain::verify(sealed, &self.mesh)?;
        self.check_time(chain.leaf(), now_ms)?;
        self.check_chain(&chain)?;
        Ok(chain.into_leaf())
    }

    fn check_time(&self, grant: &Grant, now_ms: u64) -> Result<(), GrantError> {
        let serial = grant.serial;
        if now_ms >= grant.expires_ms {
            let ago_s = (now_ms - grant.expires_ms) / 1000;
            return Err(GrantError::Expired { serial, ago_s });
        }
        if now_ms.saturating_add(GRANT_SKEW_MS) < grant.not_before_ms {
            let in_s = (grant.not_before_ms - now_ms) / 1000;
            return Err(GrantError::NotYet { serial, in_s });
        }
        Ok(())
    }

    fn check_chain(&self, chain: &Chain) -> Result<(), GrantError> {
        self.check_grants(chain.grants())?;
        if let Some((old, _)) =
            (chain.transfers()).find(|(old, _)| self.heirs.of(old) == Some(Heir::Contested))
        {
            return Err(GrantError::Revoked(format!(
                "key {old} passed its grant on to two keys, so that it counts for neither: ask the operator for a new grant"
            )));
        }
        let Some((grant, invited)) = chain.invited() else {
            return Ok(());
        };
        let invite = &invited.invite;
        self.check_invite(invite)?;
        self.check_grants(&invited.rests_on)?;
        let group = invite_group(invite, &invited.rests_on);
        if self.uses.is_beyond(&group, grant) {
            return Err(GrantError::Revoked(format!(
                "the invite (serial {}) had let in {} others before: ask the operator for another",
                invite.serial, invite.uses
            )));
        }
        Ok(())
    }

    /// What was revoked so that this grant counts no more, if that is why it does not.
    #[must_use]
    pub fn grounds_against(&self, sealed: &Signed<Grant>) -> Option<Fact> {
        let chain = Chain::verify(sealed, &self.mesh).ok()?;
        let mut all = chain.grants().to_vec();
        let invite = chain.invited().map(|(_, invited)| invited);
        all.extend(
            invite
                .into_iter()
                .flat_map(|it| it.rests_on.iter().cloned()),
        );
        let invited = invite.map(|it| (it.invite.signer(), it.invite.serial));
        (all.iter().map(|grant| (grant.signer(), grant.serial)))
            .chain(invited)
            .find_map(|(signer, serial)| self.revoked.grounds(signer, serial))
    }

    /// Whether any of these was revoked by its number, or its issuer's key with all that it issued.
    fn check_grants(&self, grants: &[Verified<Grant>]) -> Result<(), GrantError> {
        for grant in grants {
            let (signer, serial) = (grant.signer(), grant.serial);
            if self.revoked.has_serial(signer, serial) {
                return Err(GrantError::Revoked(format!(
                    "the grant (serial {serial}) was revoked: ask the operator"
                )));
            }
            self.check_issuer(&signer)?;
        }
        Ok(())
    }

    fn check_issuer(&self, signer: &NodeId) -> Result<(), GrantError> {
        if self.revoked.key(signer) == Some(false) {
            return Err(GrantError::Revoked(format!(
                "key {signer}, on which the grant rests, was revoked: ask the operator"
            )));
        }
        Ok(())
    }

    /// Whether an invite can still be used, by its signer and its number; not whether it is over.
    ///
    /// # Errors
    /// That it was revoked.
    pub fn check_invite(&self, invite: &Verified<Invite>) -> Result<(), GrantError> {
        let (signer, serial) = (invite.signer(), invite.serial);
        if self.revoked.has_serial(signer, serial) {
            return Err(GrantError::Revoked(format!(
                "the invite (serial {serial}) was revoked: ask the operator for another"
            )));
        }
        self.check_issuer(&signer)
    }

    /// Verifies an invite that somebody wants to use now.
    ///
    /// # Errors
    /// What is wrong with it, or that its uses are spent.
    pub fn verify_invite(
        &self,
        sealed: &Signed<Invite>,
        subject: &NodeId,
        now_ms: u64,
    ) -> Result<Verified<Invite>, GrantError> {
        let (invite, rests_on) = sealed.verify_invite(&self.mesh)?;
        self.check_invite(&invite)?;
        self.check_grants(&rests_on)?;
        let serial = invite.serial;
        if now_ms >= invite.expires_ms {
            let ago_s = (now_ms - invite.expires_ms) / 1000;
            return Err(GrantError::Expired { serial, ago_s });
        }
        if now_ms.saturating_add(GRANT_SKEW_MS) < invite.not_before_ms {
            let in_s = (invite.not_before_ms - now_ms) / 1000;
            return Err(GrantError::NotYet { serial, in_s });
        }
        let group = invite_group(&invite, &rests_on);
        if self.uses.is_spent(&group, subject) {
            let uses = invite.uses;
            return Err(GrantError::Spent { serial, uses });
        }
        Ok(invite)
    }
}

/// Whether nothing that stands on it can count any more, also where a clock is behind.
fn is_over(basis: &Basis, now_ms: u64) -> bool {
    now_ms >= basis.ends_ms.saturating_add(GRANT_SKEW_MS)
}

#[cfg(test)]
mod tests;
