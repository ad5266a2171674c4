//! What the file is: whose, of which version, and whether it is a store at all.

use super::*;

#[tokio::test]
async fn opening_again_changes_nothing_and_two_at_once_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    reserved(&store, "a").await.expect("new");
    let path = dir.path().join("s.sqlite");
    let second = SqliteStore::open(&path, Opening::in_folder(dir.path(), 1));
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
    let all: Vec<_> = (1..=crate::store::migrations::latest())
        .map(|version| (version, 1))
        .collect();
    assert_eq!(versions, all);
    conn.execute("INSERT INTO schema_migrations VALUES (99, 'later', 1)", [])
        .expect("written");
    drop(conn);
    let newer = SqliteStore::open(&path, Opening::in_folder(dir.path(), 1)).err();
    assert!(matches!(newer, Some(StoreError::Newer { found: 99, .. })));
}

#[tokio::test]
async fn a_key_is_dropped_only_from_a_store_that_is_there_and_that_nobody_has_open() {
    let place = Folder::new();
    let forget = || forget_key(&place.file(), &acme());
    let missing = forget().expect_err("there is none");
    assert!(missing.to_string().contains("s.sqlite"), "{missing}");
    assert!(!place.file().exists(), "none is made");
    let store = open(place.0.path());
    reserved(&store, "a").await.expect("new");
    let answer = answered(&acme(), &[b"x"]);
    steps(&store, "a", 1, vec![dispatched(1), answer]).await;
    assert_eq!(forget(), Err(StoreError::InUse(place.file())));
    store.close().await.expect("closes");
    drop(store);
    let rows = sql(&place, "SELECT wrapped FROM tenant_keys", []).await;
    let key = rows.into_iter().next().expect("a key").read("a key");
    let key = { key }.blob().expect("bytes");
    let lies = || {
        let files = std::fs::read_dir(place.0.path()).expect("the folder");
        let read = |file: std::fs::DirEntry| std::fs::read(file.path()).expect("read");
        let bytes: Vec<u8> = files.flat_map(|it| read(it.expect("a file"))).collect();
        bytes.windows(key.len()).any(|it| it == key)
    };
    assert!(lies());
    assert_eq!(forget(), Ok(true));
    assert!(!lies(), "overwritten, and in no log");
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s.sqlite");
    std::fs::write(&path, vec![b'x'; 8_192]).expect("written");
    let refused = |why: &str| {
        let error = SqliteStore::open(&path, Opening::in_folder(dir.path(), 1)).err();
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
    assert!(SqliteStore::open(&missing, Opening::in_folder(dir.path(), 1)).is_err());
}
