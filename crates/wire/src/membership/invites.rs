//! Whom invites have let in. [T-INV-3]
//!
//! Orchestrators let workers in without asking each other, so that two of them may give the last
//! place at once. All of them order those who came alike, by when and then by key, and hold the
//! first ones to be in.

use super::fact::Fact;
use super::shelf::{Basis, Bounds, Group, Put, Shelf};
use super::{ControlError, MAX_INVITED, MAX_INVITED_BY_ONE};
use crate::grant::Grant;
use crate::id::{Digest, NodeId};
use std::collections::HashMap;

/// When somebody came, and who, and who let it in.
pub(super) type Came = (u64, NodeId, NodeId);

/// How a worker came first.
#[derive(Clone, Debug)]
struct First {
    came: Came,
    group: Group,
    basis: Basis,
}

/// Who came by which invite.
#[derive(Clone, Debug)]
pub(super) struct Uses {
    shelf: Shelf<Came>,
    /// How each of them came first, by invite.
    first: HashMap<(Digest, NodeId), First>,
}

fn fact(invite: Digest, (came_ms, subject, by): Came) -> Fact {
    Fact::Used {
        invite,
        came_ms,
        subject,
        by,
    }
}

impl Uses {
    pub(super) fn new() -> Self {
        Self {
            shelf: Shelf::new(Bounds {
                all: MAX_INVITED,
                of_one: MAX_INVITED_BY_ONE,
            }),
            first: HashMap::new(),
        }
    }

    /// See [`super::Membership::apply`].
    pub(super) fn learn(
        &mut self,
        group: &Group,
        came: Came,
        basis: &Basis,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        let key = (group.name, came.1);
        let before = self.first.get(&key).map(|first| first.came);
        if before.is_some_and(|before| before <= came) {
            return Ok(None);
        }
        let mut gone = Vec::new();
        if let Some(before) = before {
            self.shelf.remove(group, &before);
            gone.push(self.gone((*group, before)));
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
        let (group, basis) = (*group, basis.clone());
        let first = First { came, group, basis };
        self.first.insert(key, first);
        Ok(Some(gone))
    }

    /// Takes away what stands on no good basis any more.
    pub(super) fn drop_where(&mut self, is_over: impl Fn(&Basis) -> bool) -> Vec<Fact> {
        let gone = (self.first).extract_if(|_, first| is_over(&first.basis));
        (gone.map(|(_, first)| first))
            .map(|first| {
                self.shelf.remove(&first.group, &first.came);
                fact(first.group.name, first.came)
            })
            .collect()
    }

    fn gone(&mut self, (group, came): (Group, Came)) -> Fact {
        self.first.remove(&(group.name, came.1));
        fact(group.name, came)
    }

    /// Who came last of those who have all the places; nobody while some are free.
    fn last(&self, group: &Group) -> Option<Came> {
        let places = self.shelf.of(group)?;
        (places.len() >= group.most).then(|| places.last().copied())?
    }

    fn has(&self, group: &Group, subject: &NodeId) -> bool {
        self.first.contains_key(&(group.name, *subject))
    }

    /// Whether all places were given to others before this one came.
    pub(super) fn is_beyond(&self, group: &Group, grant: &Grant) -> bool {
        let came = (grant.not_before_ms, grant.subject);
        let last = self
            .last(group)
            .map(|(came_ms, subject, _)| (came_ms, subject));
        !self.has(group, &grant.subject) && last.is_some_and(|last| came > last)
    }

    /// Whether there is no place left for this key.
    pub(super) fn is_spent(&self, group: &Group, subject: &NodeId) -> bool {
        !self.has(group, subject) && self.last(group).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.shelf.len()
    }
}
