//! What the store needs beside requests: ends that could not be recorded are recorded once it works
//! again, jobs that nobody runs are looked after, what was kept for its time is forgotten. (RSV-4)

mod orphans;

use crate::clock;
use crate::dispatch::open::{Held, OpenJobs};
use crate::job::Step;
use crate::lease::Steady;
use crate::store::{Holder, MetadataStore, StoreError, StoreFuture};
use orphans::Orphans;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Ends that wait to be recorded at most, and as many on their way here. Those beyond are released
/// as failed later, without their counts.
pub(crate) const MAX_UNRECORDED: usize = 4_096;
/// How often old jobs are forgotten, and those that nobody runs are looked after.
const UPKEEP: Duration = Duration::from_secs(10);
/// Jobs that are forgotten or released in one go at most: the store serves others in between.
const BATCH: u32 = 1_000;
/// First pause before ends are recorded again; it doubles while the store fails.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// The end of a job that is not on the disk. The job stays held, so that it is not released with
/// less than what is known here.
#[derive(Debug)]
pub(crate) struct UnrecordedEnd {
    pub(crate) holder: Holder,
    pub(crate) step: Step,
    #[expect(dead_code, reason = "held while this waits, never looked at")]
    pub(crate) held: Held,
}

/// What upkeep works on.
pub(crate) struct Upkeep {
    pub(crate) store: Arc<dyn MetadataStore>,
    pub(crate) steady: Steady,
    pub(crate) id: NodeId,
    pub(crate) open: OpenJobs,
    pub(crate) max_open: usize,
    pub(crate) unrecorded: mpsc::Receiver<UnrecordedEnd>,
    pub(crate) metrics: Arc<OrchestratorMetrics>,
}

impl Upkeep {
    /// Works until `stop`, and then tries once more to record what waits.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut waiting = VecDeque::new();
        let mut pause = RETRY_MIN;
        let mut retry_at = Instant::now();
        let mut round_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    while let Ok(end) = self.unrecorded.try_recv() {
                        waiting.push_back(end);
                    }
                    self.record(&mut waiting).await;
                    return;
                }
                Some(end) = self.unrecorded.recv(), if waiting.len() < MAX_UNRECORDED => {
                    if waiting.is_empty() {
                        retry_at = Instant::now() + pause;
                    }
                    waiting.push_back(end);
                }
                () = sleep_until(retry_at), if !waiting.is_empty() => {
                    pause = if self.record(&mut waiting).await {
                        RETRY_MIN
                    } else {
                        longer(pause)
                    };
                    retry_at = Instant::now() + pause;
                }
                () = sleep_until(round_at) => {
                    if let Err(error) = self.round(&stop).await {
                        tracing::error!(%error, "upkeep of the store failed");
                    }
                    round_at = Instant::now() + UPKEEP;
                }
            }
        }
    }

    async fn record(&self, waiting: &mut VecDeque<UnrecordedEnd>) -> bool {
        let step = |holder, step| self.store.step(holder, step, clock::now().unix_ms);
        record(step, waiting).await
    }

    fn orphans(&self) -> Orphans<'_> {
        Orphans {
            store: self.store.as_ref(),
            is_steady: self.steady.is_steady(clock::now().mono_ms),
            id: self.id,
            held: &self.open,
            metrics: &self.metrics,
        }
    }

    async fn round(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let now_ms = clock::now().unix_ms;
        // What is held here cannot hide what is not, however much it is.
        let held = self.max_open.saturating_add(3 * MAX_UNRECORDED);
        let limit = BATCH.saturating_add(u32::try_from(held).unwrap_or(u32::MAX));
        self.orphans().look_after(limit, now_ms).await?;
        while !stop.is_cancelled() {
            let pruned = self.store.prune(now_ms, BATCH).await?;
            if !pruned.may_be_more(BATCH) {
                break;
            }
        }
        Ok(())
    }
}

/// The next pause while the store fails.
fn longer(pause: Duration) -> Duration {
    (2 * pause).min(RETRY_MAX)
}

/// Records what waits, in order, and says whether nothing is left.
async fn record<'a>(
    take: impl Fn(Holder, Step) -> StoreFuture<'a, ()>,
    waiting: &mut VecDeque<UnrecordedEnd>,
) -> bool {
    while let Some(end) = waiting.front() {
        let job = end.holder.job;
        match take(end.holder, end.step.clone()).await {
            Ok(()) => tracing::info!(%job, "the end of a job is recorded late"),
            // It ended otherwise, or was on the disk after all.
            Err(error @ StoreError::Refused { .. }) => tracing::warn!(%error, "a late end"),
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, waiting = waiting.len(), "ends of jobs wait for the store");
                return false;
            }
            // What is wrong with one record stays wrong: those behind it do not wait for it.
            Err(error) => tracing::error!(%job, %error, "the end of a job is lost"),
        }
        waiting.pop_front();
    }
    true
}

#[cfg(test)]
#[path = "upkeep/tests.rs"]
mod tests;
