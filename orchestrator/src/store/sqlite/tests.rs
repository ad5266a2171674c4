//! What holds for every store, on SQLite.

use super::*;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

const OWNER: NodeId = NodeId([5; 32]);

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(&dir.join("s.sqlite"), 1, Box::new(|_, _| ())).expect("opens")
}

fn job(token: &str) -> NewJob {
    let tenant = TenantId::new("acme").expect("valid");
    NewJob {
        correlation: CorrelationId::derive(&tenant, token),
        tenant,
        retry_token: token.to_owned(),
        request_hash: Digest([1; 32]),
        model: "tiny@1.0".parse().expect("valid"),
        seed: u64::MAX - 3,
        owner: OWNER,
        lease_until_ms: 10_000,
        max_tokens: Some(9),
        now_ms: 100,
    }
}

fn holder(token: &str, fence: u64) -> Holder {
    Holder {
        job: job(token).correlation,
        owner: OWNER,
        fence,
    }
}

fn dispatched(attempt: u32) -> Step {
    Step::Dispatched {
        worker: NodeId([u8::try_from(attempt).expect("small"); 32]),
        digest: Digest([7; 32]),
        attempt,
    }
}

fn done(completion_tokens: u32) -> Step {
    Step::Done {
        finish: Finish::Stop,
        usage: Usage {
            prompt_tokens: 4,
            completion_tokens,
        },
    }
}

fn failed(completion_tokens: u32) -> Step {
    Step::Failed {
        error: "x".into(),
        usage: Usage {
            prompt_tokens: 0,
            completion_tokens,
        },
    }
}

async fn reserved(store: &SqliteStore, token: &str) -> Result<u64, Repeat> {
    match store.reserve(job(token)).await.expect("works") {
        Reserved::New { fence } => Ok(fence),
        Reserved::Repeated(repeat, _) => Err(repeat),
    }
}

async fn steps(store: &SqliteStore, token: &str, fence: u64, steps: Vec<Step>) {
    for step in steps {
        let taken = store.step(holder(token, fence), step, 200).await;
        taken.expect("taken");
    }
}

async fn read(store: &SqliteStore, token: &str) -> Job {
    let found = store.job(job(token).correlation).await.expect("works");
    found.expect("there")
}

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
async fn a_key_may_run_again_only_where_nothing_was_given() {
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
    assert_eq!(reserved(&store, "a").await, Err(Repeat::PartlyAnswered));
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

/// A copy of the files while the store is open is what a power cut leaves.
fn power_cut(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut_and_open_jobs_are_accounted_for() {
    let (dir, after) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let store = open(dir.path());
    for token in ["reserved", "dispatched", "streaming", "done"] {
        reserved(&store, token).await.expect("new");
    }
    steps(&store, "dispatched", 1, vec![dispatched(1)]).await;
    steps(&store, "streaming", 1, vec![dispatched(1), Step::Streaming]).await;
    steps(
        &store,
        "done",
        1,
        vec![dispatched(1), Step::Streaming, done(1)],
    )
    .await;
    power_cut(dir.path(), after.path());

    let again = open(after.path());
    let released = again.release_open(OWNER, "ended".into(), 500).await;
    assert_eq!(
        released,
        Ok(Released {
            unanswered: 2,
            partly_answered: 1
        })
    );
    for token in ["reserved", "dispatched", "streaming"] {
        let job = read(&again, token).await;
        assert_eq!((job.state, job.fence), (JobState::Failed, 2));
        assert_eq!(job.error.as_deref(), Some("ended"));
    }
    assert_eq!(read(&again, "done").await.state, JobState::Done);
    // The one before, should it still live, can no longer touch them.
    let late = again.step(holder("dispatched", 1), done(1), 600).await;
    assert!(matches!(late, Err(StoreError::Refused { .. })));
    assert_eq!(reserved(&again, "dispatched").await, Ok(3));
    assert_eq!(
        reserved(&again, "streaming").await,
        Err(Repeat::PartlyAnswered)
    );
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
async fn operations_that_wait_share_a_commit() {
    let dir = tempfile::tempdir().expect("a folder");
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let store = SqliteStore::open(
        &dir.path().join("s.sqlite"),
        1,
        Box::new(move |size, _: Duration| seen.lock().expect("whole").push(size)),
    )
    .expect("opens");
    // The first operation holds the writer until all others wait.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let blocker = store.writer.run(move |_| {
        held.recv().expect("released");
        Ok(())
    });
    let many: Vec<_> = (0..100)
        .map(|n| store.reserve(job(&n.to_string())))
        .collect();
    let let_go = async {
        tokio::task::yield_now().await;
        release.send(()).expect("waits");
    };
    let (blocked, reserved, ()) =
        tokio::join!(blocker, futures_util::future::join_all(many), let_go);
    blocked.expect("works");
    assert!(
        reserved
            .into_iter()
            .all(|r| r == Ok(Reserved::New { fence: 1 }))
    );
    let sizes = sizes.lock().expect("whole");
    assert!(sizes.len() <= 3, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= MAX_GROUP));
}

