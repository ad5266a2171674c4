//! Whom to keep links with, and when to look or dial again. Pure.

use tether_wire::{Digest, NodeId};

/// Time between two look-ups while not enough orchestrators are linked.
pub const SEARCH_INTERVAL_MS: u64 = 2_000;
/// Time between two look-ups otherwise: new orchestrators should be found within a minute.
pub const REFRESH_INTERVAL_MS: u64 = 30_000;
/// First wait before an orchestrator is dialled again.
pub const FIRST_REDIAL_MS: u64 = 200;
/// Longest wait before an orchestrator is dialled again. It never stops for good. (NET-7)
pub const MAX_REDIAL_MS: u64 = 10_000;
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
    use std::collections::BTreeMap;

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
    fn waits_grow_to_their_limits_and_spread_over_half_of_them() {
        assert_eq!(next_lookup_ms(0, 1.0), SEARCH_INTERVAL_MS);
        assert_eq!(next_lookup_ms(1, 0.0), REFRESH_INTERVAL_MS / 2);
        assert_eq!(redial_ms(1, 1.0), FIRST_REDIAL_MS);
        assert_eq!(redial_ms(3, 1.0), 4 * FIRST_REDIAL_MS);
        assert_eq!(redial_ms(u32::MAX, 1.0), MAX_REDIAL_MS);
        assert_eq!(redial_ms(u32::MAX, f64::NAN), MAX_REDIAL_MS / 2);
    }
}
