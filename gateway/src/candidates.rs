//! Which orchestrators are worth a try. Pure: time and randomness are passed in.
//!
//! Anyone may announce anything on a topic; only a link shows who holds a grant. So few keys are
//! remembered, and one that never proved itself makes room for another once it was tried: a flood
//! of announcements delays the way to an orchestrator, but cannot bar it.

use rand::Rng;
use rand::seq::SliceRandom;
use std::collections::BTreeMap;
use std::time::Duration;
use tether_wire::NodeId;
use tokio::time::Instant;

/// Most orchestrators that are remembered; a region has a handful.
pub(crate) const MAX_KNOWN: usize = 16;
/// First pause after a failure.
pub(crate) const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest pause.
pub(crate) const BACKOFF_CAP: Duration = Duration::from_secs(5);
/// Failed dials after which an orchestrator is forgotten that nobody announces any more, or that
/// is in the way of a new one.
const FORGET_AFTER: u32 = 16;

/// Pause after so many failures: exponential, between half and the whole of it.
pub(crate) fn backoff(failures: u32, jitter: f64) -> Duration {
    let whole = BACKOFF_BASE
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_CAP);
    whole.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

struct Candidate {
    /// Failed dials since the last link.
    failures: u32,
    dial_at: Instant,
    dialling: bool,
    announced: bool,
    /// Whether there was a link ever, so that it is known to hold a grant.
    proven: bool,
}

/// The orchestrators that are known of, [`MAX_KNOWN`] at most.
#[derive(Default)]
pub(crate) struct Candidates {
    known: BTreeMap<NodeId, Candidate>,
}

impl Candidates {
    /// Takes what a lookup found, in an order that nobody outside can choose.
    pub(crate) fn found(&mut self, mut ids: Vec<NodeId>, now: Instant, rng: &mut impl Rng) {
        for candidate in self.known.values_mut() {
            candidate.announced = false;
        }
        ids.shuffle(rng);
        for id in ids {
            if let Some(candidate) = self.known.get_mut(&id) {
                candidate.announced = true;
                continue;
            }
            if self.known.len() >= MAX_KNOWN {
                let Some(least) = self.least_worth(rng) else {
                    continue;
                };
                self.known.remove(&least);
            }
            let candidate = Candidate {
                failures: 0,
                dial_at: now,
                dialling: false,
                announced: true,
                proven: false,
            };
            self.known.insert(id, candidate);
        }
    }

    /// Who makes room: of those that were tried and never linked with, the one that failed most
    /// often; of the others only one that has been away for long.
    fn least_worth(&self, rng: &mut impl Rng) -> Option<NodeId> {
        self.known
            .iter()
            .filter(|(_, candidate)| {
                let enough = if candidate.proven { FORGET_AFTER } else { 1 };
                !candidate.dialling && candidate.failures >= enough
            })
            .max_by_key(|(_, candidate)| {
                (!candidate.proven, candidate.failures, rng.random::<u32>())
            })
            .map(|(id, _)| *id)
    }

