//! What holds for a store of each kind: one suite, run on all of them.
//!
//! A test is given the place of a store that is not there yet, opens it, and opens it again. Those
//! of more than one process at once are in `together`.

pub(super) mod answers;
pub(super) mod jobs;
pub(super) mod leases;
pub(super) mod letters;
pub(super) mod models;
pub(super) mod prune;

use super::database::{Param, Rows, Statement};
use super::*;
use std::sync::Arc;
use tether_wire::infer::{Finish, Usage};
use tether_wire::{Digest, TenantId};

/// Where a store lies.
pub(super) trait Place: Send + Sync {
    /// Where its key lies.
    fn folder(&self) -> &Path;
    /// Opens the store, or makes it.
    fn open_with(&self, opening: Opening) -> StoreFuture<'_, Arc<dyn MetadataStore>>;
    /// What is wrong with it.
    fn check(&self) -> StoreFuture<'_, Report>;
    /// Forgets a tenant's key, as an operator does from outside.
    fn forget_key(&self, tenant: TenantId) -> StoreFuture<'_, bool>;
    /// Runs statements behind the store's back, in one transaction.
    fn behind(&self, statements: Vec<Statement>) -> StoreFuture<'_, Vec<Rows>>;
}

/// What lies in the database, as a stranger sees and changes it who has a copy of it.
pub(super) async fn sql(
    place: &dyn Place,
    sql: &'static str,
    params: impl IntoIterator<Item = Param>,
) -> Rows {
    let rows = place.behind(vec![Statement::new(sql, params)]).await;
    rows.expect("works").pop().expect("of one statement")
}

pub(super) async fn open(place: &dyn Place) -> Arc<dyn MetadataStore> {
    let opening = Opening::in_folder(place.folder(), 1);
    place.open_with(opening).await.expect("opens")
}

/// Each record is whole, and all agree.
pub(super) async fn is_whole(place: &dyn Place) -> Report {
    let report = place.check().await.expect("looked at");
    assert_eq!(report.problems, Vec::<String>::new());
    report
}

pub(super) const OWNER: NodeId = NodeId([5; 32]);
pub(super) const OTHER: NodeId = NodeId([6; 32]);

/// When jobs are new.
pub(super) const NOW_MS: u64 = 100;

pub(super) fn acme() -> TenantId {
    TenantId::new("acme").expect("valid")
}

pub(super) fn job(token: &str) -> NewJob {
    let tenant = acme();
    NewJob {
        correlation: CorrelationId::derive(&tenant, token),
        tenant,
        retry_token: token.to_owned(),
        keyed: true,
        request_hash: Digest([1; 32]),
        model: "tiny@1.0".parse().expect("valid"),
        seed: u64::MAX - 3,
        owner: OWNER,
        lease_until_ms: 10_000,
        deadline_ms: 9_000,
        max_tokens: Some(9),
        now_ms: NOW_MS,
    }
}

pub(super) fn id(token: &str) -> CorrelationId {
    job(token).correlation
}

/// The fence of a job's run, of which the first is 1.
pub(super) fn fence(run: u64) -> u64 {
    NOW_MS + run - 1
}

pub(super) fn holder(token: &str, run: u64) -> Holder {
    Holder {
        job: id(token),
        owner: OWNER,
        fence: fence(run),
    }
}

pub(super) fn dispatched(attempt: u32) -> Step {
    Step::Dispatched {
        worker: NodeId([u8::try_from(attempt).expect("small"); 32]),
        digest: Digest([7; 32]),
        attempt,
        numerics_class: "x86-64/f32".to_owned(),
    }
}

pub(super) fn usage(completion_tokens: u32) -> Usage {
    Usage {
        prompt_tokens: 4,
        completion_tokens,
    }
}

pub(super) fn done(completion_tokens: u32) -> Step {
    Step::Done {
        finish: Finish::Stop,
        usage: usage(completion_tokens),
        answer: None,
    }
}

/// Done, and the answer kept.
pub(super) fn answered(tenant: &TenantId, events: &[&[u8]]) -> Step {
    let answer = Answer::of(tenant.clone(), events.iter().copied());
    Step::Done {
        finish: Finish::Stop,
        usage: usage(2),
        answer: Some(Arc::new(answer.expect("short"))),
    }
}

pub(super) fn failed(completion_tokens: u32) -> Step {
    Step::Failed {
        error: "x".into(),
        usage: usage(completion_tokens),
        letter: None,
    }
}

