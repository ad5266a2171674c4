//! The best of many workers. Pure.

use super::candidate::{Candidate, Found};
use super::merit::Merit;
use super::worker::WorkerView;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

/// The best of those that were offered so far, a bounded number.
pub(super) struct Best<'a> {
    /// The worst of them is on top.
    heap: BinaryHeap<Rated<'a>>,
    most: usize,
}

impl<'a> Best<'a> {
    pub(super) fn of(most: usize) -> Self {
        Self {
            heap: BinaryHeap::with_capacity(most),
            most,
        }
    }

    pub(super) fn take(&mut self, rated: Rated<'a>) {
        if self.heap.len() < self.most {
            self.heap.push(rated);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && rated < *worst
        {
            *worst = rated;
        }
    }

    /// Whether this view is among them.
    pub(super) fn has(&self, worker: &Arc<WorkerView>) -> bool {
        let mut all = self.heap.iter();
        all.any(|it| Arc::ptr_eq(it.found.worker, worker))
    }

    /// The best first.
    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        let best = self.heap.into_sorted_vec();
        best.iter().map(|it| it.found.to_owned()).collect()
    }
}

/// A worker in a heap, where its merit decides.
#[derive(Clone, Copy)]
pub(super) struct Rated<'a> {
    pub(super) merit: Merit,
    pub(super) found: Found<'a>,
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
