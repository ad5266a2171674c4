//! Whether anybody is in a fleet that should be empty.

use crate::mesh::{Admin, Metrics};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Workers in the fleet, in whatever state.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of workers"
)]
pub(super) fn workers(metrics: &Metrics) -> usize {
    // Those that are counted as unavailable are counted there alone.
    metrics.sum("tether_orchestrator_fleet_workers") as usize
}

/// Looks until it is asked what it saw.
pub(super) struct Ghosts {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<(usize, usize)>>,
}

impl Ghosts {
    pub(super) fn watch(admin: Admin) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut most, mut looks) = (0, 0);
            while !stopped.is_cancelled() {
                most = most.max(workers(&admin.metrics().await?));
                looks += 1;
                tokio::time::sleep(LOOK).await;
            }
            // What the operator sees at the end, beside the counts.
            Ok((most.max(admin.fleet().await?.len()), looks))
        });
        Self { stop, task }
    }

    /// The most workers that were there at once, and the number of looks.
    pub(super) async fn end(self) -> anyhow::Result<(usize, usize)> {
        self.stop.cancel();
        self.task.await?
    }
}
