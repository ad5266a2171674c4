//! A step of a job on the disk, also where the store is away for a moment: a database that is restarted
//! must not cost an answer that is made already. (RSV-1)

use super::Dispatcher;
use crate::clock;
use crate::job::Step;
use crate::store::{Holder, StoreError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// First pause before a step is asked for again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(400);

impl Dispatcher {
    /// Takes a step. Each is compare-and-set, so that asking again does it once.
    pub(super) async fn persist(&self, holder: Holder, step: Step) -> Result<(), StoreError> {
        let by = Instant::now() + Duration::from_millis(self.config.store_timeout_ms);
        let mut pause = PAUSE_MIN;
        let mut failed_before = false;
        loop {
            let asked = self.store.step(holder, step.clone(), clock::now().unix_ms);
            let error = match asked.await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let may_be_done = failed_before || !matches!(error, StoreError::Refused { .. });
            if may_be_done && self.is_taken(&holder, &step).await {
                // A connection broke behind the commit.
                return Ok(());
            }
            if !error.may_pass() || self.stop.is_cancelled() || Instant::now() + pause > by {
                return Err(error);
            }
            tracing::warn!(job = %holder.job, %error, "the store is waited for");
            failed_before = true;
            sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// Whether the store has a job of this holder's where the step leads.
    async fn is_taken(&self, holder: &Holder, step: &Step) -> bool {
        let Ok(Some(job)) = self.store.job(holder.job).await else {
            return false;
        };
        let is_there = match step {
            // One that is handed over stays where it is.
            Step::Dispatched { attempt, .. } => job.state.is_open() && job.attempts == *attempt,
            _ => job.state == step.state(),
        };
        is_there && (job.owner, job.fence) == (holder.owner, holder.fence)
    }
}
