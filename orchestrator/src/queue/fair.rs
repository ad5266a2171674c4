//! Start-time fair queueing: whose turn it is among several that wait, by their weights. Pure.
//!
//! P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing: A Scheduling Algorithm for Integrated
//! Services Packet Switching Networks", SIGCOMM 1996. Each flow has a start tag; the one with the
//! least is served, and its tag grows by the work that it got over its weight. Virtual time is the
//! start tag of what was served last, and who begins to wait begins there: it has no claim for the
//! time in which it did not wait, and no flood of others is before it. Over any time in which two
//! flows wait, what they get over their weights differs by at most one piece of work of each
//! (theorem 1). Chosen over deficit round robin for that delay: there, who comes waits for a round
//! of everybody's quanta, and its work has to be known to choose the quantum.

use std::collections::{BTreeMap, BTreeSet};

/// Virtual time of one piece of work at weight one.
const UNIT: u128 = 1 << 20;
/// Most flows that are remembered, though nothing of theirs waits, for what they got ahead of
/// others. Beyond it the one that is ahead least is forgotten.
const MAX_AHEAD: usize = 4_096;

/// Flows that wait, and whose turn it is.
#[derive(Debug)]
pub(super) struct Fair<K> {
    /// Virtual time.
    time: u128,
    flows: BTreeMap<K, Flow>,
    /// Those that wait, by start tag and then by who waits there for longer.
    waiting: BTreeSet<(u128, u64, K)>,
    /// Those that do not, and whose last work ends after the virtual time.
    ahead: BTreeSet<(u128, K)>,
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
enum Flow {
    Waits { start: u128, turn: u64 },
    Ahead { until: u128 },
}

impl<K> Default for Fair<K> {
    fn default() -> Self {
        Self {
            time: 0,
            flows: BTreeMap::new(),
            waiting: BTreeSet::new(),
            ahead: BTreeSet::new(),
            turn: 0,
        }
    }
}

impl<K: Clone + Ord> Fair<K> {
    /// Something of this flow waits from now on. Nothing changes where that is so already.
    pub(super) fn join(&mut self, key: &K) {
        let start = match self.flows.get(key) {
            Some(Flow::Waits { .. }) => return,
            Some(Flow::Ahead { until }) => {
                let until = *until;
                self.ahead.remove(&(until, key.clone()));
                until.max(self.time)
            }
            None => self.time,
        };
        self.wait(key.clone(), start);
    }

    /// Whose turn it is.
    #[cfg(test)]
    fn first(&self) -> Option<&K> {
        self.in_order().next()
    }

    /// Whose turn it is, and whose if the first ones cannot have it. Who is passed over keeps its
    /// place, and with it its claim.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &K> {
        self.waiting.iter().map(|(_, _, key)| key)
    }

    /// A flow that waits is given so much work, and whether more of it waits.
    pub(super) fn serve(&mut self, key: &K, work: u32, weight: u32, more: bool) {
        let Some(start) = self.stop(key) else { return };
        self.time = self.time.max(start);
        let until = start + u128::from(work) * UNIT / u128::from(weight.max(1));
        if more {
            self.wait(key.clone(), until);
        } else {
            self.ahead.insert((until, key.clone()));
            self.flows.insert(key.clone(), Flow::Ahead { until });
        }
        self.forget();
    }

    /// What a flow was served with was so much more work than was said, or less. It has no claim for
    /// the time that is over.
    pub(super) fn settle(&mut self, key: &K, more: i64, weight: u32) {
        let by = u128::from(more.unsigned_abs()) * UNIT / u128::from(weight.max(1));
        let (was, waits) = match self.flows.get(key).copied() {
            Some(Flow::Waits { start, .. }) => (start, true),
            Some(Flow::Ahead { until }) => (until, false),
            None => (self.time, false),
        };
        let at = if more < 0 {
            was.saturating_sub(by).max(self.time)
        } else {
            was.saturating_add(by)
        };
        if waits {
            self.stop(key);
            self.wait(key.clone(), at);
        } else {
            self.ahead.remove(&(was, key.clone()));
            self.ahead.insert((at, key.clone()));
            self.flows.insert(key.clone(), Flow::Ahead { until: at });
            self.forget();
        }
    }

