//! Brings a file to the latest schema.

use super::disk;
use crate::store::StoreError;
use crate::store::migrations::{behind, latest, refuse_newer};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

/// The schema of a database; 0 where there is none.
pub(super) fn version(conn: &Connection) -> Result<u32, StoreError> {
    let known = "SELECT count(*) FROM sqlite_schema WHERE name = 'schema_migrations'";
    let tables: u32 = conn.query_row(known, [], |row| row.get(0)).map_err(disk)?;
    if tables == 0 {
        return Ok(0);
    }
    let found: Option<u32> = conn
        .query_row("SELECT max(version) FROM schema_migrations", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(disk)?
        .flatten();
    Ok(found.unwrap_or(0))
}

/// Brings a database to the latest version, in one transaction, and says which it had. Doing it again
/// changes nothing.
///
/// A table that others refer to is made anew in a migration, so foreign keys are looked at once, at
/// the end.
pub(super) fn migrate(conn: &mut Connection, now_ms: u64) -> Result<u32, StoreError> {
    conn.execute_batch("PRAGMA foreign_keys = OFF")
        .map_err(disk)?;
    let found = in_transaction(conn, now_ms)?;
    conn.execute_batch("PRAGMA foreign_keys = ON")
        .map_err(disk)?;
    Ok(found)
}

fn in_transaction(conn: &mut Connection, now_ms: u64) -> Result<u32, StoreError> {
    let tx = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(disk)?;
    let found = version(&tx)?;
    refuse_newer(found)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
            version    INTEGER NOT NULL PRIMARY KEY,
            name       TEXT    NOT NULL,
            applied_ms INTEGER NOT NULL
        ) STRICT;",
    )
    .map_err(disk)?;
    for (version, migration) in behind(found) {
        tx.execute_batch(migration.sqlite).map_err(disk)?;
        tx.execute(
            "INSERT INTO schema_migrations (version, name, applied_ms) VALUES (?1, ?2, ?3)",
            rusqlite::params![version, migration.name, now_ms.cast_signed()],
        )
        .map_err(disk)?;
    }
    if found < latest() && dangling(&tx)? > 0 {
        let why = "after the migration some records refer to others that are not there";
        return Err(StoreError::Corrupt(why.to_owned()));
    }
    tx.commit().map_err(disk)?;
    Ok(found)
}

/// Records that refer to others that are not there.
pub(super) fn dangling(conn: &Connection) -> Result<u32, StoreError> {
    let sql = "SELECT count(*) FROM pragma_foreign_key_check";
    conn.query_row(sql, [], |row| row.get(0)).map_err(disk)
}
