//! What a power cut or a full disk leaves.

use super::*;

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
    assert_eq!(reserved(&again, "streaming").await, Ok(3));
    assert_eq!(reserved(&again, "done").await, Err(Repeat::AlreadyAnswered));
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
