//! Whom to keep links with, and when to look or dial again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use tether_wire::{Digest, NodeId};

/// Time between two look-ups while not enough orchestrators are linked.
pub const SEARCH_INTERVAL_MS: u64 = 2_000;
/// Time between two look-ups otherwise: new orchestrators should be found within a minute.
pub const REFRESH_INTERVAL_MS: u64 = 30_000;
/// First wait before an orchestrator is dialled again.
pub const FIRST_REDIAL_MS: u64 = 200;
/// Longest wait before an orchestrator is dialled again. It never stops for good. (NET-7)
pub const MAX_REDIAL_MS: u64 = 10_000;
/// Most orchestrators that are remembered; a look-up gives at most some dozens.
pub const MAX_KNOWN: usize = 256;
/// Look-ups in a row without an orchestrator after which it is forgotten, unless it is linked.
const MAX_MISSED: u32 = 5;

/// The orchestrators that a worker knows of.
#[derive(Clone, Debug, Default)]
pub struct Known {
    missed: BTreeMap<NodeId, u32>,
}

impl Known {
    /// A look-up gave these. One that it did not give is kept for some more: a look-up on a DHT is
    /// not a roll call.
    pub fn looked_up(&mut self, found: &[NodeId]) {
        for missed in self.missed.values_mut() {
            *missed += 1;
        }
        for node in found {
            if self.missed.len() < MAX_KNOWN || self.missed.contains_key(node) {
                self.missed.insert(*node, 0);
            }
        }
        self.missed.retain(|_, missed| *missed <= MAX_MISSED);
    }

    /// Those that should be linked: the `k` with the highest score for this worker, and where some
    /// of these fail, the next ones in their place, while those that fail are still dialled: a key
    /// stays on the DHT for long after its node was killed. One that is linked already stays until
    /// `k` better ones are linked too.
    #[must_use]
    pub fn choose(
        &self,
        worker: NodeId,
        linked: &BTreeSet<NodeId>,
        failing: &BTreeSet<NodeId>,
        k: usize,
    ) -> BTreeSet<NodeId> {
        let all: BTreeSet<NodeId> = self.missed.keys().chain(linked).copied().collect();
        let sound = all.difference(failing).copied().collect::<Vec<_>>();
        let sound: BTreeSet<NodeId> = rendezvous(worker, sound, k).into_iter().collect();
        let up = sound.intersection(linked).count();
        let spare = linked.iter().filter(|node| !sound.contains(node)).copied();
        let kept: Vec<NodeId> = spare.take(k.saturating_sub(up)).collect();
        let mut chosen = sound;
        chosen.extend(
            rendezvous(worker, all, k)
                .into_iter()
                .filter(|node| failing.contains(node)),
        );
        chosen.extend(kept);
        chosen
    }
}

/// Rendezvous hashing (Thaler and Ravishankar, 1998): each worker ranks all orchestrators by a
/// hash of both, so that workers spread evenly and one that comes or goes moves few of them.
#[must_use]
pub fn rendezvous(
    worker: NodeId,
    orchestrators: impl IntoIterator<Item = NodeId>,
    k: usize,
) -> Vec<NodeId> {
    let mut ranked: Vec<(Digest, NodeId)> = orchestrators
        .into_iter()
        .map(|node| (score(&worker, &node), node))
        .collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().take(k).map(|(_, node)| node).collect()
}

/// How many of `others` this worker would choose before `node`.
#[must_use]
pub fn rank<'a>(
    worker: &NodeId,
    node: &NodeId,
    others: impl IntoIterator<Item = &'a NodeId>,
) -> usize {
    let own = (score(worker, node), node);
    (others.into_iter())
        .filter(|other| (score(worker, other), *other) > own)
        .count()
}

/// What a node ranks an orchestrator by; the highest is the best.
#[must_use]
pub fn score(worker: &NodeId, node: &NodeId) -> Digest {
    let mut both = [0; 64];
    both[..32].copy_from_slice(&worker.0);
    both[32..].copy_from_slice(&node.0);
    Digest::of(&both)
}

/// Milliseconds until the next look-up. `jitter` between 0 and 1 keeps a fleet from asking at once.
#[must_use]
pub fn next_lookup_ms(linked: usize, jitter: f64) -> u64 {
    spread(
        if linked == 0 {
            SEARCH_INTERVAL_MS
        } else {
            REFRESH_INTERVAL_MS
        },
        jitter,
    )
}

/// Milliseconds until an orchestrator is dialled again after `failures` in a row.
#[must_use]
pub fn redial_ms(failures: u32, jitter: f64) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    spread((FIRST_REDIAL_MS << doublings).min(MAX_REDIAL_MS), jitter)
}

