//! What a key, an owner and a fence allow, and what a job goes through.

use super::*;

pub(crate) async fn a_job_goes_its_way_and_everything_is_kept(place: &dyn Place) {
    let store = open(place).await;
    assert_eq!(reserved(&*store, "a").await, Ok(1));
    let way = vec![dispatched(1), dispatched(2), Step::Streaming, done(7)];
    steps(&*store, "a", 1, way).await;
    store.close().await.expect("closes");
    drop(store);
    let store = open(place).await;
    let new = job("a");
    let kept = Job {
        correlation: new.correlation,
        tenant: new.tenant,
        retry_token: new.retry_token,
        keyed: true,
        request_hash: new.request_hash,
        model: new.model,
        digest: Some(Digest([7; 32])),
        numerics_class: Some("x86-64/f32".into()),
        seed: u64::MAX - 3,
        state: JobState::Done,
        owner: OWNER,
        lease_until_ms: 10_000,
        deadline_ms: Some(9_000),
        fence: fence(1),
        attempts: 2,
        worker: Some(NodeId([2; 32])),
        failures: 0,
        max_tokens: new.max_tokens,
        streamed: true,
        usage: usage(7),
        finish: Some(Finish::Stop),
        error: None,
        created_ms: 100,
        updated_ms: 200,
        keep_until_ms: 200 + Retention::default().job_ms,
    };
    assert_eq!(read(&*store, "a").await, kept);
    is_whole(place).await;
}

pub(crate) async fn a_key_runs_once_and_says_what_became_of_it(place: &dyn Place) {
    let store = open(place).await;
    assert_eq!(reserved(&*store, "a").await, Ok(1));
    assert_eq!(reserved(&*store, "a").await, Err(Repeat::StillRunning));
    let mut other = job("a");
    other.request_hash = Digest([2; 32]);
    assert!(matches!(
        store.reserve(other.clone()).await,
        Ok(Reserved::Repeated(Repeat::AnotherRequest, _))
    ));
    let way = vec![dispatched(1), Step::Streaming, done(2)];
    steps(&*store, "a", 1, way).await;
    assert_eq!(reserved(&*store, "a").await, Err(Repeat::AlreadyAnswered));
    assert_eq!(reserved(&*store, "b").await, Ok(1), "another key");
    steps(&*store, "b", 1, vec![failed(0)]).await;
    other.correlation = id("b");
    let told = store.reserve(other.clone()).await;
    assert!(
        matches!(told, Err(StoreError::Refused { .. })),
        "not its id"
    );
    other.retry_token = "b".into();
    assert!(matches!(
        store.reserve(other).await,
        Ok(Reserved::Repeated(Repeat::AnotherRequest, _))
    ));
}

pub(crate) async fn a_key_runs_again_with_the_first_seed_unless_it_was_answered(place: &dyn Place) {
    let store = open(place).await;
    let cancelled = Step::Cancelled { usage: usage(3) };
    let ways = [
        ("failed", vec![dispatched(1), failed(0)]),
        ("cut", vec![dispatched(1), Step::Streaming, failed(3)]),
        ("refused", vec![refused()]),
        ("gone", vec![dispatched(1), Step::Streaming, cancelled]),
    ];
    for (token, way) in ways {
        assert_eq!(reserved(&*store, token).await, Ok(1));
        steps(&*store, token, 1, way).await;
        let mut again = job(token);
        (again.seed, again.now_ms) = (7, 300);
        let begun = store.reserve(again).await.expect("works");
        let expected = Reserved::New {
            fence: fence(2),
            seed: u64::MAX - 3,
            created_ms: 100,
        };
        assert_eq!(begun, expected, "{token}");
        let job = read(&*store, token).await;
        assert_eq!((job.state, job.attempts), (JobState::Reserved, 0));
        assert_eq!((job.error, job.worker), (None, None));
        let began_as = job.streamed.then_some(Digest([7; 32]));
        assert_eq!(
            job.digest, began_as,
            "{token}: what was given goes on as that"
        );
        assert_eq!(job.numerics_class.is_some(), job.streamed);
        assert_eq!((job.created_ms, job.updated_ms), (100, 300));
        steps(&*store, token, 2, vec![dispatched(1), done(5)]).await;
        let repeated = reserved(&*store, token).await;
        assert_eq!(repeated, Err(Repeat::AlreadyAnswered));
        let failures = read(&*store, token).await.failures;
        let expected = u32::from(token == "failed" || token == "cut");
        assert_eq!(failures, expected, "{token}");
    }
    is_whole(place).await;
}

