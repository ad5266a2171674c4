//! What a power cut or a full disk leaves.

use super::*;

#[tokio::test]
async fn a_full_disk_is_told_and_what_was_acknowledged_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    reserved(&store, "first").await.expect("new");
    let limit = |pages: &'static str| {
        store.database.writer.run(move |conn| {
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
        let big = job(&format!("{n}-{}", "x".repeat(200)));
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
