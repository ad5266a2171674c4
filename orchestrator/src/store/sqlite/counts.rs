//! What is followed in memory, in temporary tables of the one connection that writes.
//!
//! How many jobs are in each state, so that asking costs the same however many there are: triggers
//! move the counts with the jobs, so that they are undone with what is undone. And who lives: one
//! process at a time has the file, so that whoever lived before it was opened lives no more.

use super::disk;
use crate::job::JobState;
use crate::store::StoreError;
use rusqlite::Connection;

/// Counts the jobs that are there, once, and follows them from then on; nobody lives yet.
pub(super) fn follow(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "PRAGMA temp_store = MEMORY;
         CREATE TEMP TABLE job_counts (
             state TEXT    NOT NULL PRIMARY KEY,
             jobs  INTEGER NOT NULL
         ) STRICT, WITHOUT ROWID;
         INSERT INTO job_counts SELECT state, count(*) FROM main.jobs GROUP BY state;
         CREATE TEMP TRIGGER job_added AFTER INSERT ON main.jobs BEGIN
             INSERT INTO job_counts VALUES (NEW.state, 1)
                 ON CONFLICT (state) DO UPDATE SET jobs = jobs + 1;
         END;
         CREATE TEMP TRIGGER job_moved AFTER UPDATE OF state ON main.jobs BEGIN
             UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state;
             INSERT INTO job_counts VALUES (NEW.state, 1)
                 ON CONFLICT (state) DO UPDATE SET jobs = jobs + 1;
         END;
         CREATE TEMP TRIGGER job_forgotten AFTER DELETE ON main.jobs BEGIN
             UPDATE job_counts SET jobs = jobs - 1 WHERE state = OLD.state;
         END;
         CREATE TEMP TABLE orchestrators (
             id             BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 32),
             region         TEXT    NOT NULL,
             started_ms     INTEGER NOT NULL,
             lease_until_ms INTEGER NOT NULL
         ) STRICT;",
    )
}

/// The counts of all states.
pub(super) fn read(conn: &Connection) -> Result<Vec<(JobState, usize)>, StoreError> {
    let mut statement = conn
        .prepare_cached("SELECT coalesce(sum(jobs), 0) FROM job_counts WHERE state = ?1")
        .map_err(disk)?;
    JobState::ALL
        .into_iter()
        .map(|state| {
            let count: i64 = statement
                .query_row([state.as_str()], |row| row.get(0))
                .map_err(disk)?;
            Ok((state, usize::try_from(count).unwrap_or(0)))
        })
        .collect()
}