pub(super) fn refused() -> Step {
    Step::Refused { error: "y".into() }
}

/// Reserves a job, and says which run of it this is.
pub(super) async fn reserved(store: &dyn MetadataStore, token: &str) -> Result<u64, Repeat> {
    match store.reserve(job(token)).await.expect("works") {
        Reserved::New { fence, .. } => Ok(fence + 1 - NOW_MS),
        Reserved::Repeated(repeat, _) => Err(repeat),
    }
}

pub(super) async fn steps(store: &dyn MetadataStore, token: &str, run: u64, steps: Vec<Step>) {
    for step in steps {
        let taken = store.step(holder(token, run), step, 200).await;
        taken.expect("taken");
    }
}

pub(super) fn lease(orchestrator: NodeId, until_ms: u64) -> Lease {
    Lease {
        orchestrator,
        region: "local".parse().expect("valid"),
        started_ms: 1,
        until_ms,
    }
}

pub(super) async fn read(store: &dyn MetadataStore, token: &str) -> Job {
    let found = store.job(id(token)).await.expect("works");
    found.expect("there")
}

/// Runs each test of the suite on a place of some kind, which is nothing where the machine lacks what
/// it needs.
macro_rules! suite {
    ($place:path) => {
        $crate::store::suite::suite! { $place =>
            jobs: a_job_goes_its_way_and_everything_is_kept,
                a_key_runs_once_and_says_what_became_of_it,
                a_key_runs_again_with_the_first_seed_unless_it_was_answered,
                what_was_counted_once_is_neither_forgotten_nor_added,
                a_hand_over_leaves_a_job_streaming_and_attempts_only_grow,
                a_step_needs_the_owner_the_fence_and_a_state_that_leads_there,
                every_state_takes_the_steps_of_the_table_and_no_others,
                fifty_at_once_with_one_key_are_one_job,
                a_reservation_is_open_exactly_as_long_as_its_job,
                jobs_are_counted_by_their_states,
                what_was_open_before_a_restart_is_released_and_its_owner_fenced;
            answers: an_answer_is_given_again_after_a_restart_and_only_to_its_tenant,
                an_answer_that_was_changed_or_moved_is_told_and_never_given,
                a_tenant_whose_key_is_dropped_leaves_nothing_that_can_be_read,
                a_key_that_an_operator_drops_takes_what_is_at_rest_and_nothing_else,
                a_key_that_somebody_else_dropped_seals_nothing_more,
                a_tenants_key_that_was_changed_is_told_and_jobs_end_nevertheless,
                a_store_is_not_opened_with_another_key_or_none,
                an_end_that_is_repeated_keeps_the_answer_of_the_first,
                a_step_that_is_refused_keeps_nothing;
            letters: a_job_that_failed_is_kept_with_its_request_and_what_was_tried,
                a_failure_keeps_a_dead_letter_only_where_asked_and_only_when_it_counts,
                dead_letters_are_listed_in_pages_the_newest_first,
                of_several_replays_at_once_one_may_run,
                a_dead_letter_is_gone_when_it_is_dropped_or_the_job_is_answered,
                a_dead_letter_that_was_changed_or_whose_key_is_gone_is_told;
            leases: who_renews_lives_until_its_lease_is_over_or_it_says_that_it_ends,
                open_jobs_are_ours_and_those_of_owners_who_lost_them,
                a_job_is_taken_over_as_it_stands_and_its_owner_of_before_is_fenced,
                an_owner_that_is_named_as_lost_loses_its_job_before_its_lease_is_over,
                what_was_ours_before_a_restart_can_be_ours_again,
                of_many_that_take_over_at_once_one_gets_the_job;
            prune: old_jobs_are_forgotten_open_ones_never,
                answers_are_kept_as_long_as_their_callers_can_come_again,
                a_key_that_comes_again_after_its_job_was_forgotten_has_a_higher_fence,
                a_job_takes_its_answer_along_and_stays_as_long_as_its_dead_letter,
                of_more_dead_letters_than_are_kept_the_oldest_go;
            models: models_are_remembered_with_the_time_when_they_were_first_seen;
        }
    };
    ($place:path => $($group:ident: $($name:ident),+;)+) => {
        $(mod $group {
            $(#[tokio::test]
            async fn $name() {
                if let Some(place) = $place().await {
                    $crate::store::suite::$group::$name(&place).await;
                }
            })+
        })+
    };
}
pub(super) use suite;