    /// Nothing of this flow waits any more, and it was not served.
    pub(super) fn leave(&mut self, key: &K) {
        let Some(start) = self.stop(key) else { return };
        // It keeps its place: who comes back is where it was.
        if start > self.time {
            self.ahead.insert((start, key.clone()));
            self.flows.insert(key.clone(), Flow::Ahead { until: start });
        }
        self.forget();
    }

    fn wait(&mut self, key: K, start: u128) {
        self.turn += 1;
        let turn = self.turn;
        self.waiting.insert((start, turn, key.clone()));
        self.flows.insert(key, Flow::Waits { start, turn });
    }

    /// Takes a flow out; where it stood.
    fn stop(&mut self, key: &K) -> Option<u128> {
        let Some(Flow::Waits { start, turn }) = self.flows.get(key).copied() else {
            return None;
        };
        self.waiting.remove(&(start, turn, key.clone()));
        self.flows.remove(key);
        Some(start)
    }

    /// Forgets who is ahead no more. Where nobody waits, nobody was kept waiting by anybody.
    fn forget(&mut self) {
        if self.waiting.is_empty() {
            *self = Self {
                turn: self.turn,
                ..Self::default()
            };
        }
        while let Some((until, _)) = self.ahead.first() {
            if *until > self.time && self.ahead.len() <= MAX_AHEAD {
                return;
            }
            if let Some((_, key)) = self.ahead.pop_first() {
                self.flows.remove(&key);
            }
        }
    }

