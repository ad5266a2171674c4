//! Where nobody has room for a request, a smaller model answers it, if its tenant's policy says so.
//! (SCH-5, SCH-6)
//!
//! What counts is what came of it: nothing was given, there is time left, and the caller would be told
//! that the model is overloaded or unavailable, whoever says so: a queue that sheds the request, or all
//! workers that were asked. The job of the larger model ends with that, and begins anew for the
//! smaller one under a higher fence, so that it is recorded and billed as what it is.

use super::log::AnswerLog;
use super::outcome::End;
use super::progress::Progress;
use super::run::Run;
use super::{Dispatcher, Interrupts, elsewhere};
use crate::clock;
use crate::job::Step;
use crate::store::{Reserved, StoreError};
use tether_wire::infer::Usage;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef};

impl Dispatcher {
    /// Drives a request, by one smaller model after the other.
    pub(super) async fn drive_or_degrade(
        &self,
        run: &mut Run,
        log: &AnswerLog,
        interrupt: &mut Interrupts,
    ) -> End {
        let mut first = None;
        loop {
            let end = self.drive(run, log, interrupt).await;
            let Some(error) = untaken(&end, run) else {
                return end;
            };
            let smaller = (is_shed(error) && has_time(run))
                .then(|| self.smaller(&run.model, &run.rules))
                .flatten();
            // What is wrong with the model that was asked for is told, not with one that was not.
            let told = first.get_or_insert_with(|| error.clone());
            let Some((model, digest)) = smaller else {
                return End::Final(told.clone());
            };
            if let Err(end) = self.begin_smaller(run, model, digest, error).await {
                return end;
            }
        }
    }

    /// Ends the job of a model that does not take it, and begins it anew for a smaller one.
    async fn begin_smaller(
        &self,
        run: &mut Run,
        model: ModelRef,
        digest: Digest,
        why: &RpcError,
    ) -> Result<(), End> {
        tracing::info!(from = %run.model, to = %model, %why, "a smaller model gets the request");
        let now_ms = clock::now().unix_ms;
        let shed = Step::Failed {
            error: format!("{}: {why}; {model} gets it", why.code.as_str()),
            usage: Usage::default(),
        };
        let ended = self.store.step(run.holder, shed, now_ms).await;
        ended.map_err(|error| unrecorded(&error))?;
        let job = self.new_job(&run.request, run.hash, &model, run.seed, now_ms);
        let reserved = self.store.reserve(job).await;
        run.holder.fence = match reserved.map_err(|error| unrecorded(&error))? {
            Reserved::New { fence, .. } => fence,
            // Somebody came with its key in between, and has it now.
            Reserved::Repeated(..) => return Err(End::Final(elsewhere())),
        };
        self.metrics.degraded(why.code.as_str());
        let asked = std::mem::replace(&mut run.model, model);
        run.degraded_from.get_or_insert(asked);
        run.digest = digest;
        run.progress = Progress::default();
        Ok(())
    }
}

/// Why nothing of an answer was given that another model could give.
fn untaken<'a>(end: &'a End, run: &Run) -> Option<&'a RpcError> {
    let may = run.may_degrade && !run.progress.has_begun();
    match end {
        End::Final(error) if may && (is_shed(error) || is_too_small(error, run)) => Some(error),
        _ => None,
    }
}

fn is_shed(error: &RpcError) -> bool {
    matches!(error.code, Code::Overloaded | Code::Unavailable)
}

/// The smaller model cannot do what the larger one could have done.
fn is_too_small(error: &RpcError, run: &Run) -> bool {
    error.code == Code::Invalid && run.degraded_from.is_some()
}

/// Once it is over, who waits for the request was told already.
fn has_time(run: &Run) -> bool {
    tokio::time::Instant::now() < run.deadline
}

fn unrecorded(error: &StoreError) -> End {
    if let StoreError::Refused { .. } = error {
        return End::Final(elsewhere());
    }
    tracing::error!(%error, "a job could not be given to a smaller model");
    let why = "the request could not be recorded";
    End::Final(RpcError::new(Code::Internal, why))
}
