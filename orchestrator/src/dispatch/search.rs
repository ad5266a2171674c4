//! Who may be given a request now, best first: of those that serve its artifact, can be reached, and
//! are left alone by no breaker. (SCH-1, SCH-2, SCH-3)

use super::breaking::Barred;
use super::outcome::End;
use super::run::Run;
use super::{Dispatcher, Interrupts};
use crate::clock;
use crate::fleet::{Class, Found, Snapshot};
use crate::place::{Placed, Query, Ranked, place};
use crate::policy::Effective;
use crate::warmth::{Home, Warm, Warmth};
use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, NodeId, Region};

/// How often a started answer without a worker looks for one.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Three beats of a worker: so long after its start an orchestrator has heard all that it can hear.
const YOUNG_MS: u64 = 15_000;

impl Dispatcher {
    /// Who may give the answer, best first, after a pause. Of an answer that has begun somebody is
    /// waited for; and so is a worker that others try just now.
    pub(super) async fn find(
        &self,
        run: &mut Run,
        mut pause: Duration,
        interrupt: &mut Interrupts,
    ) -> Result<Placed, End> {
        let patience = Duration::from_millis(self.config.hand_over_timeout_ms);
        let by = tokio::time::Instant::now() + patience;
        let placed = |run: &Run| self.rank(run, &run.progress.not_now(clock::now().mono_ms));
        loop {
            if !pause.is_zero() {
                tokio::select! {
                    biased;
                    why = &mut *interrupt => return Err(self.interrupted(why)),
                    () = tokio::time::sleep(std::mem::take(&mut pause)) => {}
                }
            }
            if run.progress.goes_on() {
                let fleet = self.fleet.snapshot();
                (run.progress).forgive_restarted(|id| fleet.worker(id).map(|it| it.epoch()));
            }
            let mut found = placed(run);
            if found.ranked.is_empty() && run.progress.has_begun() {
                run.progress.forgive();
                found = placed(run);
            }
            let may_come = run.progress.has_begun() || found.is_tried;
            let waits = found.ranked.is_empty() && may_come;
            if !waits || tokio::time::Instant::now() >= by {
                return Ok(found);
            }
            pause = LOOK;
        }
    }

    /// Whether somebody else than this worker can go on who is not in doubt. Of an answer that has begun
    /// also who failed at it before, but not the last.
    pub(super) fn has_other(&self, run: &Run, worker: NodeId) -> bool {
        let mut not_now: Vec<NodeId> = if run.progress.has_begun() {
            run.progress.last().into_iter().collect()
        } else {
            run.progress.not_now(clock::now().mono_ms)
        };
        // A second one beside the first is not among those that were tried yet.
        not_now.push(worker);
        not_now.extend(run.beside.worker());
        let placed = self.rank(run, &not_now);
        placed.best().is_some_and(|best| !best.suspect)
    }

    /// Ranks those who may give the answer, but for these.
    pub(super) fn rank(&self, run: &Run, tried: &[NodeId]) -> Placed {
        let fleet = self.fleet.snapshot();
        let (placement, prefix) = (self.placement.load(), &run.request.prefix);
        let now_ms = clock::now().mono_ms;
        let warm = self.warmth().find(&run.digest, prefix, now_ms);
        let query = Query {
            region: &self.region,
            gpu_class: placement.gpu_class(&run.model.name),
            numerics_class: run.progress.numerics_class(),
            orchestrators: fleet.orchestrators(),
            now_mono_ms: now_ms,
            left_at: run.progress.left_at(),
        };
        let (found, barred) = self.candidates_of(
            &fleet,
            (&run.model, &run.digest),
            (run.rules.regions(), query.class()),
            &warm,
            (query.left_at.as_ref(), tried),
        );
        let placed = place(found, &query, &placement, &mut rand::rng());
        Placed {
            left_alone: barred.workers,
            is_tried: barred.is_tried,
            ..placed
        }
    }