pub(crate) async fn what_was_counted_once_is_neither_forgotten_nor_added(place: &dyn Place) {
    let store = open(place).await;
    let counted = async || read(&*store, "a").await.usage.completion_tokens;
    let cancelled = |tokens| Step::Cancelled {
        usage: usage(tokens),
    };
    let runs = [
        (vec![dispatched(1), Step::Streaming, failed(5)], 5),
        (vec![dispatched(1), Step::Streaming, cancelled(2)], 5),
        (vec![refused()], 5),
        (vec![dispatched(1), Step::Streaming, failed(6)], 6),
        (vec![dispatched(1), Step::Streaming, done(4)], 4),
    ];
    for (run, (way, tokens)) in (1..).zip(runs) {
        assert_eq!(reserved(&*store, "a").await, Ok(run));
        steps(&*store, "a", run, way).await;
        assert_eq!(counted().await, tokens, "run {run}");
        // So a job that is refused may have a bill: of the run before.
        let job = read(&*store, "a").await;
        if job.state == JobState::Refused {
            assert!(job.streamed && job.usage == usage(5), "{job:?}");
        }
    }
}

pub(crate) async fn a_hand_over_leaves_a_job_streaming_and_attempts_only_grow(place: &dyn Place) {
    let store = open(place).await;
    reserved(&*store, "a").await.expect("new");
    let way = vec![dispatched(2), Step::Streaming, dispatched(3)];
    steps(&*store, "a", 1, way).await;
    let job = read(&*store, "a").await;
    assert_eq!((job.state, job.attempts), (JobState::Streaming, 3));
    assert_eq!(job.worker, Some(NodeId([3; 32])));
    for attempt in [1, 3] {
        let repeated = store.step(holder("a", 1), dispatched(attempt), 300).await;
        let error = repeated.expect_err("no higher attempt").to_string();
        assert!(error.contains("attempt 3"), "{error}");
    }
    assert_eq!(read(&*store, "a").await, job, "nothing changed");
}

