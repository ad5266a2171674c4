//! What a key, an owner and a fence allow, and when jobs are forgotten.

use super::*;
use std::sync::Arc;

#[tokio::test]
async fn a_job_goes_its_way_and_everything_is_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    assert_eq!(reserved(&store, "a").await, Ok(1));
    let way = vec![dispatched(1), dispatched(2), Step::Streaming, done(7)];
    steps(&store, "a", 1, way).await;
    let job = read(&store, "a").await;
    assert_eq!(job.state, JobState::Done);
    assert_eq!(job.seed, u64::MAX - 3, "every bit of the seed");
    assert_eq!((job.attempts, job.worker), (2, Some(NodeId([2; 32]))));
    assert_eq!(job.digest, Some(Digest([7; 32])));
    assert_eq!(
        (job.usage.prompt_tokens, job.usage.completion_tokens),
        (4, 7)
    );
    assert_eq!((job.finish, job.streamed), (Some(Finish::Stop), true));
    assert_eq!((job.created_ms, job.updated_ms), (100, 200));
}

#[tokio::test]
async fn a_key_runs_once_and_says_what_became_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    assert_eq!(reserved(&store, "a").await, Ok(1));
    assert_eq!(reserved(&store, "a").await, Err(Repeat::StillRunning));
    let mut other = job("a");
    other.request_hash = Digest([2; 32]);
    assert!(matches!(
        store.reserve(other).await,
        Ok(Reserved::Repeated(Repeat::AnotherRequest, _))
    ));
    steps(
        &store,
        "a",
        1,
        vec![dispatched(1), Step::Streaming, done(2)],
    )
    .await;
    assert_eq!(reserved(&store, "a").await, Err(Repeat::AlreadyAnswered));
    assert_eq!(reserved(&store, "b").await, Ok(1), "another key");
}

#[tokio::test]
async fn a_key_whose_request_ended_without_a_whole_answer_runs_again_from_the_same_seed() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    reserved(&store, "a").await.expect("new");
    steps(&store, "a", 1, vec![dispatched(1), failed(0)]).await;
    assert_eq!(reserved(&store, "a").await, Ok(2), "under a higher fence");
    let again = read(&store, "a").await;
    assert_eq!((again.state, again.attempts), (JobState::Reserved, 0));
    assert_eq!((again.error, again.worker), (None, None));
    steps(
        &store,
        "a",
        2,
        vec![dispatched(1), Step::Streaming, failed(3)],
    )
    .await;
    let another_seed = NewJob {
        seed: 99,
        ..job("a")
    };
    let seed = read(&store, "a").await.seed;
    let again = store.reserve(another_seed).await;
    assert_eq!(again, Ok(Reserved::New { fence: 3, seed }));
    steps(&store, "a", 3, vec![dispatched(1), Step::Streaming]).await;
    steps(&store, "a", 3, vec![dispatched(2)]).await;
    let handed_over = read(&store, "a").await;
    assert_eq!(
        (handed_over.state, handed_over.attempts),
        (JobState::Streaming, 2)
    );
    steps(&store, "a", 3, vec![done(5)]).await;
    assert_eq!(reserved(&store, "a").await, Err(Repeat::AlreadyAnswered));
}

#[tokio::test]
async fn a_step_needs_the_owner_the_fence_and_a_state_that_leads_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    reserved(&store, "a").await.expect("new");
    let refused = async |holder, step| match store.step(holder, step, 1).await {
        Err(StoreError::Refused { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    assert!(refused(holder("a", 1), done(1)).await.contains("reserved"));
    assert!(
        refused(holder("a", 2), dispatched(1))
            .await
            .contains("fence is 1")
    );
    let stranger = Holder {
        owner: NodeId([9; 32]),
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
    steps(&store, "a", 1, vec![dispatched(1), done(0)]).await;
    assert!(refused(holder("a", 1), failed(0)).await.contains("done"));
}

#[tokio::test]
async fn fifty_at_once_with_one_key_are_one_job() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = Arc::new(open(dir.path()));
    let tries: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { reserved(&store, "a").await })
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

#[tokio::test]
async fn jobs_of_others_are_released_only_when_their_lease_is_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    reserved(&store, "a").await.expect("new");
    let other = NodeId([8; 32]);
    let early = store.release_open(other, "x".into(), 10_000).await;
    assert_eq!(early, Ok(Released::default()));
    let late = store
        .release_open(other, "x".into(), 10_001)
        .await
        .expect("works");
    assert_eq!(late.unanswered, 1);
    assert_eq!(read(&store, "a").await.owner, other);
}

#[tokio::test]
async fn a_reservation_is_open_exactly_as_long_as_its_job() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let path = dir.path().join("s.sqlite");
    let open_ones = || {
        let conn = Connection::open(&path).expect("opens");
        conn.query_row(
            "SELECT count(*) FROM reservations WHERE closed_ms IS NULL",
            [],
            |row| row.get::<_, i64>(0),
        )
        .expect("counted")
    };
    reserved(&store, "a").await.expect("new");
    assert_eq!(open_ones(), 1);
    steps(&store, "a", 1, vec![dispatched(1), failed(0)]).await;
    assert_eq!(open_ones(), 0);
    reserved(&store, "a").await.expect("again");
    assert_eq!(open_ones(), 1);
    store
        .release_open(OWNER, "x".into(), 1)
        .await
        .expect("works");
    assert_eq!(open_ones(), 0);
}

#[tokio::test]
async fn old_jobs_are_forgotten_open_ones_never() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    for token in ["a", "b", "open"] {
        reserved(&store, token).await.expect("new");
    }
    for token in ["a", "b"] {
        steps(&store, token, 1, vec![dispatched(1), failed(0)]).await;
    }
    assert_eq!(store.prune(200, 10).await, Ok(0), "not before their time");
    assert_eq!(
        store.prune(u64::MAX >> 1, 1).await,
        Ok(1),
        "not more than asked"
    );
    assert_eq!(store.prune(u64::MAX >> 1, 10).await, Ok(1));
    let counts = store.counts().await.expect("works");
    assert!(counts.contains(&(JobState::Reserved, 1)));
    assert!(counts.contains(&(JobState::Failed, 0)));
}
