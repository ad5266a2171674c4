//! The breakers, as those who dispatch, those who look and the metrics see them. (SCH-3)

use crate::breaker::{
    BreakerSettings, Breakers, Change, KINDS, Outcome, Pass, Place, Shown, State, Verdict,
};
use crate::clock;
use crate::fleet::WorkerView;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::{ModelRef, NodeId, Region};

/// Those to whom nothing goes now.
#[derive(Debug, Default)]
pub(super) struct Barred {
    pub(super) workers: Vec<NodeId>,
    /// When to ask again for the first of them.
    pub(super) first_ms: Option<u64>,
    /// Others try some of them now, which may be well in a moment.
    pub(super) is_tried: bool,
}

/// All breakers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Breaking {
    breakers: Arc<Mutex<Breakers>>,
    metrics: Arc<OrchestratorMetrics>,
}

impl Breaking {
    /// Closed ones, by settings that were checked.
    pub(crate) fn new(settings: BreakerSettings, metrics: Arc<OrchestratorMetrics>) -> Self {
        Self {
            breakers: Arc::new(Mutex::new(Breakers::new(settings))),
            metrics,
        }
    }

    /// Keeps those to whom requests for a model may go, and says who the others are.
    pub(super) fn sift<T>(
        &self,
        found: &mut Vec<T>,
        worker: impl Fn(&T) -> &WorkerView,
        model: &ModelRef,
    ) -> Barred {
        let (breakers, now_ms) = (self.breakers(), clock::now().mono_ms);
        let mut barred = Barred::default();
        found.retain(
            |it| match breakers.admits(&place(worker(it), model), now_ms) {
                Verdict::Yes | Verdict::Probe => true,
                Verdict::No { until_ms, is_tried } => {
                    barred.is_tried |= is_tried;
                    let left_ms = until_ms.saturating_sub(now_ms);
                    let first_ms = barred.first_ms.map_or(left_ms, |it| it.min(left_ms));
                    barred.first_ms = Some(first_ms);
                    barred.workers.push(worker(it).id());
                    false
                }
            },
        );
        barred
    }

    /// The places of workers for a model, as far as breakers let requests through to them.
    pub(super) fn places<'a>(
        &self,
        workers: impl Iterator<Item = (&'a WorkerView, u32)>,
        model: &ModelRef,
    ) -> u32 {
        let (breakers, now_ms) = (self.breakers(), clock::now().mono_ms);
        let (mut of_model, mut of_regions) = (u32::MAX, HashMap::new());
        for (worker, places) in workers {
            let room = breakers.room(&place(worker, model), now_ms);
            of_model = room.model;
            let of_region: &mut u32 = of_regions.entry(worker.region()).or_default();
            *of_region = (of_region.saturating_add(places.min(room.worker))).min(room.region);
        }
        (of_regions.into_values())
            .fold(0, u32::saturating_add)
            .min(of_model)
    }

    /// A request goes to a worker, if it still may.
    pub(super) fn begin(&self, worker: &WorkerView, model: &ModelRef) -> Option<Trial> {
        let begun = self
            .breakers()
            .begin(&place(worker, model), clock::now().mono_ms);
        let pass = begun.ok()?;
        Some(Trial {
            breaking: self.clone(),
            pass: Some(pass),
            has_answered: false,
        })
    }

    /// The breaker of a worker.
    pub(crate) fn of_worker(&self, worker: &WorkerView, now_ms: u64) -> Shown {
        self.breakers()
            .of_worker(&worker.id(), worker.epoch(), now_ms)
    }

    /// The breaker of a model.
    pub(crate) fn of_model(&self, model: &ModelRef, now_ms: u64) -> Shown {
        self.breakers().of_model(model, now_ms)
    }

    /// The breaker of a region.
    pub(crate) fn of_region(&self, region: &Region, now_ms: u64) -> Shown {
        self.breakers().of_region(region, now_ms)
    }

    /// Takes the counts of those that are not closed over into the metrics.
    pub(crate) fn count(&self) {
        let counts = self.breakers().counts(clock::now().mono_ms);
        for (kind, counts) in KINDS.into_iter().zip(counts) {
            self.metrics.set_breakers(kind, "open", counts.open);
            self.metrics
                .set_breakers(kind, "half-open", counts.half_open);
        }
    }

    fn tell(&self, changes: &[Change]) {
        for change in changes {
            self.metrics
                .breaker_turned(change.subject.kind(), change.to.as_str());
            match change.to {
                State::Closed => tracing::info!(breaker = ?change.subject, "closed"),
                State::HalfOpen => {}
                State::Open { .. } => {
                    tracing::warn!(breaker = ?change.subject, "open: too much of what is sent there fails");
                }
            }
        }
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn breakers(&self) -> MutexGuard<'_, Breakers> {
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place<'a>(worker: &'a WorkerView, model: &'a ModelRef) -> Place<'a> {
    Place {
        worker: worker.id(),
        epoch: worker.epoch(),
        model,
        region: worker.region(),
    }
}

/// A request that was let through. Dropping it gives its place back and says nothing of the worker.
#[derive(Debug)]
pub(super) struct Trial {
    breaking: Breaking,
    pass: Option<Pass>,
    has_answered: bool,
}

impl Trial {
    /// A piece of its answer came; the first one counts.
    pub(super) fn piece(&mut self) {
        if std::mem::replace(&mut self.has_answered, true) {
            return;
        }
        if let Some(pass) = &self.pass {
            (self.breaking.breakers()).first_piece(pass, clock::now().mono_ms);
        }
    }

    /// What became of it.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.give_back(outcome);
    }

    fn give_back(&mut self, outcome: Outcome) {
        let Some(pass) = self.pass.take() else { return };
        let now_ms = clock::now().mono_ms;
        let changes = (self.breaking.breakers()).end(pass, outcome, now_ms, &mut rand::rng());
        self.breaking.tell(&changes);
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.give_back(Outcome::Neutral);
    }
}
