//! Breakers as people and metrics see them.

use super::circuit::{Circuit, Moment};
use super::shelf::Shelf;
use super::{Breakers, Moments, State};
use std::hash::Hash;
use tether_wire::{ModelRef, NodeId, Region};

/// What is shown of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its state.
    pub state: State,
    /// Whole answers in the window, since the state last changed, and a worker's since a first fault.
    pub successes: u32,
    /// Faults in the window.
    pub faults: u32,
    /// Times that it opened without having been well for long between.
    pub openings: u32,
}

impl Shown {
    /// Of what never failed.
    const WELL: Self = Self {
        state: State::Closed,
        successes: 0,
        faults: 0,
        openings: 0,
    };
}

/// How many breakers of a kind are not closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open ones.
    pub open: usize,
    /// Half-open ones.
    pub half_open: usize,
}

impl Breakers {
    /// The breaker of a worker, whose process has this boot epoch.
    #[must_use]
    pub fn of_worker(&self, worker: &NodeId, epoch: u64, now_ms: u64) -> Shown {
        let at = Moments::new(&self.settings, self.next, now_ms).workers;
        shown(self.workers.get(worker), epoch, &at)
    }

    /// The breaker of a model.
    #[must_use]
    pub fn of_model(&self, model: &ModelRef, now_ms: u64) -> Shown {
        let at = Moments::new(&self.settings, self.next, now_ms).models;
        shown(self.models.get(model), 0, &at)
    }

    /// The breaker of a region.
    #[must_use]
    pub fn of_region(&self, region: &Region, now_ms: u64) -> Shown {
        let at = Moments::new(&self.settings, self.next, now_ms).regions;
        shown(self.regions.get(region), 0, &at)
    }

    /// Of workers, models and regions, how many are not closed. Looks at each that there is.
    #[must_use]
    pub fn counts(&self, now_ms: u64) -> [Counts; 3] {
        let at = Moments::new(&self.settings, self.next, now_ms);
        [
            counts(&self.workers, &at.workers),
            counts(&self.models, &at.models),
            counts(&self.regions, &at.regions),
        ]
    }
}

fn shown(circuit: Option<&Circuit>, epoch: u64, at: &Moment<'_>) -> Shown {
    circuit.map_or(Shown::WELL, |it| it.shown(epoch, at))
}

fn counts<K: Clone + Eq + Hash>(shelf: &Shelf<K>, at: &Moment<'_>) -> Counts {
    let mut counts = Counts::default();
    for circuit in shelf.all() {
        // Where its worker has booted meanwhile is not known here: the state is that of its past.
        match circuit.state(0, at) {
            State::Closed => {}
            State::Open { .. } => counts.open += 1,
            State::HalfOpen => counts.half_open += 1,
        }
    }
    counts
}
