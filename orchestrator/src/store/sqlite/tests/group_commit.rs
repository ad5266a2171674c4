//! What shares a commit, and what of a group fails alone.

use super::*;
use crate::store::{MAX_GROUP, Pruned};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A store, and the size of each commit that it told of.
fn counted(dir: &Path) -> (SqliteStore, Arc<Mutex<Vec<usize>>>) {
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let opening = Opening {
        on_commit: Box::new(move |size, _: Duration| seen.lock().expect("whole").push(size)),
        ..Opening::in_folder(dir, 1)
    };
    let store = SqliteStore::open(&file_in(dir), opening);
    (store.expect("opens"), sizes)
}

#[tokio::test]
async fn what_only_reads_or_changes_nothing_is_no_commit() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, sizes) = counted(dir.path());
    reserved(&store, "a").await.expect("new");
    for _ in 0..3 {
        store.counts().await.expect("works");
        read(&store, "a").await;
        store.known_models().await.expect("works");
        store.open_jobs(OWNER, 9, 0).await.expect("works");
        assert_eq!(store.prune(0, 9).await, Ok(Pruned::default()));
        store.renew(lease(OWNER, 9)).await.expect("works");
        store.retire(OWNER).await.expect("works");
    }
    reserved(&store, "a").await.expect_err("repeated");
    let refused = store.step(holder("a", 2), done(1), 200).await;
    refused.expect_err("another fence");
    let undone = store.database.writer.run(|conn| {
        record(conn, "undone")?;
        Err::<(), _>(StoreError::Corrupt("on purpose".into()))
    });
    undone.await.expect_err("on purpose");
    assert_eq!(*sizes.lock().expect("whole"), [1]);
    steps(&store, "a", 1, vec![dispatched(1)]).await;
    assert_eq!(*sizes.lock().expect("whole"), [1, 1]);
}

#[tokio::test]
async fn operations_that_wait_share_a_commit() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, sizes) = counted(dir.path());
    // The first operation holds the writer until all others wait.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let blocker = store.database.writer.run(move |_| {
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
            .all(|r| matches!(r, Ok(Reserved::New { .. })))
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
    let blocker = store.database.writer.run(move |_| {
        held.recv().expect("released");
        Ok(())
    });
    let broken = store.database.writer.run(|conn| {
        record(conn, "broken")?;
        Err::<(), _>(StoreError::Corrupt("on purpose".into()))
    });
    let let_go = async {
        tokio::task::yield_now().await;
        release.send(()).expect("waits");
    };
    let (_, broken, good, ()) = tokio::join!(blocker, broken, store.reserve(job("good")), let_go);
    assert!(matches!(broken, Err(StoreError::Corrupt(_))));
    assert!(matches!(good, Ok(Reserved::New { .. })));
    let left = store.job(id("broken")).await;
    assert_eq!(left, Ok(None), "undone");
    assert_eq!(read(&store, "good").await.state, JobState::Reserved);
}
