//! Which workers, models and regions are left alone for a while, since what is sent there fails.
//! Pure: time and randomness are passed in, and edges tell what became of each request. (SCH-3)
//!
//! A breaker is *closed* while all is well; faults *open* it, and nothing goes there; after a while
//! it is *half open*, and a few requests try whether it is well again. M. Nygard, "Release It!",
//! 2007, has the pattern. What differs here:
//!
//! * Only a worker's faults count. What a tenant did wrong, gave up or set too short a time for is
//!   neither a fault nor a success: [`Outcome`].
//! * One worker never opens the breaker of its model or region, and never keeps one open, however
//!   often it dies: distinct workers must fail.
//! * What fails along with a narrower breaker that opened since it began counts nowhere. So the
//!   wider ones hear only of what the narrower ones did not stop.
//! * A half-open breaker lets few requests through *in the dark*; one whose answer began makes room
//!   for the next, so that a worker that is well gets its load back before its first long answer is
//!   over. A request that is never ended keeps its place for a bounded time.
//! * A new boot epoch makes a worker's breaker half open: another process has to show its own.
//! * Outcomes are ordered by when their requests began, not by clocks: what began before a breaker
//!   turned does not count for what it is now.
//!
//! A worker that never failed has no breaker and costs nothing. Why none of the crates does it:
//! `docs/adr/0005-breakers-of-our-own.md`.

mod circuit;
mod settings;
mod shelf;
mod shown;

pub use settings::{BreakerSettings, MAX_PROBES, MAX_WITNESSES};
pub use shown::{Counts, Shown};

use circuit::{Circuit, Ended, Moment, Taken};
use rand::Rng;
use shelf::Shelf;
use std::hash::Hash;
use tether_wire::rpc::Code;
use tether_wire::{ModelRef, NodeId, Region};

/// Most workers of which faults are remembered, some 0.4 kB each. Beyond it the one without a fault
/// for the longest time is forgotten.
pub const MAX_WORKERS: usize = 65_536;
/// Most models that are remembered. Beyond it the one that nobody asked for the longest is forgotten.
pub const MAX_MODELS: usize = 4_096;
/// As for models.
pub const MAX_REGIONS: usize = 1_024;

/// Where a request would go.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The worker.
    pub worker: NodeId,
    /// The boot epoch of its process.
    pub epoch: u64,
    /// The model.
    pub model: &'a ModelRef,
    /// The region where the worker stands.
    pub region: &'a Region,
}

/// Whether a request may go somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Yes,
    /// It may, to see whether the place is well again. Better one that may be sent elsewhere.
    Probe,
    /// It may not.
    No {
        /// When to ask again, on the clock that is passed in.
        until_ms: u64,
        /// Others try it now, so that it may be well before that.
        is_tried: bool,
    },
}

impl Verdict {
    /// The stricter of two.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::No {
                    until_ms: one_ms,
                    is_tried: one,
                },
                Self::No { until_ms, is_tried },
            ) => Self::No {
                until_ms: one_ms.max(until_ms),
                is_tried: one && is_tried,
            },
            (no @ Self::No { .. }, _) | (_, no @ Self::No { .. }) => no,
            (Self::Probe, _) | (_, Self::Probe) => Self::Probe,
            (Self::Yes, Self::Yes) => Self::Yes,
        }
    }
}

/// Requests that breakers let through now: without bound those that are closed, a few those that are
/// half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// To the worker.
    pub worker: u32,
    /// To all workers of the model.
    pub model: u32,
    /// To all workers in the region.
    pub region: u32,
}

/// What became of a request, as far as it says something of where it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is whole.
    Success,
    /// The worker's fault: it died, stalled, broke off, or sent what is no answer.
    Fault,
    /// It says nothing: the tenant's own error, a limit, a cancel, a deadline, too much to do.
    Neutral,
}