    #[cfg(test)]
    fn remembered(&self) -> usize {
        self.flows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn served(fair: &mut Fair<u32>, turns: usize, weight: impl Fn(u32) -> u32) -> Vec<u32> {
        (0..turns)
            .map(|_| {
                let key = *fair.first().expect("some wait");
                fair.serve(&key, 1, weight(key), true);
                key
            })
            .collect()
    }

    #[test]
    fn who_has_twice_the_weight_has_twice_the_turns() {
        let mut fair = Fair::default();
        fair.join(&1);
        fair.join(&2);
        let turns = served(&mut fair, 300, |key| key);
        assert_eq!(turns.iter().filter(|it| **it == 2).count(), 200);
    }

    #[test]
    fn who_comes_late_has_the_next_turn_and_no_claim_for_the_time_before() {
        let mut fair = Fair::default();
        fair.join(&1);
        fair.join(&2);
        served(&mut fair, 1_000, |_| 1);
        fair.join(&3);
        let turns = served(&mut fair, 30, |_| 1);
        assert!(turns[..3].contains(&3), "{turns:?}");
        assert_eq!(turns.iter().filter(|it| **it == 3).count(), 10);
    }

    #[test]
    fn who_comes_with_one_request_after_the_other_is_not_ahead_of_who_waits() {
        let mut fair = Fair::default();
        fair.join(&1);
        let mut turns = [0; 3];
        for _ in 0..300 {
            fair.join(&2);
            let key = *fair.first().expect("some wait");
            fair.serve(&key, 1, 1, key == 1);
            turns[key as usize] += 1;
        }
        assert_eq!(turns[1..], [150, 150]);
    }

    #[test]
    fn what_was_more_or_less_work_than_was_said_is_made_good_in_the_turns_that_follow() {
        let mut fair = Fair::default();
        (1..=3).for_each(|key| fair.join(&key));
        let first = served(&mut fair, 30, |_| 1);
        fair.settle(&1, 20, 1);
        let then = served(&mut fair, 40, |_| 1);
        let turns = |of: &[u32], key| of.iter().filter(|it| **it == key).count();
        assert_eq!([1, 2, 3].map(|key| turns(&first, key)), [10, 10, 10]);
        assert_eq!([1, 2, 3].map(|key| turns(&then, key)), [0, 20, 20]);
        // Less than nothing is no claim on what the others had meanwhile.
        fair.settle(&2, -1_000, 1);
        let last = served(&mut fair, 30, |_| 1);
        assert!((10..=11).contains(&turns(&last, 2)), "{last:?}");
        // Who does not wait, or never did, is remembered while others do.
        fair.settle(&4, 5, 1);
        fair.join(&4);
        let late = served(&mut fair, 20, |_| 1);
        assert!(late[..12].iter().all(|key| *key != 4), "{late:?}");
        (1..=4).for_each(|key| fair.leave(&key));
        fair.settle(&1, 7, 1);
        assert_eq!(fair.remembered(), 0, "nobody was kept waiting");
    }

    #[test]
    fn nothing_is_remembered_where_nobody_waits_and_little_where_many_were_served() {
        let mut fair = Fair::default();
        fair.join(&0);
        for key in 1..20_000 {
            fair.join(&key);
            while fair.first() != Some(&key) {
                fair.serve(&0, 1, 1_000_000, true);
            }
            fair.serve(&key, 1_000, 1, false);
        }
        assert!(fair.remembered() <= MAX_AHEAD + 1, "{}", fair.remembered());
        fair.leave(&0);
        assert_eq!(fair.remembered(), 0);
    }

    /// What one flow does.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Join(u32),
        Leave(u32),
        Serve { work: u32, more: bool },
        Settle { key: u32, more: i64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..5_u32).prop_map(Step::Join),
            1 => (0..5_u32).prop_map(Step::Leave),
            6 => (1..50_u32, any::<bool>()).prop_map(|(work, more)| Step::Serve { work, more }),
            2 => (0..5_u32, -60..60_i64).prop_map(|(key, more)| Step::Settle { key, more }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Theorem 1 of the paper, between two flows that always wait.
        #[test]
        fn two_that_wait_differ_by_one_piece_of_work_of_each_at_most(
            works in proptest::collection::vec(1..100_u32, 1..300),
            weights in [1..9_u32, 1..9_u32, 1..9_u32],
            begin in 0..200_usize,
        ) {
            let mut fair = Fair::default();
            let mut got = [0.0; 3];
            (0..3).for_each(|key: usize| fair.join(&key));
            for (n, work) in works.iter().enumerate() {
                let key = *fair.first().expect("they wait");
                if n >= begin {
                    got[key] += f64::from(*work) / f64::from(weights[key]);
                }
                fair.serve(&key, *work, weights[key], true);
                let most = |key: usize| 99.0 / f64::from(weights[key]);
                for (a, b) in [(0, 1), (0, 2), (1, 2)] {
                    let apart: f64 = got[a] - got[b];
                    prop_assert!(apart.abs() <= most(a) + most(b) + 1e-6, "{apart}");
                }
            }
        }

        /// Held against a plain set of who waits.
        #[test]
        fn somebody_has_the_turn_exactly_while_somebody_waits(
            steps in proptest::collection::vec(step(), 1..300),
        ) {
            let (mut fair, mut waits) = (Fair::default(), BTreeSet::new());
            let mut time = 0;
            for step in steps {
                match step {
                    Step::Join(key) => {
                        fair.join(&key);
                        waits.insert(key);
                    }
                    Step::Leave(key) => {
                        fair.leave(&key);
                        waits.remove(&key);
                    }
                    Step::Settle { key, more } => fair.settle(&key, more, 1),
                    Step::Serve { work, more } => {
                        let Some(key) = fair.first().copied() else { continue };
                        fair.serve(&key, work, 1, more);
                        if !more {
                            waits.remove(&key);
                        }
                    }
                }
                prop_assert_eq!(fair.waiting.len(), waits.len());
                prop_assert!(fair.first().is_none_or(|key| waits.contains(key)));
                prop_assert!(waits.is_empty() || fair.time >= time, "time goes forward");
                time = fair.time;
                prop_assert_eq!(fair.flows.len(), fair.waiting.len() + fair.ahead.len());
            }
        }
    }
}
