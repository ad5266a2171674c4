//! Who belongs to a mesh now: its operator's keys, and all that was taken back, replaced or used up.
//! (PRE-6) [T-CTL-4] to [T-CTL-6]
//!
//! A value that only grows, so that all nodes which have heard the same control messages judge
//! alike, in whatever order they heard them. Nothing here expires.

mod heirs;
mod invites;

use crate::codec;
use crate::control::{Control, Revocation, Target};
use crate::envelope::{Signed, Verified};
use crate::grant::chain::Chain;
use crate::grant::{GRANT_SKEW_MS, Grant, GrantError, Mesh};
use crate::id::{Digest, NodeId};
use crate::invite::Invite;
use crate::link::{Refusal, RefusalCode};
use heirs::Heirs;
use invites::Uses;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// Most keys and serials that are revoked, together. [T-CTL-6]
pub const MAX_REVOKED: usize = 16_384;
/// Most serials that one operator of a region revokes. [T-CTL-6]
pub const MAX_REVOKED_BY_ONE: usize = 1_024;
/// Most serials that operators of regions revoke together: what they do leaves the operator of the
/// mesh all of [`MAX_REVOKED`]. [T-CTL-6]
pub const MAX_REVOKED_IN_REGIONS: usize = 8_192;
/// Most keys that were replaced. [T-CTL-6]
pub const MAX_REPLACED: usize = 16_384;
/// Most workers that are remembered as let in by invites. [T-CTL-6]
pub const MAX_INVITED: usize = 65_536;

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
}

/// What a control message says, once it was checked who signed it. Messages that say the same are
/// one. [T-CTL-5]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// A key is revoked.
    Key {
        /// Which.
        key: NodeId,
        /// Whether what rests on it goes on.
        keeps_issued: bool,
    },
    /// What an operator gave this number is revoked.
    Serial {
        /// The operator.
        issuer: NodeId,
        /// The number.
        serial: u64,
    },
    /// A key was replaced.
    Replaced {
        /// The key that counts no more.
        old: NodeId,
        /// The one that took over.
        new: NodeId,
    },
    /// A worker came by an invite.
    Used {
        /// Who issued the invite.
        issuer: NodeId,
        /// Its number.
        serial: u64,
        /// Unix milliseconds at which the worker came.
        came_ms: u64,
        /// The worker.
        subject: NodeId,
    },
}

impl Fact {
    /// By which it is known among facts. [T-CTL-7]
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&codec::encode(self))
    }
}

/// A fact, and the control message that proves it; for the mesh that checked it.
#[derive(Clone, Debug)]
pub struct Checked {
    fact: Fact,
    control: Control,
    /// Who signed it.
    by: NodeId,
    /// Places of the invite, where one was used.
    uses: u32,
}

impl Checked {
    /// What it says.
    #[must_use]
    pub fn fact(&self) -> &Fact {
        &self.fact
    }
    /// The message to pass on.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    fn grant(grant: &Verified<Grant>, chain: &Chain) -> Option<Self> {
        let by = grant.signer();
        let (fact, uses) = match chain.invited() {
            Some((came, invited)) if came.bytes() == grant.bytes() => {
                let invite = &invited.invite;
                let fact = Fact::Used {
                    issuer: invite.signer(),
                    serial: invite.serial,
                    came_ms: grant.not_before_ms,
                    subject: grant.subject,
                };
                (fact, invite.uses)
            }
            _ if grant.consent.is_some() => {
                let (old, new) = (by, grant.subject);
                (Fact::Replaced { old, new }, 0)
            }
            _ => return None,
        };
        Some(Self {
            fact,
            control: Control::Grant(grant.bytes().to_vec()),
            by,
            uses,
        })
    }
}

