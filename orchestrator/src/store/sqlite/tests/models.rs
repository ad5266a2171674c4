//! The models that are remembered.

use super::*;

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
