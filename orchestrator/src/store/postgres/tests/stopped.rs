//! A server that stops at once, between operations and inside them, and starts again. (RSV-4)

use super::*;
use crate::job::{JobState, Step};
use crate::store::suite::*;

/// Everything that a job goes through.
fn way() -> Vec<(Step, JobState)> {
    vec![
        (dispatched(1), JobState::Dispatched),
        (dispatched(2), JobState::Dispatched),
        (Step::Streaming, JobState::Streaming),
        (dispatched(3), JobState::Streaming),
        (answered(&acme(), &[b"the answer"]), JobState::Done),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_after_each_transition_has_kept_it() {
    let Some(server) = own_server() else {
        return;
    };
    let database = Database::on(&server);
    let store = database.open().await.expect("opens");
    let crash = || {
        server.stop_at_once();
        server.start_again();
    };
    assert_eq!(reserved(&store, "a").await, Ok(1));
    crash();
    for (step, state) in way() {
        let found = until_reached(async || store.job(id("a")).await).await;
        assert!(found.expect("reached").is_some());
        let take = async || store.step(holder("a", 1), step.clone(), 200).await;
        until_reached(take).await.expect("taken");
        crash();
        let found = until_reached(async || store.job(id("a")).await).await;
        assert_eq!(found.expect("reached").expect("there").state, state);
    }
    let answer = store.answer(acme(), id("a"), 300).await.expect("opens");
    assert_eq!(answer.expect("kept").events(), [b"the answer"]);
    is_whole(&database).await;
}

/// Goes its way until the store fails, and says how many steps were acknowledged.
async fn drive(store: Arc<PostgresStore>, token: String) -> usize {
    if store.reserve(job(&token)).await.is_err() {
        return 0;
    }
    for (taken, (step, _)) in (1..).zip(way()) {
        if store.step(holder(&token, 1), step, 200).await.is_err() {
            return taken;
        }
    }
    1 + way().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_in_the_middle_leaves_every_job_whole_and_none_twice() {
    let Some(server) = own_server() else {
        return;
    };
    let database = Database::on(&server);
    let store = Arc::new(database.open().await.expect("opens"));
    for round in 0..4 {
        let tokens: Vec<String> = (0..150).map(|n| format!("{round} {n}")).collect();
        let running: Vec<_> = (tokens.iter())
            .map(|token| tokio::spawn(drive(store.clone(), token.clone())))
            .collect();
        // In the middle of the work: after some of it was acknowledged, each time a little later.
        let jobs = async || {
            let counts = store.counts().await?;
            Ok(counts.iter().map(|it| it.1).sum::<usize>())
        };
        while until_reached(&jobs).await.expect("counted") <= 170 * round {
            tokio::task::yield_now().await;
        }
        server.stop_at_once();
        let mut acknowledged = Vec::new();
        for one in running {
            acknowledged.push(one.await.expect("ends"));
        }
        server.start_again();
        until_reached(async || store.job(id("x")).await)
            .await
            .expect("reached");
        is_whole(&database).await;
        for (token, acknowledged) in tokens.iter().zip(acknowledged) {
            settle(&store, token, acknowledged).await;
        }
        let report = is_whole(&database).await;
        let all = 150 * (round + 1);
        assert_eq!(
            (report.jobs, report.answers, report.open_jobs),
            (all, all, 0)
        );
    }
}

/// A job stands where it was acknowledged, or one step further; what was not acknowledged is asked
/// again, and taken once.
async fn settle(store: &PostgresStore, token: &str, acknowledged: usize) {
    let states = [JobState::Reserved];
    let states = states.into_iter().chain(way().into_iter().map(|it| it.1));
    let states: Vec<JobState> = states.collect();
    let found = store.job(id(token)).await.expect("works");
    let allowed = [acknowledged.checked_sub(1), Some(acknowledged)];
    let allowed: Vec<Option<JobState>> = (allowed.iter())
        .map(|at| at.and_then(|at| states.get(at.min(states.len() - 1)).copied()))
        .collect();
    assert!(
        allowed.contains(&found.as_ref().map(|it| it.state)),
        "{token}: {found:?}"
    );
    if found.is_none() {
        assert_eq!(reserved(store, token).await, Ok(1));
    }
    for (at, (step, _)) in (1..).zip(way()).skip(acknowledged.saturating_sub(1)) {
        let taken = store.step(holder(token, 1), step, 300).await;
        // Only the one whose fate was open may have been taken.
        let may_be_taken = at == acknowledged.max(1);
        assert!(
            taken.is_ok() || may_be_taken,
            "{token}, step {at}: {taken:?}"
        );
    }
    let job = read(store, token).await;
    assert_eq!(
        (job.state, job.attempts, job.fence),
        (JobState::Done, 3, fence(1))
    );
    let answer = store.answer(acme(), id(token), 400).await.expect("opens");
    assert_eq!(answer.expect("kept").events(), [b"the answer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_fails_what_is_asked_at_once_and_is_found_again_by_itself() {
    let Some(server) = own_server() else {
        return;
    };
    let database = Database::on(&server);
    let store = database.open().await.expect("opens");
    reserved(&store, "a").await.expect("new");
    server.stop_at_once();
    for _ in 0..20 {
        let told = store.step(holder("a", 1), dispatched(1), 200).await;
        let told = told.expect_err("nobody is there");
        assert!(!matches!(told, StoreError::Refused { .. }), "{told}");
        store.job(id("a")).await.expect_err("nobody is there");
    }
    server.start_again();
    let take = async || store.step(holder("a", 1), dispatched(1), 200).await;
    until_reached(take).await.expect("taken");
    store.close().await.expect("closes");
    let told = store.step(holder("a", 1), Step::Streaming, 200).await;
    assert_eq!(told, Err(StoreError::Closed));
    assert_eq!(store.job(id("a")).await, Err(StoreError::Closed));
}
