//! What is shown of one model, by whoever keeps it.

use super::{Found, ModelState, ModelStatus, find, loaded};
use std::sync::Arc;
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::Digest;
use tokio::sync::watch;

/// A model's place in the list of all. Cheap to clone.
#[derive(Clone)]
pub(super) struct Entry {
    index: usize,
    all: Arc<watch::Sender<Vec<ModelStatus>>>,
    metrics: Arc<WorkerMetrics>,
}

impl Entry {
    pub(super) fn new(
        index: usize,
        all: Arc<watch::Sender<Vec<ModelStatus>>>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        Self {
            index,
            all,
            metrics,
        }
    }

    /// Its place.
    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// What it is called in the configuration.
    pub(super) fn configured(&self) -> String {
        self.all.borrow()[self.index].configured.clone()
    }

    /// Whether somebody keeps this artifact already.
    pub(super) fn find(&self, digest: &Digest) -> Found {
        find(&self.all.borrow(), digest)
    }

    /// It is not served; counted by its code.
    pub(super) fn fault(&self, digest: Option<Digest>, code: &'static str, reason: String) {
        self.metrics.model_fault(code);
        self.set(ModelState::Faulted {
            digest,
            code,
            reason,
        });
    }

    pub(super) fn set(&self, state: ModelState) {
        self.change(|status| status.state = state);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut ModelStatus)) {
        self.all
            .send_modify(|models| change(&mut models[self.index]));
        let loaded = loaded(&self.all.borrow());
        self.metrics.set_models_loaded(loaded);
    }
}