    /// Remembers that the prompt goes to a worker, so that what begins alike can follow it.
    pub(super) fn sends(&self, run: &Run, to: &Ranked) {
        let worker = &to.candidate.worker;
        let home = Home {
            worker: worker.id(),
            epoch: worker.epoch(),
        };
        let now_ms = clock::now().mono_ms;
        (self.warmth()).sent(&run.digest, &run.request.prefix, home, now_ms);
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn warmth(&self) -> MutexGuard<'_, Warmth> {
        self.warmth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The best of those who serve an artifact and can be asked now, and those that were sent the
    /// prompt's beginning, where the request may go; and who of them is left alone by a breaker.
    pub(super) fn candidates<'a>(
        &self,
        fleet: &'a Snapshot,
        model: (&ModelRef, &Digest),
        within: Option<&BTreeSet<Region>>,
        warm: &Warm,
    ) -> (Vec<Found<'a>>, Barred) {
        self.candidates_of(fleet, model, (within, Class::Any), warm, (None, &[]))
    }

    /// The same, with those of a class among them, `also` this one, and `but` for these.
    fn candidates_of<'a>(
        &self,
        fleet: &'a Snapshot,
        model: (&ModelRef, &Digest),
        within: (Option<&BTreeSet<Region>>, Class<'_>),
        warm: &Warm,
        (also, but): (Option<&NodeId>, &[NodeId]),
    ) -> (Vec<Found<'a>>, Barred) {
        let now_mono_ms = clock::now().mono_ms;
        let is_linked = |worker: &NodeId| {
            let node = self.node.get();
            node.is_some_and(|node| node.linked(worker).is_some())
        };
        let here = &self.region;
        let mut found = fleet.candidates_within(model, here, within, warm, &mut rand::rng());
        let also = also.and_then(|id| fleet.candidate(id, model));
        found.extend(also.filter(|also| {
            (within.0).is_none_or(|within| within.contains(also.worker.region()))
                && found.iter().all(|it| it.worker.id() != also.worker.id())
        }));
        found.retain(|it| {
            let worker = it.worker;
            !but.contains(&worker.id())
                && worker.may_be_asked(|| is_linked(&worker.id()), now_mono_ms)
        });
        let barred = self.breaking.sift(&mut found, |it| it.worker, model.0);
        (found, barred)
    }

    /// Whether others may know workers that were not heard here yet. [T-INF-2]
    pub(super) fn others_may_know(&self, now_mono_ms: u64) -> bool {
        let age_ms = now_mono_ms.saturating_sub(self.began_ms);
        may_lag(self.fleet.snapshot().has_met_workers(), age_ms)
    }

    /// Nobody can serve an artifact; those who could are left alone for a while, where there are some.
    pub(super) fn nothing_serves_now(
        &self,
        model: (&ModelRef, &Digest),
        rules: &Effective,
    ) -> RpcError {
        let fleet = self.fleet.snapshot();
        let (found, barred) = self.candidates(&fleet, model, rules.regions(), &Warm::default());
        let error = self.nothing_serves(&model.0.to_string());
        match barred.first_ms {
            Some(left_ms) if found.is_empty() => error.with_retry_after_ms(left_ms.max(1)),
            _ => error,
        }
    }

    /// Nobody can serve a model by this name, for all that is known here.
    pub(super) fn nothing_serves(&self, model: &str) -> RpcError {
        let fleet = self.fleet.snapshot();
        let why = fleet.withheld(model).flatten();
        let why = why.map_or_else(String::new, |code| format!(": {code}"));
        RpcError::new(
            Code::Unavailable,
            format!("no worker can serve the model `{model}` just now{why}"),
        )
        .with_retry_after_ms(self.config.retry_after_ms)
    }
}

/// Whether the view of an orchestrator of this age may lack what that of others has.
fn may_lag(has_met_workers: bool, age_ms: u64) -> bool {
    !has_met_workers || age_ms < YOUNG_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newly_started_and_those_who_know_nobody_send_to_all_others() {
        assert!(may_lag(true, 0) && may_lag(true, YOUNG_MS - 1));
        assert!(!may_lag(true, YOUNG_MS));
        assert!(may_lag(false, u64::MAX));
    }
}
