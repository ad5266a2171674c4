//! Whom invites have let in. [T-INV-3]
//!
//! Orchestrators let workers in without asking each other, so that two of them may give the last
//! place at once. All of them order those who came alike, by when and then by key, and hold the
//! first ones to be in.

use super::fact::Fact;
use super::shelf::{Bounds, Group, Put, Shelf};
use super::{ControlError, MAX_INVITED, MAX_INVITED_BY_ONE};
use crate::grant::Grant;
use crate::id::{Digest, NodeId};
use std::collections::HashMap;

/// When somebody came, and who.
type Came = (u64, NodeId);

/// Who came by which invite.
#[derive(Clone, Debug)]
pub(super) struct Uses {
    shelf: Shelf<Came>,
    /// When each of them came first, by invite.
    since: HashMap<(Digest, NodeId), u64>,
}

fn fact(invite: Digest, (came_ms, subject): Came) -> Fact {
    Fact::Used {
        invite,
        came_ms,
        subject,
    }
}

impl Uses {
    pub(super) fn new() -> Self {
        Self {
            shelf: Shelf::new(Bounds {
                all: MAX_INVITED,
                of_one: MAX_INVITED_BY_ONE,
            }),
            since: HashMap::new(),
        }
    }

    /// See [`super::Membership::apply`].
    pub(super) fn learn(
        &mut self,
        group: &Group,
        came: Came,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        let (invite, subject) = (group.digest, came.1);
        let before = self.since.get(&(invite, subject)).copied();
        if before.is_some_and(|since| since <= came.0) {
            return Ok(None);
        }
        let mut gone = Vec::new();
        if let Some(since) = before {
            self.shelf.remove(group, &(since, subject));
            gone.push(self.gone((invite, (since, subject))));
        }
        match self.shelf.put(group, came) {
            Put::Kept(last) => gone.extend(last.map(|last| self.gone(last))),
            // Who came after the last place was given is not in, and need not be remembered.
            Put::Idle => return Ok(None),
            Put::Full => {
                let what = "workers that came by invites";
                let limit = MAX_INVITED;
                return Err(ControlError::Full { what, limit });
            }
        }
        self.since.insert((invite, subject), came.0);
        Ok(Some(gone))
    }

    /// Takes away what is about groups that are over by some rule.
    pub(super) fn drop_groups(&mut self, is_over: impl Fn(&Group) -> bool) -> Vec<Fact> {
        let gone = self.shelf.drop_groups(is_over);
        gone.into_iter().map(|gone| self.gone(gone)).collect()
    }

    fn gone(&mut self, (invite, came): (Digest, Came)) -> Fact {
        self.since.remove(&(invite, came.1));
        fact(invite, came)
    }

    /// Who came last of those who have all the places; nobody while some are free.
    fn last(&self, group: &Group) -> Option<Came> {
        let places = self.shelf.of(group)?;
        (places.len() >= group.most).then(|| places.last().copied())?
    }

    fn has(&self, group: &Group, subject: &NodeId) -> bool {
        self.since.contains_key(&(group.digest, *subject))
    }

    /// Whether all places were given to others before this one came.
    pub(super) fn is_beyond(&self, group: &Group, grant: &Grant) -> bool {
        let came = (grant.not_before_ms, grant.subject);
        !self.has(group, &grant.subject) && self.last(group).is_some_and(|last| came > last)
    }

    /// Whether there is no place left for this key.
    pub(super) fn is_spent(&self, group: &Group, subject: &NodeId) -> bool {
        !self.has(group, subject) && self.last(group).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.shelf.len()
    }
}
