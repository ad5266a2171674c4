//! Meeting the worker that makes an answer still, for an orchestrator that is lost. [T-INF-15]
//!
//! An orchestrator that was just restarted knows a worker only once that links with it, or its next
//! beat comes by a peer. A gateway names the one that it needs, which has the answer: it is dialled.

use super::Dispatcher;
use std::time::Duration;
use tether_wire::{NodeId, Role};

/// How long that may take: an answer is made anew elsewhere in seconds at most.
const MEET_TIMEOUT: Duration = Duration::from_millis(300);

impl Dispatcher {
    /// Waits a little until a worker is known here that a caller says has its answer.
    pub(super) async fn meet(&self, worker: NodeId) {
        let is_known = || self.fleet.snapshot().worker(&worker).is_some();
        let Some(node) = self.node.get().filter(|_| !is_known()) else {
            return;
        };
        let mut changes = self.fleet.changes();
        let met = async {
            if node.link(worker, Role::Worker).await.is_err() {
                return;
            }
            while !is_known() && changes.changed().await.is_ok() {}
        };
        let met = tokio::time::timeout(MEET_TIMEOUT, met).await;
        tracing::debug!(worker = %worker.short(), is_known = is_known(), in_time = met.is_ok(), "met");
    }
}
