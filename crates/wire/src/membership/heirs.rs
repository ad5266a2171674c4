//! Keys that were replaced, and by which. [T-CTL-5]

use super::fact::Fact;
use super::shelf::{Basis, Bounds, Group, Put, Shelf};
use super::{ControlError, MAX_REPLACED, MAX_REPLACED_BY_ONE};
use crate::id::{Digest, NodeId};
use std::collections::{BTreeMap, HashMap};

/// How many passed on before, the old key and the new one. The first ones stay where a grant was
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
    /// On whose word.
    bases: HashMap<(Digest, Passed), (Group, Basis)>,
    /// The new keys of each old one, and how many facts say so.
    by_old: BTreeMap<NodeId, BTreeMap<NodeId, usize>>,
}

impl Heirs {
    pub(super) fn new() -> Self {
        Self {
            shelf: Shelf::new(Bounds {
                all: MAX_REPLACED,
                of_one: MAX_REPLACED_BY_ONE,
            }),
            bases: HashMap::new(),
            by_old: BTreeMap::new(),
        }
    }

    /// See [`super::Membership::apply`].
    pub(super) fn learn(
        &mut self,
        group: &Group,
        passed: Passed,
        basis: &Basis,
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
        (self.bases).insert((group.name, passed), (*group, basis.clone()));
        Ok(Some(gone.map(|gone| self.gone(gone)).into_iter().collect()))
    }

    /// Takes away what stands on no good basis any more.
    pub(super) fn drop_where(&mut self, is_over: impl Fn(&Basis) -> bool) -> Vec<Fact> {
        let over: Vec<_> = (self.bases.iter())
            .filter(|(_, (_, basis))| is_over(basis))
            .map(|((_, passed), (group, _))| (*group, *passed))
            .collect();
        (over.into_iter())
            .map(|(group, passed)| {
                self.shelf.remove(&group, &passed);
                self.gone((group, passed))
            })
            .collect()
    }

    fn gone(&mut self, (group, passed): (Group, Passed)) -> Fact {
        self.bases.remove(&(group.name, passed));
        let (depth, old, new) = passed;
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
        Fact::Replaced {
            first: NodeId(group.name.0),
            depth,
            old,
            new,
        }
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
