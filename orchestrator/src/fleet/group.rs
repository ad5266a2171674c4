//! Workers that are alike to a request: one artifact, one region, one tier.
//!
//! The best of a group are kept ready, so that placement looks at some dozens of workers however
//! many there are. They are ranked anew from time to time, and at once where those that are ready
//! became few; in between placement also draws some of the others by chance, and sees for itself
//! what each one has to do now.

use super::roll::Roll;
use super::worker::{Candidate, WorkerView};
use std::collections::BinaryHeap;
use std::sync::Arc;
use tether_wire::NodeId;

/// Workers of a group that are kept ready.
pub(crate) const TOP: usize = 64;
/// Up to this size a group is ranked at once when few are ready: some hundred microseconds.
const SMALL: usize = 1_024;
/// A group is ranked once in this time.
pub(crate) const RANK_MS: u64 = 250;
/// Workers that are ranked in a millisecond of time passed: a hundredth of a core.
const PER_MS: usize = 50;

/// A group of workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Those that take work.
    serving: Roll,
    /// Those that offer the artifact and take no work.
    others: Roll,
    top: Arc<Vec<Candidate>>,
    rank_at_ms: u64,
}

/// Orders the members of a group, the best first: suspects last, then by load for each slot, then
/// by a number that another orchestrator, and the next ranking, draws otherwise, so that equals
/// take turns.
fn merit(worker: &WorkerView, seed: u64) -> (bool, u32, u64) {
    let slots = u64::from(worker.card().capacity.max(1));
    let load = u64::from(worker.load()) * 8 / slots;
    let mut first = [0; 8];
    first.copy_from_slice(&worker.id.0[..8]);
    let mut mixed = (u64::from_ne_bytes(first) ^ seed).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 31;
    (
        worker.is_suspect(),
        u32::try_from(load).unwrap_or(u32::MAX),
        mixed.wrapping_mul(0x94d0_49bb_1331_11eb),
    )
}

impl Group {
    pub(crate) fn serving(&self) -> &Roll {
        &self.serving
    }

    /// The best, in no order.
    pub(crate) fn top(&self) -> &[Candidate] {
        &self.top
    }

    /// One that offers the artifact, whether it takes work or not.
    pub(crate) fn any(&self) -> Option<&Arc<WorkerView>> {
        self.serving.iter().next().or(self.others.iter().next())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.serving.is_empty() && self.others.is_empty()
    }

    /// Adds a worker, or replaces the view of it. `place` finds the artifact among what a worker
    /// offers.
    pub(crate) fn put(
        &mut self,
        worker: &Arc<WorkerView>,
        serves: bool,
        place: impl Fn(&WorkerView) -> Option<u32>,
        seed: u64,
    ) {
        if !serves {
            self.forget(&worker.id, place, seed);
            self.others.put(worker.clone());
            return;
        }
        self.others.remove(&worker.id);
        self.serving.put(worker.clone());
        let Some(offer) = place(worker) else { return };
        let ready = self.top.iter().position(|it| it.worker.id == worker.id);
        if ready.is_none() && self.top.len() >= TOP {
            return;
        }
        let top = Arc::make_mut(&mut self.top);
        let worker = worker.clone();
        let candidate = Candidate { worker, offer };
        match ready {
            Some(at) => top[at] = candidate,
            None => top.push(candidate),
        }
    }

    pub(crate) fn remove(
        &mut self,
        id: &NodeId,
        place: impl Fn(&WorkerView) -> Option<u32>,
        seed: u64,
    ) {
        self.others.remove(id);
        self.forget(id, place, seed);
    }

    fn forget(&mut self, id: &NodeId, place: impl Fn(&WorkerView) -> Option<u32>, seed: u64) {
        if self.serving.remove(id).is_none() {
            return;
        }
        if let Some(at) = self.top.iter().position(|it| it.worker.id == *id) {
            Arc::make_mut(&mut self.top).swap_remove(at);
        }
        // All of a group that is small enough are ready.
        let wanted = match self.serving.len() {
            all @ ..=TOP => all,
            _ => TOP / 2,
        };
        let few = self.top.len() < wanted;
        if few && self.serving.len() <= SMALL {
            self.rank(place, seed);
        } else if few {
            self.rank_at_ms = 0;
        }
    }

    /// Whether it is time to choose the best anew.
    pub(crate) fn is_due(&self, now_ms: u64) -> bool {
        self.serving.len() > self.top.len() && now_ms >= self.rank_at_ms
    }

    /// Chooses the best anew, and says when that is due again.
    pub(crate) fn rank_again(
        &mut self,
        place: impl Fn(&WorkerView) -> Option<u32>,
        seed: u64,
        now_ms: u64,
    ) {
        self.rank(place, seed);
        let pause_ms = (self.serving.len() / PER_MS) as u64;
        self.rank_at_ms = now_ms + pause_ms.max(RANK_MS);
    }

    fn rank(&mut self, place: impl Fn(&WorkerView) -> Option<u32>, seed: u64) {
        // The worst of the best so far is on top of the heap.
        let mut best = BinaryHeap::with_capacity(TOP);
        for worker in self.serving.iter() {
            let merit = merit(worker, seed);
            if best.len() < TOP {
                best.push((merit, ById(worker)));
            } else if let Some(mut worst) = best.peek_mut()
                && merit < worst.0
            {
                *worst = (merit, ById(worker));
            }
        }
        let ready = best.into_iter().filter_map(|(_, ById(worker))| {
            Some(Candidate {
                worker: worker.clone(),
                offer: place(worker)?,
            })
        });
        self.top = Arc::new(ready.collect());
    }
}

/// A worker in a heap, where its merit decides.
struct ById<'a>(&'a Arc<WorkerView>);

impl Ord for ById<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}
impl PartialOrd for ById<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for ById<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for ById<'_> {}
