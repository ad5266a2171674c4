//! Whom invites have let in. [T-INV-3]
//!
//! Orchestrators let workers in without asking each other, so that two of them may give the last
//! place at once. All of them order those who came alike, by when and then by key, and hold the
//! first ones to be in.

use super::{ControlError, Fact, MAX_INVITED};
use crate::envelope::Verified;
use crate::grant::Grant;
use crate::id::NodeId;
use crate::invite::Invite;
use std::collections::{BTreeMap, BTreeSet};

/// An invite: who issued it, and its number.
type InviteId = (NodeId, u64);
/// When somebody came, and who.
type Came = (u64, NodeId);

/// The places of one invite.
#[derive(Clone, Debug, Default)]
struct Places {
    /// Those who are in, at most as many as the invite has uses.
    order: BTreeSet<Came>,
    /// When each of them came first.
    since: BTreeMap<NodeId, u64>,
}

/// Who came by which invite.
#[derive(Clone, Debug, Default)]
pub(super) struct Uses {
    by_invite: BTreeMap<InviteId, Places>,
    len: usize,
}

fn id(invite: &Verified<Invite>) -> InviteId {
    (invite.signer(), invite.serial)
}

impl Uses {
    /// See [`super::Membership::apply`].
    pub(super) fn learn(
        &mut self,
        invite: InviteId,
        came: Came,
        uses: u32,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        let known = self.by_invite.get(&invite);
        let before = known.and_then(|places| places.since.get(&came.1)).copied();
        if before.is_some_and(|since| since <= came.0) {
            return Ok(None);
        }
        // Who came after the last place was given is not in, and need not be remembered.
        let last = (known.filter(|it| it.order.len() >= uses as usize && before.is_none()))
            .and_then(|places| places.order.last().copied());
        if last.is_some_and(|last| came > last) {
            return Ok(None);
        }
        let gone = before.map(|since| (since, came.1)).or(last);
        if gone.is_none() {
            if self.len >= MAX_INVITED {
                return Err(ControlError::Full {
                    what: "workers that came by invites",
                    limit: MAX_INVITED,
                });
            }
            self.len += 1;
        }
        let places = self.by_invite.entry(invite).or_default();
        if let Some(gone) = gone {
            places.order.remove(&gone);
            places.since.remove(&gone.1);
        }
        places.order.insert(came);
        places.since.insert(came.1, came.0);
        let (issuer, serial) = invite;
        let fact = |(came_ms, subject)| Fact::Used {
            issuer,
            serial,
            came_ms,
            subject,
        };
        Ok(Some(gone.into_iter().map(fact).collect()))
    }

    /// Whether all places were given to others before this one came.
    pub(super) fn is_beyond(&self, invite: &Verified<Invite>, grant: &Verified<Grant>) -> bool {
        let Some(places) = self.by_invite.get(&id(invite)) else {
            return false;
        };
        let came = (grant.not_before_ms, grant.subject);
        places.order.len() >= invite.uses as usize
            && !places.since.contains_key(&grant.subject)
            && places.order.last().is_some_and(|last| came > *last)
    }

    /// Whether there is no place left for this key.
    pub(super) fn is_spent(&self, invite: &Verified<Invite>, subject: &NodeId) -> bool {
        (self.by_invite.get(&id(invite))).is_some_and(|places| {
            places.order.len() >= invite.uses as usize && !places.since.contains_key(subject)
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}
