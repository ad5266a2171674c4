//! The schema, as the migrations that lead to it. A migration is never changed once released.

use crate::store::StoreError;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// Migrations in order; the version is the position, from 1.
const MIGRATIONS: &[(&str, &str)] = &[
    (
        "jobs, reservations, known models",
        "
    CREATE TABLE jobs (
        correlation_id    BLOB    NOT NULL PRIMARY KEY CHECK (length(correlation_id) = 16),
        tenant            TEXT    NOT NULL,
        retry_token       TEXT    NOT NULL,
        request_hash      BLOB    NOT NULL CHECK (length(request_hash) = 32),
        model             TEXT    NOT NULL,
        digest            BLOB             CHECK (length(digest) = 32),
        seed              INTEGER NOT NULL,
        state             TEXT    NOT NULL CHECK (state IN
            ('reserved', 'dispatched', 'streaming', 'done', 'failed', 'cancelled')),
        owner             BLOB    NOT NULL CHECK (length(owner) = 32),
        lease_until_ms    INTEGER NOT NULL,
        fence             INTEGER NOT NULL CHECK (fence > 0),
        attempts          INTEGER NOT NULL DEFAULT 0,
        worker            BLOB             CHECK (length(worker) = 32),
        streamed          INTEGER NOT NULL DEFAULT 0,
        prompt_tokens     INTEGER NOT NULL DEFAULT 0,
        completion_tokens INTEGER NOT NULL DEFAULT 0,
        finish            TEXT,
        error             TEXT,
        created_ms        INTEGER NOT NULL,
        updated_ms        INTEGER NOT NULL,
        UNIQUE (tenant, retry_token)
    ) STRICT;
    CREATE INDEX jobs_by_state ON jobs (state, updated_ms);

    CREATE TABLE reservations (
        correlation_id BLOB    NOT NULL PRIMARY KEY
            REFERENCES jobs (correlation_id) ON DELETE CASCADE,
        tenant         TEXT    NOT NULL,
        fence          INTEGER NOT NULL,
        max_tokens     INTEGER,
        opened_ms      INTEGER NOT NULL,
        closed_ms      INTEGER,
        outcome        TEXT
    ) STRICT;

    CREATE TABLE known_models (
        name          TEXT    NOT NULL,
        version       TEXT    NOT NULL,
        digest        BLOB    NOT NULL CHECK (length(digest) = 32),
        first_seen_ms INTEGER NOT NULL,
        PRIMARY KEY (name, version, digest)
    ) STRICT;
    ",
    ),
    (
        "when models were last offered, and by whom they came",
        "
    ALTER TABLE known_models ADD COLUMN last_offered_ms INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE known_models ADD COLUMN offered_by BLOB CHECK (length(offered_by) = 32);
    UPDATE known_models SET last_offered_ms = unixepoch() * 1000;
    ",
    ),
];

/// The last version that is known here.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a list in this file, not longer than it"
)]
pub(super) const fn latest() -> u32 {
    MIGRATIONS.len() as u32
}

/// Brings a database to the latest version, in one transaction. Doing it again changes nothing.
pub(super) fn migrate(conn: &mut Connection, now_ms: u64) -> Result<u32, StoreError> {
    let disk = super::disk;
    let tx = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(disk)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
            version    INTEGER NOT NULL PRIMARY KEY,
            name       TEXT    NOT NULL,
            applied_ms INTEGER NOT NULL
        ) STRICT;",
    )
    .map_err(disk)?;
    let found: u32 = tx
        .query_row("SELECT max(version) FROM schema_migrations", [], |row| {
            row.get::<_, Option<u32>>(0)
        })
        .optional()
        .map_err(disk)?
        .flatten()
        .unwrap_or(0);
    if found > latest() {
        return Err(StoreError::Newer {
            found,
            known: latest(),
        });
    }
    for (version, (name, sql)) in (1_u32..).zip(MIGRATIONS).skip(found as usize) {
        tx.execute_batch(sql).map_err(disk)?;
        tx.execute(
            "INSERT INTO schema_migrations (version, name, applied_ms) VALUES (?1, ?2, ?3)",
            rusqlite::params![version, name, i64::try_from(now_ms).unwrap_or(i64::MAX)],
        )
        .map_err(disk)?;
    }
    tx.commit().map_err(disk)?;
    Ok(latest())
}
