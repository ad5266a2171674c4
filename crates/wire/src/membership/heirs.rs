//! Keys that were replaced, and by which. [T-CTL-5]

use super::fact::Fact;
use super::shelf::{Bounds, Group, Put, Shelf};
use super::{ControlError, MAX_REPLACED, MAX_REPLACED_BY_ONE};
use crate::id::{Digest, NodeId};
use std::collections::BTreeMap;

/// How many passed on before, the old key and the new one. The first ones of a grant stay where it was
/// passed on too often: that one of its keys was passed on twice cannot be hidden behind what was
/// made of it later.
type Passed = (u8, NodeId, NodeId);

/// What replaced a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heir {
    /// This key.
    By(NodeId),
    /// Several keys, of which a thief may have named one: none counts.
    Contested,
}

/// Which key took over which.
#[derive(Clone, Debug)]
pub(super) struct Heirs {
    shelf: Shelf<Passed>,
    /// The new keys of each old one, and how many grants say so.
    by_old: BTreeMap<NodeId, BTreeMap<NodeId, usize>>,
}

fn fact(grant: Digest, (depth, old, new): Passed) -> Fact {
    Fact::Replaced {
        grant,
        depth,
        old,
        new,
    }
}

impl Heirs {
    pub(super) fn new() -> Self {
        Self {
            shelf: Shelf::new(Bounds {
                all: MAX_REPLACED,
                of_one: MAX_REPLACED_BY_ONE,
            }),
            by_old: BTreeMap::new(),
        }
    }

    /// See [`super::Membership::apply`].
    pub(super) fn learn(
        &mut self,
        group: &Group,
        passed: Passed,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        let gone = match self.shelf.put(group, passed) {
            Put::Idle => return Ok(None),
            Put::Full => {
                let what = "replaced keys";
                let limit = MAX_REPLACED;
                return Err(ControlError::Full { what, limit });
            }
            Put::Kept(gone) => gone,
        };
        let (_, old, new) = passed;
        *self.by_old.entry(old).or_default().entry(new).or_default() += 1;
        Ok(Some(gone.map(|gone| self.gone(gone)).into_iter().collect()))
    }

    /// Takes away what is about groups that are over by some rule.
    pub(super) fn drop_groups(&mut self, is_over: impl Fn(&Group) -> bool) -> Vec<Fact> {
        let gone = self.shelf.drop_groups(is_over);
        gone.into_iter().map(|gone| self.gone(gone)).collect()
    }

    /// Takes away all that rests on the word of a key.
    pub(super) fn drop_signed(&mut self, by: &NodeId) -> Vec<Fact> {
        self.drop_groups(|group| group.basis.signers.contains(by))
    }

    fn gone(&mut self, (grant, passed): (Digest, Passed)) -> Fact {
        let (_, old, new) = passed;
        if let Some(heirs) = self.by_old.get_mut(&old) {
            if let Some(count) = heirs.get_mut(&new) {
                *count -= 1;
                if *count == 0 {
                    heirs.remove(&new);
                }
            }
            if heirs.is_empty() {
                self.by_old.remove(&old);
            }
        }
        fact(grant, passed)
    }

    /// What replaced this key, if anything did.
    pub(super) fn of(&self, old: &NodeId) -> Option<Heir> {
        let heirs = self.by_old.get(old)?;
        let (first, _) = heirs.first_key_value()?;
        Some(match heirs.len() {
            1 => Heir::By(*first),
            _ => Heir::Contested,
        })
    }

    pub(super) fn replaced(&self) -> impl Iterator<Item = NodeId> {
        self.by_old.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.shelf.len()
    }
}