impl Outcome {
    /// What an error of a worker says of it. That it has too much to do is what it should say; that
    /// it does not have what it offers, or takes no orders from us, is its fault.
    #[must_use]
    pub fn of_error(code: Code) -> Self {
        match code {
            Code::Invalid
            | Code::Conflict
            | Code::RateLimited
            | Code::Overloaded
            | Code::Deadline
            | Code::Cancelled
            | Code::Elsewhere => Self::Neutral,
            Code::NotFound
            | Code::Forbidden
            | Code::Unavailable
            | Code::Internal
            | Code::Unimplemented
            | Code::Unknown => Self::Fault,
        }
    }
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All is well.
    Closed,
    /// Nothing goes there.
    Open {
        /// Until when.
        until_ms: u64,
    },
    /// A few requests go there.
    HalfOpen,
}

impl State {
    /// Its name, for people and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// What a breaker stands before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A worker.
    Worker(NodeId),
    /// A model.
    Model(ModelRef),
    /// A region.
    Region(Region),
}

impl Subject {
    /// Its kind, for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Worker(_) => KINDS[0],
            Self::Model(_) => KINDS[1],
            Self::Region(_) => KINDS[2],
        }
    }
}

/// The kinds of breakers, in the order of [`Breakers::counts`].
pub const KINDS: [&str; 3] = ["worker", "model", "region"];

impl From<NodeId> for Subject {
    fn from(worker: NodeId) -> Self {
        Self::Worker(worker)
    }
}

impl From<ModelRef> for Subject {
    fn from(model: ModelRef) -> Self {
        Self::Model(model)
    }
}

impl From<Region> for Subject {
    fn from(region: Region) -> Self {
        Self::Region(region)
    }
}

/// A breaker opened or closed, for logs and metrics. That one is half open shows only with time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose it is.
    pub subject: Subject,
    /// What it became.
    pub to: State,
}

/// A request that was let through. To be given back to [`Breakers::end`]; one that is lost keeps a
/// place of half-open breakers until their `probe_timeout_ms`.
#[derive(Debug)]
#[must_use = "what became of it must be told"]
pub struct Pass {
    order: u64,
    worker: NodeId,
    epoch: u64,
    model: ModelRef,
    region: Region,
}

/// All breakers of an orchestrator.
#[derive(Debug)]
pub struct Breakers {
    settings: BreakerSettings,
    workers: Shelf<NodeId>,
    models: Shelf<ModelRef>,
    regions: Shelf<Region>,
    /// The order of the next request.
    next: u64,
    /// Requests that ended.
    turn: u64,
}

