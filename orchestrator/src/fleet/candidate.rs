//! Workers as placement gets them: with the place of what is asked for among their models, so that
//! it need not be looked for again.

use super::worker::WorkerView;
use std::sync::Arc;
use tether_wire::card::ModelOffer;

/// A worker that serves a model, as a snapshot lends it.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The worker.
    pub worker: &'a Arc<WorkerView>,
    pub(crate) offer: u32,
    /// Blocks of the prompt's beginning that it was sent before.
    pub(crate) prefix_blocks: u32,
}

impl<'a> Found<'a> {
    /// One of whose offers, by its place among them, is asked for.
    pub(crate) fn new(worker: &'a Arc<WorkerView>, offer: u32) -> Self {
        Self {
            worker,
            offer,
            prefix_blocks: 0,
        }
    }

    /// Whether the same view is one of these.
    pub(crate) fn is_among(&self, others: &[Found<'_>]) -> bool {
        (others.iter()).any(|it| Arc::ptr_eq(it.worker, self.worker))
    }

    /// What it offers.
    #[must_use]
    pub fn offer(&self) -> &'a ModelOffer {
        &self.worker.card().models[self.offer as usize]
    }

    /// To be kept beyond the snapshot.
    #[must_use]
    pub fn to_owned(self) -> Candidate {
        Candidate {
            worker: self.worker.clone(),
            offer: self.offer,
        }
    }
}

/// A worker that serves a model.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The worker.
    pub worker: Arc<WorkerView>,
    pub(crate) offer: u32,
}

impl Candidate {
    /// What it offers.
    #[must_use]
    pub fn offer(&self) -> &ModelOffer {
        self.found().offer()
    }

    pub(crate) fn found(&self) -> Found<'_> {
        Found::new(&self.worker, self.offer)
    }
}

impl AsRef<WorkerView> for Candidate {
    fn as_ref(&self) -> &WorkerView {
        &self.worker
    }
}