#[tokio::test]
async fn an_operation_that_fails_undoes_itself_and_none_of_its_group() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let (release, held) = std::sync::mpsc::channel::<()>();
    let blocker = store.writer.run(move |_| {
        held.recv().expect("released");
        Ok(())
    });
    let broken = store.writer.run(|conn| {
        reserve(conn, &job("broken"))?;
        Err::<(), _>(StoreError::Corrupt("on purpose".into()))
    });
    let let_go = async {
        tokio::task::yield_now().await;
        release.send(()).expect("waits");
    };
    let (_, broken, good, ()) = tokio::join!(blocker, broken, store.reserve(job("good")), let_go);
    assert!(matches!(broken, Err(StoreError::Corrupt(_))));
    assert!(matches!(good, Ok(Reserved::New { .. })));
    let left = store.job(job("broken").correlation).await;
    assert_eq!(left, Ok(None), "undone");
    assert_eq!(read(&store, "good").await.state, JobState::Reserved);
}

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_acknowledged_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    reserved(&store, "first").await.expect("new");
    let limit = |pages: &'static str| {
        store.writer.run(move |conn| {
            let set: i64 = conn
                .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |r| {
                    r.get(0)
                })
                .map_err(disk)?;
            Ok(set)
        })
    };
    limit("1").await.expect("set to what is used now");
    let mut told = None;
    for n in 0..2_000 {
        let mut big = job(&format!("{n}"));
        big.retry_token = format!("{n}-{}", "x".repeat(200));
        if let Err(error) = store.reserve(big).await {
            told = Some(error);
            break;
        }
    }
    let told = told.expect("the disk is full at some point");
    assert!(
        matches!(&told, StoreError::Disk(why) if why.contains("full")),
        "{told}"
    );
    assert_eq!(read(&store, "first").await.state, JobState::Reserved);
    limit("100000").await.expect("set");
    assert_eq!(reserved(&store, "later").await, Ok(1), "well again");
}

#[tokio::test]
async fn opening_again_changes_nothing_and_two_at_once_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    reserved(&store, "a").await.expect("new");
    let path = dir.path().join("s.sqlite");
    let second = SqliteStore::open(&path, 1, Box::new(|_, _| ()));
    assert!(matches!(second.err(), Some(StoreError::InUse(_))));
    store.close().await.expect("closes");
    assert_eq!(store.reserve(job("b")).await, Err(StoreError::Closed));
    drop(store);
    let again = open(dir.path());
    assert_eq!(read(&again, "a").await.state, JobState::Reserved);
    again.close().await.expect("closes");
    drop(again);
    let conn = Connection::open(&path).expect("opens");
    let versions: Vec<(u32, i64)> = conn
        .prepare("SELECT version, applied_ms FROM schema_migrations")
        .expect("valid")
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("runs")
        .collect::<Result<_, _>>()
        .expect("read");
    let all: Vec<_> = (1..=schema::latest()).map(|version| (version, 1)).collect();
    assert_eq!(versions, all);
    conn.execute("INSERT INTO schema_migrations VALUES (99, 'later', 1)", [])
        .expect("written");
    drop(conn);
    let newer = SqliteStore::open(&path, 1, Box::new(|_, _| ())).err();
    assert!(matches!(newer, Some(StoreError::Newer { found: 99, .. })));
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s.sqlite");
    std::fs::write(&path, vec![b'x'; 8_192]).expect("written");
    let refused = |why: &str| {
        let error = SqliteStore::open(&path, 1, Box::new(|_, _| ())).err();
        let error = error.expect(why);
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        let text = error.to_string();
        for part in [
            "s.sqlite",
            "restore a backup",
            "move it away",
            "keys and models are not",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    refused("another file");
    std::fs::remove_file(&path).expect("removed");
    let store = open(dir.path());
    store.close().await.expect("closes");
    drop(store);
    let mut bytes = std::fs::read(&path).expect("read");
    // The header stays as it is, so that only reading the schema finds the damage.
    bytes[100..4_096].fill(0xff);
    std::fs::write(&path, bytes).expect("written");
    refused("a damaged page");
    let missing = dir.path().join("none").join("s.sqlite");
    assert!(SqliteStore::open(&missing, 1, Box::new(|_, _| ())).is_err());
}

#[tokio::test]
async fn models_are_remembered_with_the_time_when_they_were_first_seen() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let known = |digest, first_seen_ms, last_offered_ms| KnownModel {
        model: "tiny@1.0".parse().expect("valid"),
        digest: Digest([digest; 32]),
        first_seen_ms,
        last_offered_ms,
        offered_by: Some(NodeId([4; 32])),
    };
    let note = async |it| store.note_models(vec![it]).await.expect("works");
    note(known(3, 5, 6)).await;
    note(known(3, 9, 9)).await;
    assert_eq!(store.known_models().await, Ok(vec![known(3, 5, 9)]));
    note(known(8, 10, 10)).await;
    let bound_anew = Ok(vec![known(8, 10, 10)]);
    assert_eq!(store.known_models().await, bound_anew);
    let forgotten = vec!["tiny@1.0".parse().expect("valid")];
    store.forget_models(forgotten).await.expect("works");
    assert_eq!(store.known_models().await, Ok(Vec::new()));
}

#[tokio::test]
async fn models_that_an_earlier_version_remembered_are_kept_as_if_offered_today() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    store.close().await.expect("closes");
    drop(store);
    let path = dir.path().join("s.sqlite");
    let conn = Connection::open(&path).expect("opens");
    conn.execute_batch(
        "ALTER TABLE known_models DROP COLUMN last_offered_ms;
         ALTER TABLE known_models DROP COLUMN offered_by;
         DELETE FROM schema_migrations WHERE version > 1;
         INSERT INTO known_models VALUES ('tiny', '1.0', zeroblob(32), 5);",
    )
    .expect("as the first version left it");
    drop(conn);
    let known = open(dir.path()).known_models().await.expect("works");
    assert_eq!((known.len(), known[0].first_seen_ms), (1, 5));
    assert_eq!(known[0].offered_by, None);
    assert!(known[0].last_offered_ms > 1_700_000_000_000, "{known:?}");
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