impl Breakers {
    /// Closed ones, by settings that were checked.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            workers: Shelf::new(MAX_WORKERS),
            models: Shelf::new(MAX_MODELS),
            regions: Shelf::new(MAX_REGIONS),
            next: 1,
            turn: 0,
        }
    }

    /// Other settings, from now on.
    pub fn configure(&mut self, settings: BreakerSettings) {
        self.settings = settings;
    }

    /// Whether a request may go there. No allocation: it is asked for each candidate.
    #[must_use]
    pub fn admits(&self, place: &Place<'_>, now_ms: u64) -> Verdict {
        let asked = |circuit: Option<&Circuit>, epoch, at: &Moment<'_>| {
            circuit.map_or(Verdict::Yes, |it| it.verdict(epoch, at))
        };
        let at = Moments::new(&self.settings, self.next, now_ms);
        asked(self.workers.get(&place.worker), place.epoch, &at.workers)
            .and(asked(self.models.get(place.model), 0, &at.models))
            .and(asked(self.regions.get(place.region), 0, &at.regions))
    }

    /// How many more requests may go there now, by each of its breakers.
    #[must_use]
    pub fn room(&self, place: &Place<'_>, now_ms: u64) -> Room {
        let asked = |circuit: Option<&Circuit>, epoch, at: &Moment<'_>| {
            circuit.map_or(u32::MAX, |it| it.room(epoch, at))
        };
        let at = Moments::new(&self.settings, self.next, now_ms);
        Room {
            worker: asked(self.workers.get(&place.worker), place.epoch, &at.workers),
            model: asked(self.models.get(place.model), 0, &at.models),
            region: asked(self.regions.get(place.region), 0, &at.regions),
        }
    }

    /// A request goes there, if it still may; half-open breakers count it among those in the dark.
    ///
    /// # Errors
    /// It may not: when to ask again.
    pub fn begin(&mut self, place: &Place<'_>, now_ms: u64) -> Result<Pass, u64> {
        if let Verdict::No { until_ms, .. } = self.admits(place, now_ms) {
            return Err(until_ms);
        }
        let (settings, order) = (self.settings, self.next);
        let at = Moments::new(&settings, order, now_ms);
        self.next += 1;
        if let Some(circuit) = self.workers.get_mut(&place.worker) {
            circuit.begin(place.epoch, order, &at.workers);
        }
        if let Some(circuit) = self.models.get_mut(place.model) {
            circuit.begin(0, order, &at.models);
        }
        if let Some(circuit) = self.regions.get_mut(place.region) {
            circuit.begin(0, order, &at.regions);
        }
        Ok(Pass {
            order,
            worker: place.worker,
            epoch: place.epoch,
            model: place.model.clone(),
            region: place.region.clone(),
        })
    }

    /// The first piece of its answer came.
    pub fn first_piece(&mut self, pass: &Pass, now_ms: u64) {
        let settings = self.settings;
        let at = Moments::new(&settings, self.next, now_ms);
        if let Some(circuit) = self.workers.get_mut(&pass.worker) {
            circuit.first_piece(pass.order, &at.workers);
        }
        if let Some(circuit) = self.models.get_mut(&pass.model) {
            circuit.first_piece(pass.order, &at.models);
        }
        if let Some(circuit) = self.regions.get_mut(&pass.region) {
            circuit.first_piece(pass.order, &at.regions);
        }
    }

    /// What became of it, and which breakers opened or closed for that.
    pub fn end(
        &mut self,
        pass: Pass,
        outcome: Outcome,
        now_ms: u64,
        rng: &mut impl Rng,
    ) -> Vec<Change> {
        let settings = self.settings;
        let at = Moments::new(&settings, self.next, now_ms);
        self.turn += 1;
        let ended = Ended {
            order: pass.order,
            worker: pass.worker,
            outcome,
        };
        let mut told = Told::new(ended, self.turn, rng);
        told.tell(&mut self.workers, pass.worker, pass.epoch, &at.workers);
        told.tell(&mut self.models, pass.model, 0, &at.models);
        told.tell(&mut self.regions, pass.region, 0, &at.regions);
        told.changes
    }
}

/// The moment, for each kind of breaker.
#[derive(Clone, Copy)]
struct Moments<'a> {
    workers: Moment<'a>,
    models: Moment<'a>,
    regions: Moment<'a>,
}

impl<'a> Moments<'a> {
    fn new(settings: &'a BreakerSettings, next: u64, now_ms: u64) -> Self {
        let at = |threshold| Moment {
            settings,
            threshold,
            now_ms,
            next,
        };
        Self {
            workers: at(settings.of_workers()),
            models: at(settings.of_models()),
            regions: at(settings.of_regions()),
        }
    }
}

/// An outcome on its way from the narrowest breaker to the widest.
struct Told<'a, R> {
    ended: Ended,
    turn: u64,
    rng: &'a mut R,
    changes: Vec<Change>,
}

impl<'a, R: Rng> Told<'a, R> {
    fn new(ended: Ended, turn: u64, rng: &'a mut R) -> Self {
        Self {
            ended,
            turn,
            rng,
            changes: Vec::new(),
        }
    }

    fn tell<K>(&mut self, shelf: &mut Shelf<K>, key: K, epoch: u64, at: &Moment<'_>)
    where
        K: Clone + Eq + Hash + Into<Subject>,
    {
        let counts = match self.ended.outcome {
            Outcome::Fault => true,
            // Of many workers, how many succeeded before the first fault matters.
            Outcome::Success => at.threshold.workers > 1,
            Outcome::Neutral => false,
        };
        let circuit = if counts {
            Some(shelf.counting(&key, epoch, self.turn, at))
        } else {
            shelf.get_mut(&key)
        };
        let Some(circuit) = circuit else { return };
        match circuit.end(&self.ended, at, self.rng) {
            // It failed along with what opened meanwhile: the wider ones only take its place back.
            Taken::Late => self.ended.outcome = Outcome::Neutral,
            Taken::Counted => {}
            Taken::Turned => self.changes.push(Change {
                subject: key.into(),
                to: circuit.state(0, at),
            }),
        }
    }
}

#[cfg(test)]
#[path = "breaker/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "breaker/simulated.rs"]
mod simulated;