/// Who belongs to a mesh.
#[derive(Clone, Debug)]
pub struct Membership {
    mesh: Mesh,
    /// Keys that are revoked, and whether what rests on them goes on.
    keys: BTreeMap<NodeId, bool>,
    /// Serials that are revoked, by who gave them.
    serials: BTreeSet<(NodeId, u64)>,
    /// How many of them operators of regions revoked.
    regional: usize,
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
            keys: BTreeMap::new(),
            serials: BTreeSet::new(),
            regional: 0,
            heirs: Heirs::default(),
            uses: Uses::default(),
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
        self.keys.keys().copied().chain(self.heirs.replaced())
    }

    /// How many revocations, replaced keys and used invites are known.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [
            self.keys.len() + self.serials.len(),
            self.heirs.len(),
            self.uses.len(),
        ]
    }

    /// Checks who signed a control message. That is most of what it costs to take it, and needs
    /// nothing but the mesh. A grant that rests on others says what they say, too.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn check(&self, control: &Control) -> Result<Vec<Checked>, ControlError> {
        match control {
            Control::Revocation(sealed) => {
                let sealed = Signed::<Revocation>::from_bytes(sealed.as_slice());
                let revocation = sealed.verify_revocation(&self.mesh)?;
                let keeps_issued = revocation.keeps_issued;
                Ok(vec![Checked {
                    fact: match revocation.target {
                        Target::Key(key) => Fact::Key { key, keeps_issued },
                        Target::Serial { issuer, serial } => Fact::Serial { issuer, serial },
                    },
                    control: control.clone(),
                    by: revocation.signer(),
                    uses: 0,
                }])
            }
            Control::Grant(sealed) => {
                let sealed = Signed::<Grant>::from_bytes(sealed.as_slice());
                let chain = Chain::verify(&sealed, &self.mesh)?;
                let facts: Vec<_> = (chain.grants().iter())
                    .filter_map(|grant| Checked::grant(grant, &chain))
                    .collect();
                if facts.is_empty() {
                    return Err(ControlError::Plain(chain.leaf().subject));
                }
                Ok(facts)
            }
        }
    }

    /// Takes a fact. Nothing, where it changes nothing: it need neither be kept nor passed on.
    /// Otherwise the facts that no longer matter beside it. Which ones matter does not depend on the
    /// order in which they came.
    ///
    /// # Errors
    /// [`ControlError::Full`].
    pub fn apply(&mut self, checked: &Checked) -> Result<Option<Vec<Fact>>, ControlError> {
        let gone = match checked.fact {
            Fact::Key { key, keeps_issued } => self.revoke_key(key, keeps_issued)?,
            Fact::Serial { issuer, serial } => self.revoke_serial(issuer, serial, checked.by)?,
            Fact::Replaced { old, new } => self.heirs.learn(old, new)?,
            Fact::Used {
                issuer,
                serial,
                came_ms,
                subject,
            } => (self.uses).learn((issuer, serial), (came_ms, subject), checked.uses)?,
        };
        let Some(gone) = gone else {
            return Ok(None);
        };
        let unseats = matches!(checked.fact, Fact::Key { .. } | Fact::Serial { .. })
            || gone.iter().any(|it| matches!(it, Fact::Used { .. }))
            || matches!(checked.fact, Fact::Replaced { old, .. } if self.heirs.of(&old) == Some(None));
        self.unseated += u64::from(unseats);
        Ok(Some(gone))
    }

    /// Checks and takes a control message; says whether it changed anything.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn learn(&mut self, control: &Control) -> Result<bool, ControlError> {
        let mut news = false;
        for checked in self.check(control)? {
            news |= self.apply(&checked)?.is_some();
        }
        Ok(news)
    }

    /// Grows whenever somebody who was admitted may have to go who is not named in
    /// [`Membership::barred`].
    #[must_use]
    pub fn unseated(&self) -> u64 {
        self.unseated
    }

    fn has_room(&self) -> Result<(), ControlError> {
        if self.keys.len() + self.serials.len() - self.regional < MAX_REVOKED {
            return Ok(());
        }
        let (what, limit) = ("revocations", MAX_REVOKED);
        Err(ControlError::Full { what, limit })
    }

    /// Of two revocations of one key the stricter counts, whichever came first.
    fn revoke_key(&mut self, key: NodeId, keeps: bool) -> Result<Option<Vec<Fact>>, ControlError> {
        match self.keys.get(&key) {
            Some(known) if !*known || keeps => return Ok(None),
            Some(_) => {
                self.keys.insert(key, keeps);
                let keeps_issued = true;
                return Ok(Some(vec![Fact::Key { key, keeps_issued }]));
            }
            None => self.has_room()?,
        }
        self.keys.insert(key, keeps);
        Ok(Some(Vec::new()))
    }

    fn revoke_serial(
        &mut self,
        issuer: NodeId,
        serial: u64,
        by: NodeId,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        if self.serials.contains(&(issuer, serial)) {
            return Ok(None);
        }
        let own = self.serials.range((issuer, 0)..=(issuer, u64::MAX)).count();
        if self.mesh.is_root(&by) {
            self.has_room()?;
        } else if own >= MAX_REVOKED_BY_ONE {
            return Err(ControlError::Full {
                what: "the revocations of an operator of a region",
                limit: MAX_REVOKED_BY_ONE,
            });
        } else if self.regional >= MAX_REVOKED_IN_REGIONS {
            return Err(ControlError::Full {
                what: "the revocations of operators of regions",
                limit: MAX_REVOKED_IN_REGIONS,
            });
        } else {
            self.regional += 1;
        }
        self.serials.insert((issuer, serial));
        Ok(Some(Vec::new()))
    }

    /// Whether a key may be talked with at all, whatever it shows. [T-CTL-4]
    ///
    /// # Errors
    /// The refusal to give it.
    pub fn check_key(&self, key: &NodeId) -> Result<(), Refusal> {
        let revoked = |why| Err(Refusal::new(RefusalCode::Revoked, why));
        if self.keys.contains_key(key) {
            return revoked(format!(
                "key {key} was revoked: it needs a new key and a new grant"
            ));
        }
        if let Some(new) = self.heirs.of(key) {
            return revoked(match new {
                Some(new) => format!("key {key} was replaced by {new}"),
                None => format!(
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
            (chain.transfers()).find(|(old, _)| self.heirs.of(old) == Some(None))
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
        if self.uses.is_beyond(invite, grant) {
            return Err(GrantError::Revoked(format!(
                "the invite (serial {}) had let in {} others before: ask the operator for another",
                invite.serial, invite.uses
            )));
        }
        Ok(())
    }

    /// Whether any of these was revoked by its number, or its issuer's key with all that it issued.
    fn check_grants(&self, grants: &[Verified<Grant>]) -> Result<(), GrantError> {
        for grant in grants {
            let (signer, serial) = (grant.signer(), grant.serial);
            if self.serials.contains(&(signer, serial)) {
                return Err(GrantError::Revoked(format!(
                    "the grant (serial {serial}) was revoked: ask the operator"
                )));
            }
            self.check_issuer(&signer)?;
        }
        Ok(())
    }

    fn check_issuer(&self, signer: &NodeId) -> Result<(), GrantError> {
        if self.keys.get(signer) == Some(&false) {
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
        if self.serials.contains(&(signer, serial)) {
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
        if self.uses.is_spent(&invite, subject) {
            let uses = invite.uses;
            return Err(GrantError::Spent { serial, uses });
        }
        Ok(invite)
    }
}

#[cfg(test)]
mod tests;
