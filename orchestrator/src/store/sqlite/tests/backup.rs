//! Copies of a store, taken while it runs and brought back.

use super::super::{backup, restore};
use super::*;

async fn filled(place: &Folder) -> SqliteStore {
    let store = open(place.0.path());
    reserved(&store, "a").await.expect("new");
    let answered = answered(&acme(), &[b"one", b"two"]);
    steps(&store, "a", 1, vec![dispatched(1), answered]).await;
    reserved(&store, "b").await.expect("new");
    store
}

fn key(place: &Folder) -> std::path::PathBuf {
    Opening::in_folder(place.0.path(), 1).key_file
}

#[tokio::test]
async fn a_backup_of_a_store_that_runs_is_whole_and_brings_back_what_it_held() {
    let place = Folder::new();
    let store = filled(&place).await;
    let to = place.0.path().join("backup.sqlite");
    backup(&place.file(), &to).expect("made");
    let report = super::super::check(&to, &key(&place), 1).await;
    let report = report.expect("looked at");
    assert_eq!((report.jobs, report.answers), (2, 1));
    assert_eq!(report.problems, Vec::<String>::new());
    let again = backup(&place.file(), &to).expect_err("it is there");
    assert!(again.to_string().contains("backup.sqlite"), "{again}");

    reserved(&store, "later").await.expect("new");
    let in_use = restore(&to, &place.file(), true);
    assert_eq!(in_use, Err(StoreError::InUse(place.file())));
    store.close().await.expect("closes");
    drop(store);
    let replaced = restore(&to, &place.file(), true).expect("restored");
    let store = open(place.0.path());
    assert_eq!(read(&store, "b").await.state, JobState::Reserved);
    assert_eq!(store.job(id("later")).await, Ok(None));
    let answer = store.answer(acme(), id("a"), 300).await.expect("opens");
    assert_eq!(answer.expect("kept").events(), [b"one", b"two"]);
    store.close().await.expect("closes");
    drop(store);
    let [aside] = replaced.as_slice() else {
        panic!("the one before is kept: {replaced:?}")
    };
    let report = super::super::check(aside, &key(&place), 1).await;
    assert_eq!(report.expect("looked at").jobs, 3);
    // Again, and that one is kept as well.
    let again = restore(&to, &place.file(), true).expect("restored");
    assert!(again.len() == 1 && again[0] != *aside, "{again:?}");
    assert!(again[0].exists() && aside.exists());
    assert_eq!(is_whole(&place).await.jobs, 2);
}

#[tokio::test]
async fn a_log_that_a_lost_store_left_is_not_written_into_the_one_that_is_brought_back() {
    let place = Folder::new();
    let store = filled(&place).await;
    let to = place.0.path().join("backup.sqlite");
    backup(&place.file(), &to).expect("made");
    for token in ["c", "d"] {
        reserved(&store, token).await.expect("new");
    }
    let beside = |suffix: &str| place.0.path().join(format!("s.sqlite{suffix}"));
    // As a crash leaves them: closing the store takes them away.
    let left = ["-wal", "-shm"].map(|suffix| (beside(suffix), std::fs::read(beside(suffix))));
    store.close().await.expect("closes");
    drop(store);
    std::fs::remove_file(place.file()).expect("moved away by its operator");
    for (path, bytes) in left {
        std::fs::write(path, bytes.expect("read")).expect("written");
    }
    let aside = restore(&to, &place.file(), false).expect("restored");
    let store = open(place.0.path());
    assert_eq!(store.job(id("c")).await, Ok(None));
    assert_eq!(read(&store, "a").await.state, JobState::Done);
    store.close().await.expect("closes");
    drop(store);
    assert_eq!(is_whole(&place).await.jobs, 2);
    let lie = ["-shm", "-wal"].map(|it| beside(&format!(".replaced-1{it}")));
    assert_eq!(aside, lie, "kept for whoever has the file");
}

#[tokio::test]
async fn a_backup_does_not_replace_what_came_later_unless_that_is_said() {
    let place = Folder::new();
    let store = filled(&place).await;
    let to = place.0.path().join("backup.sqlite");
    backup(&place.file(), &to).expect("made");
    steps(&store, "b", 1, vec![dispatched(1)]).await;
    let late = store.step(holder("b", 1), Step::Streaming, 900).await;
    late.expect("taken");
    store.close().await.expect("closes");
    drop(store);
    let refused = restore(&to, &place.file(), false);
    assert_eq!(refused, Err(StoreError::Later(place.file())));
    restore(&to, &place.file(), true).expect("restored");
}

#[tokio::test]
async fn neither_a_newer_store_is_replaced_nor_by_a_newer_or_damaged_or_other_file() {
    let place = Folder::new();
    let store = filled(&place).await;
    let to = place.0.path().join("backup.sqlite");
    backup(&place.file(), &to).expect("made");
    store.close().await.expect("closes");
    drop(store);
    let later = "INSERT INTO schema_migrations VALUES (99, 'later', 1)";
    let newer = |path: &Path| {
        let conn = Connection::open(path).expect("opens");
        conn.execute(later, []).expect("written");
    };
    newer(&place.file());
    let refused = restore(&to, &place.file(), true);
    assert!(matches!(refused, Err(StoreError::Newer { found: 99, .. })));
    std::fs::remove_file(place.file()).expect("removed");
    newer(&to);
    let refused = restore(&to, &place.file(), true);
    assert!(matches!(refused, Err(StoreError::Newer { found: 99, .. })));
    let other = place.0.path().join("other");
    std::fs::write(&other, vec![b'x'; 8_192]).expect("written");
    let refused = restore(&other, &place.file(), true);
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    std::fs::write(&other, "").expect("written");
    let refused = restore(&other, &place.file(), true).expect_err("refused");
    assert!(refused.to_string().contains("holds no store"), "{refused}");
    assert!(!place.file().exists());
}

#[tokio::test]
async fn a_damaged_store_is_replaced_and_kept_beside() {
    let place = Folder::new();
    let store = filled(&place).await;
    let to = place.0.path().join("backup.sqlite");
    backup(&place.file(), &to).expect("made");
    store.close().await.expect("closes");
    drop(store);
    std::fs::write(place.file(), vec![b'x'; 8_192]).expect("written");
    let refused = super::super::check(&place.file(), &key(&place), 1).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    let aside = restore(&to, &place.file(), false).expect("restored");
    assert!(aside[0].exists(), "kept");
    assert_eq!(is_whole(&place).await.jobs, 2);
}
