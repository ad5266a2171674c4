//! Keys and serials that were taken back. [T-CTL-3]

use super::fact::Fact;
use super::{ControlError, MAX_REVOKED, MAX_REVOKED_BY_ONE, MAX_REVOKED_IN_REGIONS};
use crate::control::Target;
use crate::grant::Mesh;
use crate::id::NodeId;
use std::collections::BTreeMap;

/// What was revoked, by whom, and whether what rests on it goes on.
#[derive(Clone, Debug)]
pub(super) struct Revoked {
    first: NodeId,
    recovery: Option<NodeId>,
    by: BTreeMap<NodeId, BTreeMap<Target, bool>>,
    /// How much of it operators of regions revoked.
    regional: usize,
}

fn fact(by: NodeId, target: Target, keeps_issued: bool) -> Fact {
    match target {
        Target::Key(key) => Fact::Key {
            key,
            keeps_issued,
            by,
        },
        Target::Serial { issuer, serial } => Fact::Serial { issuer, serial, by },
    }
}

impl Revoked {
    pub(super) fn new(mesh: &Mesh) -> Self {
        Self {
            first: mesh.id.operator(),
            recovery: mesh.recovery,
            by: BTreeMap::new(),
            regional: 0,
        }
    }

    /// See [`super::Membership::apply`]. Of two revocations of one key by one signer the stricter
    /// counts, whichever came first.
    pub(super) fn learn(
        &mut self,
        by: NodeId,
        target: Target,
        keeps: bool,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        if by == self.first && self.first_fell() {
            return Ok(None);
        }
        match self.get(&by, &target) {
            Some(known) if !known || keeps => return Ok(None),
            Some(_) => {
                self.by.entry(by).or_default().insert(target, keeps);
                return Ok(Some(vec![fact(by, target, true)]));
            }
            None => self.has_room(&by)?,
        }
        self.regional += usize::from(!self.is_root(&by));
        self.by.entry(by).or_default().insert(target, keeps);
        Ok(Some(Vec::new()))
    }

    /// Nobody's revocations take the room of another's: not a thief's that of the recovery key.
    fn has_room(&self, by: &NodeId) -> Result<(), ControlError> {
        let own = self.by.get(by).map_or(0, BTreeMap::len);
        let (what, limit, held) = if self.is_root(by) {
            ("the revocations of the operator's key", MAX_REVOKED, own)
        } else if own >= MAX_REVOKED_BY_ONE {
            let what = "the revocations of an operator of a region";
            (what, MAX_REVOKED_BY_ONE, own)
        } else {
            let what = "the revocations of operators of regions";
            (what, MAX_REVOKED_IN_REGIONS, self.regional)
        };
        if held >= limit {
            return Err(ControlError::Full { what, limit });
        }
        Ok(())
    }

    fn is_root(&self, key: &NodeId) -> bool {
        *key == self.first || Some(*key) == self.recovery
    }

    fn get(&self, by: &NodeId, target: &Target) -> Option<bool> {
        self.by.get(by)?.get(target).copied()
    }

    fn by_roots(&self) -> impl Iterator<Item = &BTreeMap<Target, bool>> {
        let roots = [Some(self.first), self.recovery];
        roots
            .into_iter()
            .flatten()
            .filter_map(|by| self.by.get(&by))
    }

    /// Whether the operator's first key was taken back with all that rests on it, its own
    /// revocations among that.
    pub(super) fn first_fell(&self) -> bool {
        let recovery = self.recovery.as_ref();
        recovery.and_then(|by| self.get(by, &Target::Key(self.first))) == Some(false)
    }

    /// Takes away what the operator's first key revoked.
    pub(super) fn drop_first(&mut self) -> Vec<Fact> {
        let gone = self.by.remove(&self.first).unwrap_or_default();
        let gone = gone.into_iter();
        gone.map(|(target, keeps)| fact(self.first, target, keeps))
            .collect()
    }

    /// Whether a key is revoked, and if so, whether all who did so let what rests on it go on.
    pub(super) fn key(&self, key: &NodeId) -> Option<bool> {
        let target = Target::Key(*key);
        (self.by_roots().filter_map(|own| own.get(&target)).copied()).reduce(|a, b| a && b)
    }

    pub(super) fn has_serial(&self, issuer: NodeId, serial: u64) -> bool {
        let target = Target::Serial { issuer, serial };
        let by_issuer = self.by.get(&issuer);
        (self.by_roots().chain(by_issuer)).any(|own| own.contains_key(&target))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = NodeId> {
        let all = self.by_roots().flat_map(BTreeMap::keys);
        all.filter_map(|target| match target {
            Target::Key(key) => Some(*key),
            Target::Serial { .. } => None,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.by.values().map(BTreeMap::len).sum()
    }
}
