//! Workers that are alike to a request: one artifact, one region, one tier.
//!
//! The best of a group are kept ready, so that placement looks at some dozens of workers however
//! many there are. They are ranked anew from time to time, and at once where those that are ready
//! became few; in between placement also draws some of the others by chance, and sees for itself
//! what each one has to do now.

use super::merit::{Merit, Merits};
use super::roll::Roll;
use super::worker::{Candidate, Found, WorkerView};
use rand::Rng;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, ModelRef, NodeId, Region, Tier};

/// Workers of a group that are kept ready.
pub(crate) const TOP: usize = 64;
/// Of those that are ready, how many are looked at for each request: the best, and as many of the
/// others. All of them only where none of those is well.
const BEST: usize = 16;
/// Workers that are drawn by chance beside those that are ready.
const SAMPLES: usize = 8;
/// Up to this size a group is ranked at once when few are ready: some hundred microseconds.
const SMALL: usize = 1_024;

/// What the workers of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) model: ModelRef,
    pub(crate) digest: Digest,
    pub(crate) tier: Tier,
    pub(crate) region: Region,
}

impl Kind {
    pub(crate) fn of(worker: &WorkerView, offer: &ModelOffer) -> Self {
        Self {
            model: offer.model.clone(),
            digest: offer.digest,
            tier: worker.tier,
            region: worker.region().clone(),
        }
    }

    fn found<'a>(&self, worker: &'a Arc<WorkerView>) -> Option<Found<'a>> {
        let offer = worker.offering.position(&self.model, &self.digest)?;
        Some(Found { worker, offer })
    }
}

/// A group of workers.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    kind: Arc<Kind>,
    /// Those that take work.
    serving: Roll,
    /// Those that offer the artifact and take no work.
    others: Roll,
    /// Those that are ready; after a ranking the best first.
    top: Arc<Vec<Candidate>>,
    /// When it was ranked; 0 is to be ranked soon.
    ranked_ms: u64,
}

impl Group {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind: Arc::new(kind),
            serving: Roll::default(),
            others: Roll::default(),
            top: Arc::default(),
            ranked_ms: 0,
        }
    }

    pub(crate) fn kind(&self) -> &Arc<Kind> {
        &self.kind
    }

    pub(crate) fn serving(&self) -> &Roll {
        &self.serving
    }

    /// Some of the best, at most so many.
    pub(crate) fn best(&self, most: usize) -> impl Iterator<Item = Found<'_>> + Clone {
        self.top.iter().take(most).map(Candidate::found)
    }

    /// Those to look at for a request, each once, in no order: the best, others that are ready, and
    /// some drawn by chance.
    pub(crate) fn find<'a>(&'a self, rng: &mut impl Rng, found: &mut Vec<Found<'a>>) {
        let (best, rest) = self.top.split_at(self.top.len().min(BEST));
        found.extend(best.iter().map(Candidate::found));
        let first = if rest.len() > BEST {
            rng.random_range(0..rest.len())
        } else {
            0
        };
        let turns = rest.iter().cycle().skip(first).take(rest.len());
        found.extend(turns.clone().take(BEST).map(Candidate::found));
        if self.serving.len() > self.top.len() {
            let drawn = found.len();
            for _ in 0..SAMPLES {
                let Some(worker) = self.serving.sample(rng) else {
                    break;
                };
                let is_it = |it: &Arc<WorkerView>| Arc::ptr_eq(it, worker);
                let is_ready = self.top.iter().any(|it| is_it(&it.worker));
                if !is_ready && !found[drawn..].iter().any(|it| is_it(it.worker)) {
                    found.extend(self.kind.found(worker));
                }
            }
        }
        let is_well = |it: &Found<'_>| !it.worker.is_suspect() && !it.worker.is_withdrawn();
        if rest.len() > BEST && !found.iter().any(is_well) {
            found.extend(turns.skip(BEST).map(Candidate::found));
        }
    }

    /// One that offers the artifact, whether it takes work or not.
    pub(crate) fn any(&self) -> Option<&Arc<WorkerView>> {
        self.serving.iter().next().or(self.others.iter().next())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.serving.is_empty() && self.others.is_empty()
    }

    /// Adds a worker, or replaces the view of it.
    pub(crate) fn put(&mut self, worker: &Arc<WorkerView>, serves: bool, merits: &Merits) {
        if !serves {
            self.forget(&worker.id, merits);
            self.others.put(worker.clone());
            return;
        }
        self.others.remove(&worker.id);
        self.serving.put(worker.clone());
        let Some(found) = self.kind.found(worker) else {
            return;
        };
        let ready = self.top.iter().position(|it| it.worker.id == worker.id);
        if ready.is_none() && self.top.len() >= TOP {
            return;
        }
        let top = Arc::make_mut(&mut self.top);
        match ready {
            Some(at) => top[at] = found.to_owned(),
            None => top.push(found.to_owned()),
        }
    }

    pub(crate) fn remove(&mut self, id: &NodeId, merits: &Merits) {
        self.others.remove(id);
        self.forget(id, merits);
    }

    fn forget(&mut self, id: &NodeId, merits: &Merits) {
        if self.serving.remove(id).is_none() {
            return;
        }
        if let Some(at) = self.top.iter().position(|it| it.worker.id == *id) {
            Arc::make_mut(&mut self.top).remove(at);
        }
        // All of a group that is small enough are ready.
        let wanted = match self.serving.len() {
            all @ ..=TOP => all,
            _ => TOP / 2,
        };
        let few = self.top.len() < wanted;
        if few && self.serving.len() <= SMALL {
            self.rank(merits);
        } else if few {
            self.ranked_ms = 0;
        }
    }

    /// When it was ranked, where that makes a difference.
    pub(crate) fn ranked_ms(&self) -> Option<u64> {
        (self.serving.len() > 2 * BEST).then_some(self.ranked_ms)
    }

    /// Chooses the best anew.
    pub(crate) fn rank_again(&mut self, merits: &Merits, now_ms: u64) {
        self.rank(merits);
        self.ranked_ms = now_ms;
    }

    fn rank(&mut self, merits: &Merits) {
        // The worst of the best so far is on top of the heap.
        let mut best: BinaryHeap<Rated<'_>> = BinaryHeap::with_capacity(TOP);
        for found in (self.serving.iter()).filter_map(|worker| self.kind.found(worker)) {
            let merit = merits.of(found.worker, found.offer());
            let rated = Rated { merit, found };
            if best.len() < TOP {
                best.push(rated);
            } else if let Some(mut worst) = best.peek_mut()
                && rated < *worst
            {
                *worst = rated;
            }
        }
        let best = best.into_sorted_vec();
        self.top = Arc::new(best.iter().map(|it| it.found.to_owned()).collect());
    }
}

/// A worker in a heap, where its merit decides.
struct Rated<'a> {
    merit: Merit,
    found: Found<'a>,
}

impl Ord for Rated<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let ids = || self.found.worker.id.cmp(&other.found.worker.id);
        self.merit.cmp(&other.merit).then_with(ids)
    }
}
impl PartialOrd for Rated<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Rated<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Rated<'_> {}
