//! Stores that earlier versions made.

use super::*;
use crate::store::migrations::{behind, latest};
use crate::store::sqlite::backup::look_at;
use tether_wire::{CorrelationId, TenantId};

/// A store as a version of before left it.
fn of_version(dir: &Path, version: u32) -> Connection {
    let conn = file::connect(&file_in(dir)).expect("opens");
    conn.execute_batch(
        "CREATE TABLE schema_migrations (version INTEGER NOT NULL PRIMARY KEY,
            name TEXT NOT NULL, applied_ms INTEGER NOT NULL) STRICT;",
    )
    .expect("made");
    for (number, migration) in behind(0).take(version as usize) {
        conn.execute_batch(migration.sqlite).expect("migrated");
        let sql = "INSERT INTO schema_migrations VALUES (?1, ?2, 1)";
        conn.execute(sql, rusqlite::params![number, migration.name])
            .expect("noted");
    }
    conn
}

const STATES_OF_2: [&str; 6] = [
    "reserved",
    "dispatched",
    "streaming",
    "done",
    "failed",
    "cancelled",
];

fn id_of(token: &str) -> CorrelationId {
    CorrelationId::derive(&TenantId::new("acme").expect("valid"), token)
}

/// A job in each state, with its reservation.
fn fill(conn: &Connection) {
    for state in STATES_OF_2 {
        let is_open = matches!(state, "reserved" | "dispatched" | "streaming");
        conn.execute(
            "INSERT INTO jobs VALUES (?1, 'acme', ?2, zeroblob(32), 'tiny@1.0', x'0707070707070707\
             070707070707070707070707070707070707070707070707', -4, ?2, ?3, 10000, 3, 2, NULL, 1, \
             4, 7, 'stop', 'x', 100, 200)",
            rusqlite::params![id_of(state).0, state, OWNER.0],
        )
        .expect("a job");
        conn.execute(
            "INSERT INTO reservations VALUES (?1, 'acme', 3, 9, 100, ?2, ?3)",
            rusqlite::params![
                id_of(state).0,
                (!is_open).then_some(200),
                (!is_open).then_some(state)
            ],
        )
        .expect("its reservation");
    }
    conn.execute_batch("INSERT INTO known_models VALUES ('tiny', '1.0', zeroblob(32), 5, 6, NULL)")
        .expect("a model");
}

#[tokio::test]
async fn a_store_of_the_schema_before_comes_through_whole() {
    let place = Folder::new();
    fill(&of_version(place.0.path(), 2));
    let store = open(place.0.path());
    for state in STATES_OF_2 {
        let job = store.job(id_of(state)).await.expect("works");
        let job = job.expect("it is still there");
        let expected = Job {
            correlation: id_of(state),
            tenant: acme(),
            retry_token: state.to_owned(),
            keyed: true,
            request_hash: tether_wire::Digest([0; 32]),
            model: "tiny@1.0".parse().expect("valid"),
            digest: Some(tether_wire::Digest([7; 32])),
            numerics_class: None,
            seed: u64::MAX - 3,
            state: JobState::from_name(state).expect("a state"),
            owner: OWNER,
            lease_until_ms: 10_000,
            deadline_ms: None,
            fence: 3,
            attempts: 2,
            worker: None,
            failures: u32::from(state == "failed"),
            max_tokens: Some(9),
            streamed: true,
            usage: usage(7),
            finish: Some(tether_wire::infer::Finish::Stop),
            error: Some("x".into()),
            created_ms: 100,
            updated_ms: 200,
            keep_until_ms: 200 + 24 * 3_600_000,
        };
        assert_eq!(job, expected);
    }
    let counts = store.counts().await.expect("works");
    let counted = |of| counts.iter().find(|(state, _)| *state == of).map(|it| it.1);
    assert_eq!(counted(JobState::Refused), Some(0));
    assert_eq!(counted(JobState::Failed), Some(1));
    let report = is_whole(&place).await;
    assert_eq!((report.jobs, report.open_jobs, report.models), (6, 3, 1));
    // Reservations went with their jobs: the foreign key holds as before.
    sql(&place, "DELETE FROM jobs WHERE state = 'done'", []).await;
    assert_eq!(is_whole(&place).await.jobs, 5);
    store.close().await.expect("closes");
}

#[tokio::test]
async fn models_that_the_first_version_remembered_are_kept_as_if_offered_today() {
    let place = Folder::new();
    of_version(place.0.path(), 1)
        .execute_batch("INSERT INTO known_models VALUES ('tiny', '1.0', zeroblob(32), 5);")
        .expect("a model");
    let known = open(place.0.path()).known_models().await.expect("works");
    assert_eq!((known.len(), known[0].first_seen_ms), (1, 5));
    assert_eq!(known[0].offered_by, None);
    assert!(known[0].last_offered_ms > 1_700_000_000_000, "{known:?}");
}

#[tokio::test]
async fn a_dry_run_says_what_is_missing_and_changes_nothing() {
    let place = Folder::new();
    fill(&of_version(place.0.path(), 2));
    let version = || migrate::version(&look_at(&place.file()).expect("opens"));
    let (found, missing) = crate::store::sqlite::migrate(&place.file(), true, 1).expect("tried");
    assert_eq!((found, missing.len()), (2, latest() as usize - 2));
    assert_eq!(version(), Ok(2));
    let ran = crate::store::sqlite::migrate(&place.file(), false, 1).expect("migrated");
    assert_eq!(ran, (2, missing));
    assert_eq!(version(), Ok(latest()));
    assert_eq!(is_whole(&place).await.jobs, 6);
}

#[tokio::test]
async fn a_migration_that_is_cut_off_leaves_the_store_as_it_was() {
    let place = Folder::new();
    let conn = of_version(place.0.path(), 2);
    fill(&conn);
    // Something in the way of the last of its statements.
    conn.execute_batch("CREATE TABLE store_key (x INTEGER)")
        .expect("made");
    drop(conn);
    let opened = SqliteStore::open(&place.file(), Opening::in_folder(place.0.path(), 1));
    assert!(matches!(opened.err(), Some(StoreError::Disk(_))));
    let conn = file::connect(&place.file()).expect("opens");
    assert_eq!(migrate::version(&conn), Ok(2));
    let jobs: u32 = conn
        .query_row("SELECT count(*) FROM jobs", [], |row| row.get(0))
        .expect("counted");
    assert_eq!(jobs, 6);
}
