//! Keys that were replaced, and by which. [T-CTL-5]

use super::{ControlError, Fact, MAX_REPLACED};
use crate::id::NodeId;
use std::collections::BTreeMap;

/// Which key took over which.
#[derive(Clone, Debug, Default)]
pub(super) struct Heirs {
    /// The new keys. Where there are two, who stole the old one may have named one of them, so that
    /// none counts; of more than two the smallest are kept, so that all nodes keep the same.
    by_old: BTreeMap<NodeId, (NodeId, Option<NodeId>)>,
}

impl Heirs {
    /// See [`super::Membership::apply`].
    pub(super) fn learn(
        &mut self,
        old: NodeId,
        new: NodeId,
    ) -> Result<Option<Vec<Fact>>, ControlError> {
        let Some((first, second)) = self.by_old.get_mut(&old) else {
            if self.by_old.len() >= MAX_REPLACED {
                return Err(ControlError::Full {
                    what: "replaced keys",
                    limit: MAX_REPLACED,
                });
            }
            self.by_old.insert(old, (new, None));
            return Ok(Some(Vec::new()));
        };
        if *first == new || second.is_some_and(|second| second <= new) {
            return Ok(None);
        }
        let gone = second.map(|new| Fact::Replaced { old, new });
        (*first, *second) = ((*first).min(new), Some((*first).max(new)));
        Ok(Some(gone.into_iter().collect()))
    }

    /// What replaced this key: nothing, one key, or two at once.
    #[allow(clippy::option_option, reason = "replaced by nobody that counts")]
    pub(super) fn of(&self, old: &NodeId) -> Option<Option<NodeId>> {
        let (first, second) = self.by_old.get(old)?;
        Some(second.is_none().then_some(*first))
    }

    pub(super) fn replaced(&self) -> impl Iterator<Item = NodeId> {
        self.by_old.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_old.len()
    }
}
