//! Keys that were replaced, and by which. [T-CTL-5]

use super::{ControlError, MAX_REPLACED};
use crate::id::NodeId;
use std::collections::BTreeMap;

/// Which key took over which.
#[derive(Clone, Debug, Default)]
pub(super) struct Heirs {
    /// The new key, or nothing where two were named: who stole the old one could name another, so
    /// none counts.
    by_old: BTreeMap<NodeId, Option<NodeId>>,
}

impl Heirs {
    /// Takes a replacement; says whether it is news.
    pub(super) fn learn(&mut self, old: NodeId, new: NodeId) -> Result<bool, ControlError> {
        match self.by_old.get(&old) {
            None if self.by_old.len() >= MAX_REPLACED => {
                return Err(ControlError::Full {
                    what: "replaced keys",
                    limit: MAX_REPLACED,
                });
            }
            None => drop(self.by_old.insert(old, Some(new))),
            Some(Some(known)) if *known != new => drop(self.by_old.insert(old, None)),
            Some(_) => return Ok(false),
        }
        Ok(true)
    }

    /// What replaced this key: nothing, one key, or two at once.
    #[allow(clippy::option_option, reason = "replaced by nobody that counts")]
    pub(super) fn of(&self, old: &NodeId) -> Option<Option<NodeId>> {
        self.by_old.get(old).copied()
    }

    pub(super) fn replaced(&self) -> impl Iterator<Item = NodeId> {
        self.by_old.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_old.len()
    }
}
