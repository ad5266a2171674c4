//! The readers' side: the fleet at one moment.

use super::candidate::Found;
use super::faulted::named;
use super::index::Index;
use super::roll::Roll;
use super::worker::{SUSPECT, UNAVAILABLE, WorkerView};
use crate::catalogue::Offered;
use rand::Rng;
use std::sync::Arc;
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
    pub(super) index: Arc<Index>,
}

impl Snapshot {
    /// The best who serve an artifact for a request from a region, suspects included, in no order;
    /// of many some, and among those some drawn by chance. No more are looked at however large the
    /// fleet is. Whether one may be asked now is seen when it is looked at. (FLT-2)
    #[must_use]
    pub fn candidates(
        &self,
        model: &ModelRef,
        digest: &Digest,
        region: &Region,
        rng: &mut impl Rng,
    ) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        (self.index).find((model, digest), region, rng, &mut found);
        found
    }

    /// One worker that offers an artifact, whether it is among the best or not.
    #[must_use]
    pub fn candidate(
        &self,
        worker: &NodeId,
        model: &ModelRef,
        digest: &Digest,
    ) -> Option<Found<'_>> {
        let worker = self.workers.get(worker)?;
        let mut offers = worker.card().models.iter();
        let offer = offers.position(|it| it.model == *model && it.digest == *digest)?;
        let offer = u32::try_from(offer).ok()?;
        Some(Found { worker, offer })
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
        let (name, version) = named(text)?;
        self.index.withheld(&name, version)
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

    /// How many workers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}