/// Between a half and the whole of a time.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "times of seconds, in milliseconds"
)]
fn spread(ms: u64, jitter: f64) -> u64 {
    let half = ms / 2;
    half + (half as f64 * jitter.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(range: std::ops::Range<u8>) -> Vec<NodeId> {
        range.map(|n| NodeId([n; 32])).collect()
    }

    #[test]
    fn workers_spread_evenly_and_few_move_when_one_orchestrator_goes() {
        let orchestrators = nodes(0..10);
        let choose = |worker: u16, among: &[NodeId]| {
            let mut id = [0; 32];
            id[..2].copy_from_slice(&worker.to_be_bytes());
            rendezvous(NodeId(id), among.iter().copied(), 3)
        };
        let mut counts = BTreeMap::new();
        let mut moved = 0;
        for worker in 0..1_000 {
            let before = choose(worker, &orchestrators);
            let after = choose(worker, &orchestrators[1..]);
            assert_eq!(before.len(), 3);
            moved += usize::from(before != after);
            for node in before {
                *counts.entry(node).or_insert(0) += 1;
            }
        }
        assert!(
            counts.values().all(|count| (200..400).contains(count)),
            "{counts:?}"
        );
        assert!(
            (200..400).contains(&moved),
            "only those who had it moved: {moved}"
        );
    }

    #[test]
    fn an_orchestrator_missing_in_one_lookup_is_kept_and_a_lost_one_forgotten() {
        let mut known = Known::default();
        let me = NodeId([200; 32]);
        known.looked_up(&nodes(0..2));
        for _ in 0..MAX_MISSED {
            known.looked_up(&nodes(1..2));
            assert_eq!(
                known
                    .choose(me, &BTreeSet::new(), &BTreeSet::new(), 3)
                    .len(),
                2
            );
        }
        known.looked_up(&nodes(1..2));
        let chosen = known.choose(me, &BTreeSet::new(), &BTreeSet::new(), 3);
        assert_eq!(chosen, nodes(1..2).into_iter().collect());
        let linked: BTreeSet<NodeId> = nodes(0..1).into_iter().collect();
        assert_eq!(
            known.choose(me, &linked, &BTreeSet::new(), 3).len(),
            2,
            "what is linked stays"
        );
    }

    #[test]
    fn a_link_is_given_up_only_for_better_ones_that_are_up() {
        let mut known = Known::default();
        let me = NodeId([200; 32]);
        known.looked_up(&nodes(0..10));
        let ranked = rendezvous(me, nodes(0..10), 10);
        let worst: BTreeSet<NodeId> = ranked[8..].iter().copied().collect();
        let chosen = known.choose(me, &worst, &BTreeSet::new(), 2);
        assert_eq!(
            chosen.len(),
            4,
            "the best are dialled, the others kept meanwhile"
        );
        let all_up: BTreeSet<NodeId> = worst.iter().chain(&ranked[..2]).copied().collect();
        let best: BTreeSet<NodeId> = ranked[..2].iter().copied().collect();
        assert_eq!(known.choose(me, &all_up, &BTreeSet::new(), 2), best);
    }

    #[test]
    fn the_next_ones_take_the_place_of_those_that_fail_until_these_are_back() {
        let mut known = Known::default();
        let me = NodeId([200; 32]);
        known.looked_up(&nodes(0..6));
        let ranked = rendezvous(me, nodes(0..6), 6);
        let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
        let none = BTreeSet::new();
        let chosen = known.choose(me, &none, &set(&ranked[..2]), 2);
        assert_eq!(
            chosen,
            set(&ranked[..4]),
            "two that fail, two in their place"
        );
        let chosen = known.choose(me, &set(&ranked[2..4]), &set(&ranked[..2]), 2);
        assert_eq!(chosen, set(&ranked[..4]));
        let chosen = known.choose(me, &set(&ranked[..4]), &none, 2);
        assert_eq!(chosen, set(&ranked[..2]), "the best are back");
    }

    #[test]
    fn no_lookup_grows_memory_past_its_limit() {
        let mut known = Known::default();
        let many: Vec<NodeId> = (0..2_000_u32)
            .map(|n| NodeId(*Digest::of(&n.to_be_bytes()).0.first_chunk().expect("32")))
            .collect();
        known.looked_up(&many);
        assert_eq!(known.missed.len(), MAX_KNOWN);
    }

    #[test]
    fn waits_grow_to_their_limits_and_spread_over_half_of_them() {
        assert_eq!(next_lookup_ms(0, 1.0), SEARCH_INTERVAL_MS);
        assert_eq!(next_lookup_ms(1, 0.0), REFRESH_INTERVAL_MS / 2);
        assert_eq!(redial_ms(1, 1.0), FIRST_REDIAL_MS);
        assert_eq!(redial_ms(3, 1.0), 4 * FIRST_REDIAL_MS);
        assert_eq!(redial_ms(u32::MAX, 1.0), MAX_REDIAL_MS);
        assert_eq!(redial_ms(u32::MAX, f64::NAN), MAX_REDIAL_MS / 2);
    }
}
