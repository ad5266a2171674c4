//! Which groups are ranked when: each in its turn, within a part of the time.

use super::{Index, Regions};
use crate::fleet::group::Kind;
use crate::fleet::merit::Merits;
use std::sync::Arc;
use tether_wire::Tier;

/// A group is ranked once in this time at most.
pub(crate) const RANK_MS: u64 = 250;
/// Workers that are ranked in a millisecond, so that ranking takes about a hundredth of a core. A
/// hundred thousand workers that offer two artifacts each are ranked within the time of two beats.
const RANKED_PER_MS: usize = 20;

impl Index {
    /// The groups whose best are to be chosen anew now, those that were ranked longest ago first,
    /// and when to ask again: ranking takes no more than its part of the time.
    pub(crate) fn due(&self, now_ms: u64) -> (Vec<Arc<Kind>>, u64) {
        let mut due = Vec::new();
        for (_, _, artifact) in self.artifacts() {
            let tiers = [Tier::Trusted, Tier::Untrusted].map(|tier| artifact.tier(tier));
            for group in tiers.into_iter().flat_map(Regions::values) {
                let ranked_ms = group.ranked_ms();
                if let Some(at_ms) = ranked_ms.filter(|at_ms| now_ms >= at_ms + RANK_MS) {
                    due.push((at_ms, group));
                }
            }
        }
        due.sort_by_key(|(at_ms, _)| *at_ms);
        let (mut kinds, mut workers) = (Vec::new(), 0);
        for (_, group) in due {
            let time_ms = (workers / RANKED_PER_MS) as u64;
            if time_ms >= RANK_MS {
                break;
            }
            workers += group.cost();
            kinds.push(group.kind().clone());
        }
        let pause_ms = (workers / RANKED_PER_MS) as u64;
        (kinds, now_ms + pause_ms.max(RANK_MS))
    }

    /// Chooses anew who is ready of these groups.
    pub(crate) fn rank(&mut self, due: &[Arc<Kind>], merits: &Merits, now_ms: u64) {
        self.ranked_ms = now_ms;
        for kind in due {
            let number = kind.model.version.numbers();
            let group = (self.models.get_mut(&kind.model.name))
                .and_then(|it| Arc::make_mut(it).get_mut(&number)?.get_mut(&kind.digest))
                .and_then(|it| it.tier_mut(kind.tier).get_mut(&kind.region));
            if let Some(group) = group {
                Arc::make_mut(group).rank(merits, now_ms);
            }
        }
    }
}
