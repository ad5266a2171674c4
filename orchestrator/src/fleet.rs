//! The fleet as placement reads it: an immutable snapshot, replaced whole. (FLT-1, FLT-2)
//!
//! [`Roster`] is the writer's side and belongs to one task, [`keeper`]; [`Snapshot`] is the
//! readers' side, reached without a lock. The one thing that changes inside a snapshot is the
//! count of what this orchestrator itself has running at a worker, which is exact at any time.

pub mod keeper;

use crate::catalogue::Offered;
use crate::presence::Change;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tether_wire::heartbeat::{ModelOffer, WorkerState};
use tether_wire::{Digest, Heartbeat, ModelName, ModelRef, NodeId, Tier};

/// A worker at one moment.
#[derive(Clone, Debug)]
pub struct WorkerView {
    /// Its last heartbeat.
    pub beat: Arc<Heartbeat>,
    /// How far it is believed, by its grant.
    pub tier: Tier,
    /// When it was heard, on the clock that only goes forward.
    pub heard_mono_ms: u64,
    /// Whether it may be dead.
    pub suspect: bool,
    /// When it may be dialled, on the same clock; 0 is any time.
    pub redial_mono_ms: u64,
    live: Arc<AtomicU32>,
}

impl WorkerView {
    /// Which worker.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.beat.worker
    }

    /// Requests that this orchestrator has running there, exactly and now.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Requests that run or wait there by the best knowledge: what it said last, or what we gave
    /// it since, whichever is more.
    #[must_use]
    pub fn load(&self) -> u32 {
        let said = self.beat.in_flight.saturating_add(self.beat.queue_depth);
        // What waits there is among what we gave: it is not counted twice.
        self.in_flight().max(said)
    }

    /// Counts one more request as running there, until the guard is dropped.
    #[must_use]
    pub fn occupy(&self) -> InFlight {
        self.live.fetch_add(1, Ordering::Relaxed);
        InFlight(self.live.clone())
    }

    /// Whether a request can be given to it without dialling what could not be reached a moment
    /// ago. A link that is up is as good as a heartbeat.
    #[must_use]
    pub fn may_be_asked(&self, is_linked: impl FnOnce() -> bool, now_mono_ms: u64) -> bool {
        now_mono_ms >= self.redial_mono_ms || is_linked()
    }

    /// Why nothing is given to it; nothing when it is routable.
    #[must_use]
    pub fn unroutable(&self) -> Option<String> {
        match self.beat.state {
            WorkerState::Serving if self.beat.models.is_empty() => {
                Some(self.beat.faults.first().map_or_else(
                    || "it offers no model".to_owned(),
                    |fault| {
                        format!(
                            "it offers no model; {} is not served: {}",
                            fault.model, fault.reason
                        )
                    },
                ))
            }
            WorkerState::Serving if self.redial_mono_ms > 0 => Some(
                "suspect: its link broke and was not had again; asked when it links or is heard, \
                 and otherwise tried every few seconds"
                    .to_owned(),
            ),
            WorkerState::Serving if self.suspect => {
                Some("suspect: it did not answer; chosen only when nothing else is left".to_owned())
            }
            WorkerState::Serving => None,
            state => Some(format!("it is {}", state.as_str())),
        }
    }
}

/// One request that runs at a worker; dropping it ends the count, on every path.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicU32>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A worker that serves a model.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The worker.
    pub worker: Arc<WorkerView>,
    offer: usize,
}

impl Candidate {
    /// What it offers.
    #[must_use]
    pub fn offer(&self) -> &ModelOffer {
        &self.worker.beat.models[self.offer]
    }
}

/// The fleet at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    workers: HashMap<NodeId, Arc<WorkerView>>,
    by_model: HashMap<ModelName, BTreeMap<(u32, u32), Vec<Candidate>>>,
}

impl Snapshot {
    /// Workers that serve a model, suspects included.
    #[must_use]
    pub fn candidates(&self, model: &ModelRef) -> &[Candidate] {
        self.by_model
            .get(&model.name)
            .and_then(|versions| versions.get(&model.version.numbers()))
            .map_or(&[], Vec::as_slice)
    }

    /// Each artifact that is offered under each name, whether its workers take requests or not,
    /// and for each one of them, a trusted one first.
    #[must_use]
    pub fn offers(&self) -> Vec<Offered> {
        let mut best: BTreeMap<(&ModelRef, Digest), (bool, Reverse<NodeId>)> = BTreeMap::new();
        for worker in self.workers.values() {
            let this = (worker.tier == Tier::Trusted, Reverse(worker.id()));
            for offer in &worker.beat.models {
                let entry = best.entry((&offer.model, offer.digest)).or_insert(this);
                *entry = this.max(*entry);
            }
        }
        best.into_iter()
            .map(|((model, digest), (trusted, worker))| Offered {
                model: model.clone(),
                digest,
                worker: worker.0,
                trusted,
            })
            .collect()
    }