    /// Those that are to be dialled now, as `linked` says which need not be; they are under way
    /// until [`Self::linked`] or [`Self::failed`] is told.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        linked: impl Fn(&NodeId) -> bool,
    ) -> Vec<NodeId> {
        let mut due = Vec::new();
        for (id, candidate) in &mut self.known {
            if !candidate.dialling && candidate.dial_at <= now && !linked(id) {
                candidate.dialling = true;
                due.push(*id);
            }
        }
        due
    }

    /// When the next dial is due.
    pub(crate) fn next_dial(&self, linked: impl Fn(&NodeId) -> bool) -> Option<Instant> {
        self.known
            .iter()
            .filter(|(id, candidate)| !candidate.dialling && !linked(id))
            .map(|(_, candidate)| candidate.dial_at)
            .min()
    }

    /// A dial gave a link.
    pub(crate) fn linked(&mut self, id: &NodeId, now: Instant) {
        if let Some(candidate) = self.known.get_mut(id) {
            candidate.dialling = false;
            candidate.proven = true;
            candidate.failures = 0;
            // Should the link break, the next dial waits a little, not as long as a failure.
            candidate.dial_at = now + BACKOFF_BASE;
        }
    }

    /// A dial failed; gives how many have failed now.
    pub(crate) fn failed(&mut self, id: &NodeId, now: Instant, jitter: f64) -> u32 {
        let Some(candidate) = self.known.get_mut(id) else {
            return 0;
        };
        candidate.dialling = false;
        candidate.failures = candidate.failures.saturating_add(1);
        candidate.dial_at = now + backoff(candidate.failures, jitter);
        let failures = candidate.failures;
        if failures >= FORGET_AFTER && !candidate.announced {
            self.known.remove(id);
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    /// Keys that anyone may announce.
    fn bogus() -> Vec<NodeId> {
        (0..64).map(|n| NodeId([n; 32])).collect()
    }

    const REAL: NodeId = NodeId([200; 32]);

    /// One lookup and all its dials; only the real one gives a link.
    fn round(candidates: &mut Candidates, ids: &[NodeId], now: Instant, rng: &mut StdRng) -> bool {
        candidates.found(ids.to_vec(), now, rng);
        assert!(candidates.known.len() <= MAX_KNOWN);
        for id in candidates.take_due(now, |_| false) {
            if id == REAL {
                candidates.linked(&id, now);
                return true;
            }
            candidates.failed(&id, now, 0.5);
        }
        false
    }

    #[test]
    fn pauses_grow_to_their_cap_and_never_vanish() {
        let mut last = Duration::ZERO;
        for failures in 0..40 {
            let pause = backoff(failures, 0.0);
            assert!(pause >= last && pause >= BACKOFF_BASE / 2);
            assert!(backoff(failures, 1.0) <= BACKOFF_CAP);
            last = pause;
        }
        assert_eq!(last, BACKOFF_CAP / 2);
    }

    #[test]
    fn a_flood_of_bogus_announcements_does_not_hide_the_real_one() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut candidates = Candidates::default();
            let now = Instant::now();
            // They were there before it.
            assert!(!round(&mut candidates, &bogus(), now, &mut rng));
            let mut all = bogus();
            all.push(REAL);
            let found = (0..40).any(|_| round(&mut candidates, &all, now, &mut rng));
            assert!(found, "seed {seed}");
            // Once it has proven itself, nothing that is announced pushes it out.
            for _ in 0..40 {
                round(&mut candidates, &bogus(), now + BACKOFF_CAP, &mut rng);
                assert!(candidates.known.contains_key(&REAL), "seed {seed}");
            }
        }
    }

    #[test]
    fn nobody_makes_room_before_being_tried() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut candidates = Candidates::default();
        let now = Instant::now();
        candidates.found(bogus(), now, &mut rng);
        let first: Vec<NodeId> = candidates.known.keys().copied().collect();
        candidates.found(vec![REAL], now, &mut rng);
        assert!(candidates.known.keys().eq(first.iter()), "none was tried");
        let dialled = candidates.take_due(now, |_| false);
        assert_eq!(dialled, first);
        candidates.found(vec![REAL], now, &mut rng);
        assert!(candidates.known.keys().eq(first.iter()), "all are dialled");
        candidates.failed(&first[3], now, 0.5);
        candidates.found(vec![REAL], now, &mut rng);
        assert!(candidates.known.contains_key(&REAL));
        assert!(!candidates.known.contains_key(&first[3]));
    }

    #[test]
    fn one_that_is_away_for_long_and_not_announced_is_forgotten() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut candidates = Candidates::default();
        let now = Instant::now();
        candidates.found(vec![REAL], now, &mut rng);
        candidates.linked(&REAL, now);
        candidates.found(vec![], now, &mut rng);
        for _ in 1..FORGET_AFTER {
            candidates.failed(&REAL, now, 0.5);
        }
        assert!(candidates.known.contains_key(&REAL));
        candidates.failed(&REAL, now, 0.5);
        assert!(candidates.known.is_empty());
    }
}
