//! Keys and serials that were taken back. [T-CTL-3]

use super::fact::Fact;
use super::shelf::Basis;
use super::{ControlError, MAX_REVOKED, MAX_REVOKED_BY_ONE, MAX_REVOKED_IN_REGIONS};
use crate::control::Target;
use crate::grant::Mesh;
use crate::id::NodeId;
use std::collections::{BTreeMap, HashMap};

/// What was revoked, by whom, and whether what rests on it goes on.
#[derive(Clone, Debug)]
pub(super) struct Revoked {
    first: NodeId,
    recovery: Option<NodeId>,
    by_root: BTreeMap<NodeId, BTreeMap<Target, bool>>,
    /// What operators of regions revoked: serials of their own.
    regional: BTreeMap<(NodeId, u64), Basis>,
    /// How many of these, by who answers for it.
    of_owner: HashMap<NodeId, usize>,
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

fn full<T>(what: &'static str, limit: usize) -> Result<T, ControlError> {
    Err(ControlError::Full { what, limit })
}

impl Revoked {
    pub(super) fn new(mesh: &Mesh) -> Self {
        Self {
            first: mesh.id.operator(),
            recovery: mesh.recovery,
            by_root: BTreeMap::new(),
            regional: BTreeMap::new(),
            of_owner: HashMap::new(),
        }
    }

    /// See [`super::Membership::apply`]. Of two revocations of one key by one signer the stricter
    /// counts, whichever came first. Nobody's take the room of another's: not a thief's that of the
    /// recovery key.
    pub(super) fn learn(
        &mut self,
        by: NodeId,
        target: Target,
        keeps: bool,
        basis: &Basis,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        if by != self.first && Some(by) != self.recovery {
            return self.learn_regional(by, target, basis);
        }
        let own = self.by_root.entry(by).or_default();
        match own.get(&target).copied() {
            Some(known) if !known || keeps => return Ok(None),
            Some(_) => {
                own.insert(target, keeps);
                return Ok(Some(vec![fact(by, target, true)]));
            }
            None if own.len() >= MAX_REVOKED => {
                return full("the revocations of the operator's key", MAX_REVOKED);
            }
            None => {}
        }
        own.insert(target, keeps);
        Ok(Some(Vec::new()))
    }

    fn learn_regional(
        &mut self,
        by: NodeId,
        target: Target,
        basis: &Basis,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        let (Target::Serial { serial, .. }, Some(owner)) = (target, basis.owner) else {
            return Ok(None);
        };
        if self.regional.contains_key(&(by, serial)) {
            return Ok(None);
        }
        let own = self.of_owner.get(&owner).copied().unwrap_or(0);
        if own >= MAX_REVOKED_BY_ONE {
            let what = "the revocations of an operator of a region";
            return full(what, MAX_REVOKED_BY_ONE);
        }
        if self.regional.len() >= MAX_REVOKED_IN_REGIONS {
            let what = "the revocations of operators of regions";
            return full(what, MAX_REVOKED_IN_REGIONS);
        }
        self.of_owner.insert(owner, own + 1);
        self.regional.insert((by, serial), basis.clone());
        Ok(Some(Vec::new()))
    }

    /// Takes away all that rests on the word of a key.
    pub(super) fn drop_signed(&mut self, signer: &NodeId) -> Vec<Fact> {
        let by_root = self.by_root.remove(signer).unwrap_or_default();
        let mut gone: Vec<Fact> = (by_root.into_iter())
            .map(|(target, keeps)| fact(*signer, target, keeps))
            .collect();
        let fallen = (self.regional).extract_if(.., |_, basis| basis.signers.contains(signer));
        for ((by, serial), basis) in fallen {
            gone.push(fact(by, Target::Serial { issuer: by, serial }, false));
            let count = basis.owner.and_then(|owner| self.of_owner.get_mut(&owner));
            if let Some(count) = count {
                *count -= 1;
            }
        }
        self.of_owner.retain(|_, count| *count > 0);
        gone
    }

    /// Whether a key is revoked, and if so, whether all who did so let what rests on it go on.
    pub(super) fn key(&self, key: &NodeId) -> Option<bool> {
        let target = Target::Key(*key);
        (self
            .by_root
            .values()
            .filter_map(|own| own.get(&target))
            .copied())
        .reduce(|a, b| a && b)
    }

    pub(super) fn has_serial(&self, issuer: NodeId, serial: u64) -> bool {
        let target = Target::Serial { issuer, serial };
        (self.by_root.values()).any(|own| own.contains_key(&target))
            || self.regional.contains_key(&(issuer, serial))
    }

    /// Why nothing counts that this key gave this number.
    pub(super) fn grounds(&self, issuer: NodeId, serial: u64) -> Option<Fact> {
        let key = Target::Key(issuer);
        let number = Target::Serial { issuer, serial };
        let by_root = (self.by_root.iter()).find_map(|(by, own)| {
            if own.get(&key) == Some(&false) {
                return Some(fact(*by, key, false));
            }
            own.contains_key(&number).then(|| fact(*by, number, false))
        });
        let own = (self.regional).contains_key(&(issuer, serial));
        by_root.or_else(|| own.then(|| fact(issuer, number, false)))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = NodeId> {
        let all = self.by_root.values().flat_map(BTreeMap::keys);
        all.filter_map(|target| match target {
            Target::Key(key) => Some(*key),
            Target::Serial { .. } => None,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.by_root.values().map(BTreeMap::len).sum::<usize>() + self.regional.len()
    }
}
