//! Workers as an orchestrator sees them, without their keys and messages.

use crate::fleet::{Everyone, Found, InFlight, Snapshot};
use crate::place::{Placed, Query, place};
use crate::placement::Placement;
use crate::warmth::{Home, Warm};
use rand::Rng;
use tether_wire::{Digest, ModelRef, NodeId, Region};

/// What there is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Workers.
    pub workers: usize,
    /// Artifacts. Each worker serves two, or the one that there is.
    pub artifacts: usize,
    /// Regions, each with as many workers.
    pub regions: usize,
    /// Requests that a worker runs at once.
    pub slots: u32,
}

/// A fleet, as one orchestrator sees it.
#[derive(Debug)]
pub struct Crowd {
    shape: Shape,
    orchestrators: u32,
    everyone: Everyone,
    models: Vec<(ModelRef, Digest)>,
    regions: Vec<Region>,
    ids: Vec<NodeId>,
}

impl Crowd {
    /// Workers with nothing to do. Orchestrators with other seeds order equals otherwise.
    ///
    /// # Panics
    /// Where there is no worker, artifact or region.
    #[must_use]
    pub fn new(shape: Shape, placement: &Placement, seed: u64) -> Self {
        let models: Vec<(ModelRef, Digest)> = (0..shape.artifacts)
            .map(|n| {
                let model: ModelRef = (format!("model-of-some-size-{n}@1.0").parse())
                    .expect("letters, digits and dashes");
                let digest = Digest::of(model.to_string().as_bytes());
                (model, digest)
            })
            .collect();
        let regions: Vec<Region> = (0..shape.regions)
            .map(|n| Region::new(format!("region-{n}")).expect("letters, digits and dashes"))
            .collect();
        let mut everyone = Everyone::new(placement.weights, seed);
        let mut ids = Vec::with_capacity(shape.workers);
        for n in 0..shape.workers {
            let id = NodeId(Digest::of(format!("worker {n}").as_bytes()).0);
            let offers = [0, 1].map(|next| &models[(n / shape.regions + next) % models.len()]);
            let offers = if models.len() == 1 {
                &offers[..1]
            } else {
                &offers[..]
            };
            everyone.enter(id, &regions[n % shape.regions], offers, shape.slots);
            ids.push(id);
        }
        Self {
            shape,
            orchestrators: 1,
            everyone,
            models,
            regions,
            ids,
        }
    }

    /// The same, where so many orchestrators place requests.
    #[must_use]
    pub fn among(mut self, orchestrators: u32) -> Self {
        self.orchestrators = orchestrators;
        self
    }

    /// What there is.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Worker `n`.
    #[must_use]
    pub fn id(&self, n: usize) -> NodeId {
        self.ids[n]
    }

    /// Which one a worker is.
    #[must_use]
    pub fn number(&self, id: &NodeId) -> Option<usize> {
        self.ids.iter().position(|it| it == id)
    }

    /// The artifact `n`.
    #[must_use]
    pub fn artifact(&self, n: usize) -> Digest {
        self.models[n % self.models.len()].1
    }

    /// A beat of worker `n` says at a time that so many requests run and wait there.
    pub fn says(&self, n: usize, load: u32, now_ms: u64) {
        self.everyone.says(&self.ids[n], load, now_ms);
    }

    /// This orchestrator gives worker `n` a request, until the guard is dropped.
    #[must_use]
    pub fn gives(&self, n: usize) -> Option<InFlight> {
        let snapshot = self.everyone.snapshot();
        snapshot.worker(&self.ids[n]).map(|it| it.occupy())
    }

    /// The run of a worker.
    #[must_use]
    pub fn home(&self, worker: NodeId) -> Home {
        Home {
            worker,
            epoch: Everyone::EPOCH,
        }
    }

    /// The keeper ranks all groups that are due at a time.
    pub fn rank(&mut self, now_ms: u64) {
        self.everyone.rank(now_ms);
    }

    /// The keeper ranks every group, in as many turns as it takes, from a time on; says when it was
    /// done.
    pub fn rank_all(&mut self, mut now_ms: u64) -> u64 {
        // So many workers are ranked in a millisecond.
        let turns = self.shape.workers * 2 / 4_000 + 2;
        for _ in 0..turns {
            now_ms = self.everyone.rank(now_ms);
        }
        now_ms
    }

    /// The fleet at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.everyone.snapshot()
    }

    /// Places a request for artifact `n` from a region at a time, as dispatch does.
    pub fn place(
        &self,
        fleet: &Snapshot,
        (artifact, region, now_ms): (usize, usize, u64),
        warm: &Warm,
        placement: &Placement,
        rng: &mut impl Rng,
    ) -> Placed {
        let (model, digest) = &self.models[artifact % self.models.len()];
        let region = &self.regions[region % self.regions.len()];
        let found = fleet.candidates((model, digest), region, warm, rng);
        place(found, &self.query(region, now_ms), placement, rng)
    }

    /// The same by a look at everybody who serves the artifact.
    pub fn place_among_all(
        &self,
        fleet: &Snapshot,
        (artifact, region, now_ms): (usize, usize, u64),
        warm: &Warm,
        placement: &Placement,
        rng: &mut impl Rng,
    ) -> Placed {
        let (model, digest) = &self.models[artifact % self.models.len()];
        let region = &self.regions[region % self.regions.len()];
        let found: Vec<Found<'_>> = fleet.everyone((model, digest), warm);
        place(found, &self.query(region, now_ms), placement, rng)
    }

    fn query<'a>(&self, region: &'a Region, now_mono_ms: u64) -> Query<'a> {
        Query {
            region,
            gpu_class: None,
            numerics_class: None,
            orchestrators: self.orchestrators,
            now_mono_ms,
            left_at: None,
        }
    }
}
