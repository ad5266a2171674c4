//! The readers' side: the fleet at one moment.

use super::candidate::Found;
use super::classes::Class;
use super::faulted::named;
use super::index::{Index, MAX_LOOKED};
use super::roll::Roll;
use super::worker::{SUSPECT, UNAVAILABLE, WorkerView};
use crate::catalogue::Offered;
use crate::warmth::{Home, MAX_HOMES, Warm};
use rand::Rng;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tether_wire::beat::NodeState;
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, ModelRef, NodeId, Region};

/// States of workers, as people see them.
pub const STATES: [&str; 6] = [
    "starting",
    "serving",
    UNAVAILABLE,
    "draining",
    SUSPECT,
    "unknown",
];

/// The fleet at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) workers: Roll,
    /// Whether there ever was one.
    pub(super) met: bool,
    pub(super) index: Arc<Index>,
    /// Other orchestrators that live, now.
    pub(super) peers: Arc<AtomicU32>,
}

impl Snapshot {
    /// The best who serve an artifact for a request from a region, suspects included, in no order;
    /// of many some, and among those some drawn by chance. No more are looked at however large the
    /// fleet is; and those that were sent the prompt's beginning before. Whether one may be asked now
    /// is seen when it is looked at. (FLT-2)
    #[must_use]
    pub fn candidates(
        &self,
        model: (&ModelRef, &Digest),
        region: &Region,
        warm: &Warm,
        rng: &mut impl Rng,
    ) -> Vec<Found<'_>> {
        self.candidates_within(model, region, (None, Class::Any), warm, rng)
    }

    /// The same of these regions alone, for a request that may go to no other, and with those of a class
    /// among them, where there are some.
    #[must_use]
    pub fn candidates_within(
        &self,
        model: (&ModelRef, &Digest),
        region: &Region,
        (within, class): (Option<&BTreeSet<Region>>, Class<'_>),
        warm: &Warm,
        rng: &mut impl Rng,
    ) -> Vec<Found<'_>> {
        let mut found = Vec::with_capacity(MAX_LOOKED + MAX_HOMES);
        (self.index).find(model, region, within, class, rng, &mut found);
        self.add_warm(model, within, warm, &mut found);
        // What is read of each lies apart from the others: asked for one after the other, without
        // waiting, it comes together.
        for it in &found {
            it.worker.fetch();
        }
        found
    }

    /// Adds those that were sent the prompt's beginning, or marks them where they are found already.
    pub(super) fn add_warm<'a>(
        &'a self,
        model: (&ModelRef, &Digest),
        within: Option<&BTreeSet<Region>>,
        warm: &Warm,
        found: &mut Vec<Found<'a>>,
    ) {
        for mut it in warm.homes().filter_map(|home| self.home(home, model)) {
            it.prefix_blocks = warm.blocks;
            let is_it = |known: &&mut Found<'_>| Arc::ptr_eq(known.worker, it.worker);
            if let Some(known) = found.iter_mut().find(is_it) {
                *known = it;
            } else if within.is_none_or(|within| within.contains(it.worker.region())) {
                found.push(it);
            }
        }
    }

    /// The run of a worker that was sent a prompt's beginning, where it is still there and serves.
    fn home(&self, home: &Home, model: (&ModelRef, &Digest)) -> Option<Found<'_>> {
        let found = self.candidate(&home.worker, model)?;
        let worker = found.worker;
        let is_same = worker.state == NodeState::Serving && worker.epoch() == home.epoch;
        is_same.then_some(found)
    }

    /// One worker that offers an artifact, whether it is among the best or not.
    #[must_use]
    pub fn candidate(
        &self,
        worker: &NodeId,
        (model, digest): (&ModelRef, &Digest),
    ) -> Option<Found<'_>> {
        let worker = self.workers.get(worker)?;
        let offer = worker.offering.position(model, digest)?;
        Some(Found::new(worker, offer))
    }

    /// Whether somebody takes requests for an artifact under this name, suspects included.
    #[must_use]
    pub fn serves(&self, model: &ModelRef, digest: &Digest) -> bool {
        self.index.is_served(model, digest)
    }

    /// Whether those who offer what this worker offers are found: not where more is offered than
    /// is kept.
    #[must_use]
    pub fn finds(&self, worker: &WorkerView, offer: &ModelOffer) -> bool {
        self.index.has_group(worker, offer)
    }

    /// Each artifact that is offered under each name, whether its workers take requests or not,
    /// and for each one of them, a trusted one first.
    #[must_use]
    pub fn offers(&self) -> Vec<Offered> {
        self.index.offers()
    }

    /// The model that a tenant means, among those that are served: `NAME@MAJOR.MINOR`, or `NAME`
    /// for its highest version. Those of trusted workers come first.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<&ModelOffer> {
        let (name, version) = named(text)?;
        self.index.named(&name, version)
    }

    /// Whether a live worker names the model that a tenant means and does not serve it now; with
    /// the kind of its fault, where it says one.
    #[must_use]
    pub fn withheld(&self, text: &str) -> Option<Option<&str>> {
        self.withheld_among(text, |_| true)
    }

    /// The same among some models alone.
    #[must_use]
    pub fn withheld_among(
        &self,
        text: &str,
        may: impl Fn(&ModelRef) -> bool,
    ) -> Option<Option<&str>> {
        let (name, version) = named(text)?;
        let may = |(major, minor): (u32, u32)| {
            let model = format!("{name}@{major}.{minor}").parse();
            model.is_ok_and(|model| may(&model))
        };
        self.index.withheld(&name, version, may)
    }

    /// A worker.
    #[must_use]
    pub fn worker(&self, id: &NodeId) -> Option<&Arc<WorkerView>> {
        self.workers.get(id)
    }

    /// All workers.
    pub fn workers(&self) -> impl Iterator<Item = &Arc<WorkerView>> {
        self.workers.iter()
    }

    /// How many orchestrators place requests, this one counted.
    #[must_use]
    pub fn orchestrators(&self) -> u32 {
        self.peers.load(Ordering::Relaxed).saturating_add(1)
    }

    /// How many workers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there ever was a worker since the start.
    #[must_use]
    pub fn has_met_workers(&self) -> bool {
        self.met
    }

    /// Whether somebody may serve this for all that is known: it can be a model, and no worker was met.
    #[must_use]
    pub fn cannot_tell(&self, text: &str) -> bool {
        !self.met && named(text).is_some()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}
