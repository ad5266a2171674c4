//! One seed, many seeds, and one again.

use crate::host::Host;
use crate::machine::Machine;
use crate::outcome::{Outcome, Violation};
use crate::queue::MS;
use crate::scenario::Scenario;
use crate::trace::Watch;
use crate::world::World;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs a scenario with one seed.
#[must_use]
pub fn run<M: Machine>(scenario: &Scenario, seed: u64) -> Outcome {
    World::<M>::new(scenario, seed, None).run().0
}

/// Runs a scenario with each of these seeds, on all cores, and tells of each as it ends.
pub fn run_all<M: Machine>(
    scenario: &Scenario,
    seeds: Range<u64>,
    threads: usize,
    tell: impl Fn(&Outcome) + Sync,
) -> Vec<Outcome> {
    let next = AtomicU64::new(seeds.start);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run::<M>(scenario, seed);
                    tell(&outcome);
                    let mut outcomes = outcomes
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    outcomes.push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| outcome.seed);
    outcomes
}

/// A run that was traced.
#[derive(Debug)]
pub struct Replay {
    /// What came out.
    pub outcome: Outcome,
    /// What went wrong first, if anything did.
    pub violation: Option<Violation>,
    /// What led to it: all that happened to the node and its viewer in the minute before.
    pub lines: Vec<String>,
}

/// Runs a seed again: once to find what goes wrong first, and once more to trace what led to it.
#[must_use]
pub fn replay<M: Machine>(scenario: &Scenario, seed: u64) -> Replay {
    let outcome = run::<M>(scenario, seed);
    let Some(violation) = outcome.violations.first().cloned() else {
        return Replay {
            outcome,
            violation: None,
            lines: Vec::new(),
        };
    };
    let watch = Watch {
        subject: violation.subject.map(Host).into_iter().collect(),
        viewer: violation.viewer.map(Host),
        until: violation.at_ms * MS + MS,
    };
    let (again, lines) = World::<M>::new(scenario, seed, Some(watch)).run();
    assert_eq!(
        again.trace, outcome.trace,
        "the same seed gave another run: something in it is not deterministic"
    );
    Replay {
        outcome,
        violation: Some(violation),
        lines,
    }
}