    /// The model that a tenant means, among those that are served: `NAME@MAJOR.MINOR`, or `NAME`
    /// for its highest version. Those of trusted workers come first.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<&ModelOffer> {
        let trusted = |candidate: &&Candidate| candidate.worker.tier == Tier::Trusted;
        let candidates = if text.contains('@') {
            self.candidates(&text.parse().ok()?)
        } else {
            let versions = self.by_model.get(&ModelName::new(text).ok()?)?;
            (versions.values().rev())
                .find(|candidates| candidates.iter().any(|it| trusted(&it)))
                .or_else(|| versions.values().next_back())?
        };
        let best = candidates.iter().find(trusted).or(candidates.first())?;
        Some(best.offer())
    }

    /// A worker.
    #[must_use]
    pub fn worker(&self, id: &NodeId) -> Option<&Arc<WorkerView>> {
        self.workers.get(id)
    }

    /// All workers.
    pub fn workers(&self) -> impl Iterator<Item = &Arc<WorkerView>> {
        self.workers.values()
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

    /// Workers by state, for the metrics; suspects count as such only.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 6] {
        let mut counts = [
            ("starting", 0),
            ("serving", 0),
            (UNAVAILABLE, 0),
            ("draining", 0),
            ("suspect", 0),
            ("unknown", 0),
        ];
        for worker in self.workers.values() {
            let state = state_name(worker);
            if let Some(count) = counts.iter_mut().find(|(name, _)| *name == state) {
                count.1 += 1;
            }
        }
        counts
    }
}

/// The state of a worker that takes work and has no model for it: `serving` would be untrue.
pub const UNAVAILABLE: &str = "unavailable";

/// The state of a worker as people see it.
#[must_use]
pub fn state_name(worker: &WorkerView) -> &'static str {
    match worker.beat.state {
        _ if worker.suspect => "suspect",
        WorkerState::Serving if worker.beat.models.is_empty() => UNAVAILABLE,
        state => state.as_str(),
    }
}

/// The writer's side.
#[derive(Debug, Default)]
pub struct Roster {
    workers: HashMap<NodeId, Arc<WorkerView>>,
    counts: HashMap<NodeId, Arc<AtomicU32>>,
}

impl Roster {
    /// Takes a change over.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Beat {
                beat,
                tier,
                heard_mono_ms,
            } => {
                let id = beat.worker;
                let view = WorkerView {
                    beat: Arc::from(beat),
                    tier,
                    heard_mono_ms,
                    suspect: false,
                    redial_mono_ms: 0,
                    // One count per worker over all its lives, so that what still runs from the
                    // last one is not forgotten.
                    live: self.counts.entry(id).or_default().clone(),
                };
                self.workers.insert(id, Arc::new(view));
            }
            Change::Suspect(id) => {
                if let Some(view) = self.workers.get_mut(&id) {
                    Arc::make_mut(view).suspect = true;
                }
            }
            Change::Unreachable {
                worker,
                redial_mono_ms,
            } => {
                if let Some(view) = self.workers.get_mut(&worker) {
                    let view = Arc::make_mut(view);
                    view.suspect = true;
                    view.redial_mono_ms = redial_mono_ms;
                }
            }
            Change::Gone(id, _) => {
                self.workers.remove(&id);
                // Nobody else holds the count of a worker that is gone and runs nothing.
                self.counts.retain(|id, count| {
                    self.workers.contains_key(id) || Arc::strong_count(count) > 1
                });
            }
        }
    }

    /// The fleet as it is now, for the readers.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let mut by_model: HashMap<ModelName, BTreeMap<(u32, u32), Vec<Candidate>>> = HashMap::new();
        for worker in self.workers.values() {
            if worker.beat.state != WorkerState::Serving {
                continue;
            }
            for (offer, model) in worker.beat.models.iter().enumerate() {
                by_model
                    .entry(model.model.name.clone())
                    .or_default()
                    .entry(model.model.version.numbers())
                    .or_default()
                    .push(Candidate {
                        worker: worker.clone(),
                        offer,
                    });
            }
        }
        Snapshot {
            workers: self.workers.clone(),
            by_model,
        }
    }
}

#[cfg(test)]
#[path = "fleet/tests.rs"]
mod tests;
