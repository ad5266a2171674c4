//! A step of a job on the disk, also where the store is away for a moment: a database that is restarted
//! must not cost an answer that is made already. (RSV-1)

use super::Dispatcher;
use crate::clock;
use crate::job::Step;
use crate::store::{Holder, Patience, StoreError};

impl Dispatcher {
    /// Takes a step. Each is compare-and-set, so that asking again does it once.
    pub(super) async fn persist(&self, holder: Holder, step: Step) -> Result<(), StoreError> {
        let mut patience = Patience::of(self.config.store_timeout_ms);
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
            if self.stop.is_cancelled() || !patience.again(&error).await {
                return Err(error);
            }
            failed_before = true;
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