pub(crate) async fn a_step_needs_the_owner_the_fence_and_a_state_that_leads_there(
    place: &dyn Place,
) {
    let store = open(place).await;
    reserved(&*store, "a").await.expect("new");
    let refused = async |holder, step| match store.step(holder, step, 1).await {
        Err(StoreError::Refused { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    assert!(refused(holder("a", 1), done(1)).await.contains("reserved"));
    assert!(
        refused(holder("a", 2), dispatched(1))
            .await
            .contains(&format!("fence is {}", fence(1)))
    );
    let stranger = Holder {
        owner: OTHER,
        ..holder("a", 1)
    };
    assert!(
        refused(stranger, dispatched(1))
            .await
            .contains("belongs to")
    );
    assert!(
        refused(holder("none", 1), dispatched(1))
            .await
            .contains("no such")
    );
    steps(&*store, "a", 1, vec![dispatched(1), done(0)]).await;
    assert!(refused(holder("a", 1), failed(0)).await.contains("done"));
    is_whole(place).await;
}

/// The way to a state from a job that was just reserved.
fn way_to(state: JobState) -> Vec<Step> {
    match state {
        JobState::Reserved => vec![],
        JobState::Dispatched => vec![dispatched(1)],
        JobState::Streaming => vec![dispatched(1), Step::Streaming],
        JobState::Done => vec![dispatched(1), done(1)],
        JobState::Failed => vec![failed(0)],
        JobState::Refused => vec![refused()],
        JobState::Cancelled => vec![Step::Cancelled { usage: usage(0) }],
    }
}

pub(crate) async fn every_state_takes_the_steps_of_the_table_and_no_others(place: &dyn Place) {
    let store = open(place).await;
    let steps_of = [
        dispatched(9),
        Step::Streaming,
        done(1),
        failed(0),
        refused(),
        Step::Cancelled { usage: usage(0) },
    ];
    for from in JobState::ALL {
        for step in &steps_of {
            let token = format!("{} {}", from.as_str(), step.kind().as_str());
            assert_eq!(reserved(&*store, &token).await, Ok(1));
            steps(&*store, &token, 1, way_to(from)).await;
            assert_eq!(read(&*store, &token).await.state, from);
            let taken = store.step(holder(&token, 1), step.clone(), 300).await;
            let leads = step.kind().leads(from);
            assert_eq!(taken.is_ok(), leads.is_some(), "{token}: {taken:?}");
            let state = read(&*store, &token).await.state;
            assert_eq!(state, leads.unwrap_or(from), "{token}");
        }
        let token = format!("{} anew", from.as_str());
        reserved(&*store, &token).await.expect("new");
        steps(&*store, &token, 1, way_to(from)).await;
        let anew = reserved(&*store, &token).await;
        assert_eq!(anew.is_ok(), from.begun_anew().is_some(), "{token}");
    }
    is_whole(place).await;
}

pub(crate) async fn fifty_at_once_with_one_key_are_one_job(place: &dyn Place) {
    let store = open(place).await;
    let tries: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { reserved(&*store, "a").await })
        })
        .collect();
    let mut new = 0;
    for one in tries {
        match one.await.expect("ends") {
            Ok(1) => new += 1,
            Err(Repeat::StillRunning) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(new, 1);
}

pub(crate) async fn a_reservation_is_open_exactly_as_long_as_its_job(place: &dyn Place) {
    let store = open(place).await;
    let open_ones = async || {
        let count = "SELECT count(*) FROM reservations WHERE closed_ms IS NULL";
        let rows = sql(place, count, []).await;
        let row = rows.into_iter().next().expect("a count");
        row.read("a count").u64().expect("a number")
    };
    reserved(&*store, "a").await.expect("new");
    assert_eq!(open_ones().await, 1);
    steps(&*store, "a", 1, vec![dispatched(1), failed(0)]).await;
    assert_eq!(open_ones().await, 0);
    reserved(&*store, "a").await.expect("again");
    assert_eq!(open_ones().await, 1);
    let released = store.release_open(OWNER, "x".into(), 1).await;
    assert_eq!(released.expect("works").unanswered, 1);
    assert_eq!(open_ones().await, 0);
    is_whole(place).await;
}

pub(crate) async fn jobs_are_counted_by_their_states(place: &dyn Place) {
    let store = open(place).await;
    for token in ["a", "b", "c", "d"] {
        reserved(&*store, token).await.expect("new");
    }
    steps(&*store, "a", 1, vec![dispatched(1), done(1)]).await;
    steps(&*store, "b", 1, vec![refused()]).await;
    steps(&*store, "c", 1, vec![dispatched(1)]).await;
    let counts = store.counts().await.expect("works");
    assert_eq!(counts.len(), JobState::ALL.len());
    for (state, count) in counts {
        let there = matches!(
            state,
            JobState::Done | JobState::Refused | JobState::Dispatched | JobState::Reserved
        );
        assert_eq!(count, usize::from(there), "{state:?}");
    }
}

pub(crate) async fn what_was_open_before_a_restart_is_released_and_its_owner_fenced(
    place: &dyn Place,
) {
    let store = open(place).await;
    for token in ["reserved", "dispatched", "streaming", "done"] {
        reserved(&*store, token).await.expect("new");
    }
    let mut of_another = job("other's");
    of_another.owner = OTHER;
    store.reserve(of_another).await.expect("works");
    steps(&*store, "dispatched", 1, vec![dispatched(1)]).await;
    let way = vec![dispatched(1), Step::Streaming];
    steps(&*store, "streaming", 1, way.clone()).await;
    steps(&*store, "done", 1, [way, vec![done(1)]].concat()).await;
    store.close().await.expect("closes");
    drop(store);
    let store = open(place).await;
    let released = store.release_open(OWNER, "ended".into(), 500).await;
    let expected = Released {
        unanswered: 2,
        partly_answered: 1,
    };
    assert_eq!(released, Ok(expected));
    for token in ["reserved", "dispatched", "streaming"] {
        let job = read(&*store, token).await;
        assert_eq!((job.state, job.fence), (JobState::Failed, fence(2)));
        assert_eq!(job.error.as_deref(), Some("ended"));
    }
    assert_eq!(read(&*store, "done").await.state, JobState::Done);
    assert!(read(&*store, "other's").await.state.is_open());
    // The one before, should it still live, can no longer touch them.
    let late = store.step(holder("dispatched", 1), done(1), 600).await;
    assert!(matches!(late, Err(StoreError::Refused { .. })));
    assert_eq!(reserved(&*store, "dispatched").await, Ok(3));
    assert_eq!(reserved(&*store, "streaming").await, Ok(3));
    is_whole(place).await;
}
