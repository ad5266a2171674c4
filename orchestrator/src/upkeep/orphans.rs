//! Open jobs that nobody runs. One whose owner is lost comes to one of those that live, and waits there
//! for whoever submitted it; one that nobody comes for is ended, and counted. (RSV-4, FED-1)

use crate::dispatch::open::OpenJobs;
use crate::job::Step;
use crate::store::{Grounds, Holder, Lease, MetadataStore, OpenJob, StoreError, TakeOver};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::infer::Usage;
use tether_wire::{CorrelationId, NodeId};

/// How long a job without a run waits for somebody who comes for it.
pub(super) const GRACE_MS: u64 = 30_000;
/// For how long one is held that was taken over without anybody who came for it.
const LEASE_MS: u64 = 4 * GRACE_MS;

/// Who looks after them.
pub(super) struct Orphans<'a> {
    pub(super) store: &'a dyn MetadataStore,
    /// Whether it may be believed about who is lost.
    pub(super) is_steady: bool,
    /// This orchestrator.
    pub(super) id: NodeId,
    /// Jobs that are run here, or whose end is to be recorded.
    pub(super) held: &'a OpenJobs,
    pub(super) metrics: &'a OrchestratorMetrics,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LookedAfter {
    pub(super) taken_over: usize,
    pub(super) ended: usize,
}

impl Orphans<'_> {
    /// Looks at so many open jobs at most. Who did something with one meanwhile keeps it.
    pub(super) async fn look_after(
        &self,
        limit: u32,
        now_ms: u64,
    ) -> Result<LookedAfter, StoreError> {
        let mut done = LookedAfter::default();
        let live = self.store.live(now_ms).await?;
        for open in self.store.open_jobs(self.id, limit, now_ms).await? {
            let OpenJob {
                holder, updated_ms, ..
            } = open;
            // After the store was read: a job is held from before its reservation to after its end.
            if self.held.contains(&holder.job) {
                continue;
            }
            if holder.owner != self.id {
                if self.is_steady
                    && heir(&holder.job, &live) == Some(self.id)
                    && self.take_over(holder, now_ms).await?
                {
                    done.taken_over += 1;
                }
            } else if now_ms > updated_ms.saturating_add(GRACE_MS)
                && self.end(holder, now_ms).await?
            {
                done.ended += 1;
            }
        }
        Ok(done)
    }

    async fn take_over(&self, from: Holder, now_ms: u64) -> Result<bool, StoreError> {
        let order = TakeOver {
            from,
            by: self.id,
            grounds: Grounds::LeaseOver,
            model: None,
            lease_until_ms: now_ms.saturating_add(LEASE_MS),
            now_ms,
        };
        let taken = was_taken(self.store.take_over(order).await)?;
        if taken {
            tracing::warn!(job = %from.job, owner = %from.owner, "the job of a lost orchestrator");
            self.metrics.taken_over(Grounds::LeaseOver.as_str());
        }
        Ok(taken)
    }

    async fn end(&self, holder: Holder, now_ms: u64) -> Result<bool, StoreError> {
        let step = Step::Failed {
            error: "unavailable: its orchestrator was lost, and nobody came for it".to_owned(),
            usage: Usage::default(),
            letter: None,
        };
        let ended = was_taken(self.store.step(holder, step, now_ms).await)?;
        if ended {
            tracing::warn!(job = %holder.job, "nobody came for this job");
            self.metrics.abandoned();
        }
        Ok(ended)
    }
}

/// Which of those that live has the job of one that does not: the same by everybody's reckoning, so
/// that all need not try.
fn heir(job: &CorrelationId, live: &[Lease]) -> Option<NodeId> {
    let ids = live.iter().map(|lease| lease.orchestrator);
    ids.min_by_key(|id| job.rank(id))
}

/// Whether it was done, or somebody else was first.
fn was_taken<T>(result: Result<T, StoreError>) -> Result<bool, StoreError> {
    match result {
        Ok(_) => Ok(true),
        Err(StoreError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "orphans/tests.rs"]
mod tests;
