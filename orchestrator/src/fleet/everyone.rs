//! A fleet without presence: views and groups as the roster makes them, put in by hand. For tests and
//! benchmarks of placement.

use super::candidate::Found;
use super::index::Index;
use super::merit::Merits;
use super::roll::Roll;
use super::snapshot::Snapshot;
use super::worker::{Live, Offering, WorkerView};
use crate::fleet::offerings::Offerings;
use crate::score::Weights;
use crate::warmth::Warm;
use std::sync::Arc;
use tether_wire::beat::NodeState;
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::{Beat, Digest, ModelRef, NodeId, Region, Tier};

/// Workers that were never heard.
#[derive(Debug)]
pub(crate) struct Everyone {
    views: Roll,
    index: Arc<Index>,
    offerings: Offerings,
    merits: Merits,
}

impl Everyone {
    /// The boot epoch of each.
    pub(crate) const EPOCH: u64 = 1;

    pub(crate) fn new(weights: Weights, seed: u64) -> Self {
        Self {
            views: Roll::default(),
            index: Arc::default(),
            offerings: Offerings::default(),
            merits: Merits { weights, seed },
        }
    }

    /// A worker comes, trusted and idle.
    pub(crate) fn enter(
        &mut self,
        id: NodeId,
        region: &Region,
        models: &[&(ModelRef, Digest)],
        slots: u32,
    ) {
        let offer = |(model, digest): &(ModelRef, Digest)| ModelOffer {
            model: model.clone(),
            digest: *digest,
            warm: true,
            context_tokens: 8_192,
            adapters: Vec::new(),
            numerics_class: "mistralrs-0.8.1/x86-64-v3/q8_0".into(),
        };
        let offering = self.offerings.share(Offering {
            region: region.clone(),
            card: WorkerCard {
                gpu_class: "rtx-4090".into(),
                vram_gb: 24,
                accelerators: 1,
                capacity: slots,
                models: models.iter().map(|it| offer(it)).collect(),
                faults: Vec::new(),
                price_per_1k_micro: 100,
                tier: Tier::Trusted,
                engine: "mistralrs 0.8.1".into(),
            },
        });
        let view = Arc::new(WorkerView {
            id,
            offering,
            live: Arc::new(Live::default()),
            tier: Tier::Trusted,
            state: NodeState::Serving,
        });
        view.live.beat(&beat(0), 0);
        self.views.put(view.clone());
        Arc::make_mut(&mut self.index).enter(&view);
    }

    /// A beat of it says that so many requests run or wait there.
    pub(crate) fn says(&self, id: &NodeId, load: u32, now_ms: u64) {
        if let Some(view) = self.views.get(id) {
            view.live.beat(&beat(load), now_ms);
        }
    }

    /// Ranks the groups that are due, as the keeper does, and says when to come again.
    pub(crate) fn rank(&mut self, now_ms: u64) -> u64 {
        let (due, again_ms) = self.index.due(now_ms);
        self.merits.turn();
        Arc::make_mut(&mut self.index).rank(&due, &self.merits, now_ms);
        again_ms
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            workers: self.views.clone(),
            met: true,
            index: self.index.clone(),
            peers: Arc::default(),
        }
    }
}

fn beat(load: u32) -> Beat {
    Beat {
        epoch: Everyone::EPOCH,
        seq: 0,
        nonce: [0; 16],
        issued_ms: 0,
        state: NodeState::Serving,
        card: Digest([0; 32]),
        queue_depth: 0,
        in_flight: load,
        tokens_per_s: 0.0,
        first_token_ms: 120,
        vitals: None,
    }
}

impl Snapshot {
    /// All who serve an artifact.
    pub(crate) fn everyone(&self, model: (&ModelRef, &Digest), warm: &Warm) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        self.index.find_all(model.0, model.1, &mut found);
        self.add_warm(model, None, warm, &mut found);
        found
    }
}
