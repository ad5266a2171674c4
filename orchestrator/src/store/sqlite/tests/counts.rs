//! The counts of jobs: as true as counting them, without counting them.

use super::*;
use futures_util::FutureExt;

/// What is counted, beside what is there.
async fn check(store: &SqliteStore) {
    let there = store.database.writer.run(|conn| {
        let mut all = Vec::new();
        for state in JobState::ALL {
            let sql = "SELECT count(*) FROM jobs WHERE state = ?1";
            let count: i64 = conn
                .query_row(sql, [state.as_str()], |row| row.get(0))
                .map_err(disk)?;
            all.push((state, usize::try_from(count).expect("not negative")));
        }
        Ok(all)
    });
    assert_eq!(store.counts().await, there.await);
}

#[tokio::test]
async fn jobs_are_counted_through_every_step_what_is_undone_and_a_new_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    check(&store).await;
    for token in ["a", "b", "c", "open"] {
        reserved(&store, token).await.expect("new");
    }
    check(&store).await;
    let way = vec![dispatched(1), dispatched(2), Step::Streaming, done(7)];
    steps(&store, "a", 1, way).await;
    steps(&store, "b", 1, vec![dispatched(1), failed(0)]).await;
    check(&store).await;
    assert_eq!(reserved(&store, "b").await, Ok(2), "the same key again");
    check(&store).await;
    let undone = store.database.writer.run(|conn| {
        record(conn, "undone")?;
        Err::<(), _>(StoreError::Corrupt("on purpose".into()))
    });
    undone.await.expect_err("on purpose");
    check(&store).await;
    store.close().await.expect("closes");
    drop(store);
    let store = open(dir.path());
    check(&store).await;
    let released = store.release_open(OWNER, "ended".into(), 500).await;
    assert_eq!(released.expect("works").unanswered, 3);
    check(&store).await;
    let pruned = store.prune(u64::MAX >> 1, 2).await.expect("works");
    assert_eq!(pruned.jobs, 2);
    check(&store).await;
    let left = store.counts().await.expect("works");
    assert_eq!(left.iter().map(|(_, count)| count).sum::<usize>(), 2);
}

#[tokio::test]
async fn asking_for_the_counts_reads_no_jobs() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    // Jobs that the triggers do not know of are seen by whoever looks at the jobs.
    let hidden = store.database.writer.run(|conn| {
        conn.execute_batch("DROP TRIGGER job_added").map_err(disk)?;
        record(conn, "hidden")
    });
    hidden.await.expect("works");
    let counted = store.counts().await.expect("works");
    assert!(counted.iter().all(|(_, count)| *count == 0), "{counted:?}");
}

#[tokio::test]
async fn the_counts_are_those_of_the_last_commit_and_wait_for_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    reserved(&store, "a").await.expect("new");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let hangs = store.database.writer.run(move |conn| {
        record(conn, "b")?;
        held.recv().expect("released");
        Ok(())
    });
    let asks = async {
        tokio::task::yield_now().await;
        let counted = store.counts().now_or_never().expect("at once");
        let open: usize = counted.expect("works").iter().map(|(_, count)| count).sum();
        assert_eq!(open, 1);
        release.send(()).expect("waits");
    };
    let (hung, ()) = tokio::join!(hangs, asks);
    hung.expect("works");
    check(&store).await;
    store.close().await.expect("closes");
    assert_eq!(store.counts().await, Err(StoreError::Closed));
}
