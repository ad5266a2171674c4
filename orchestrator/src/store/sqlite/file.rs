//! The file of a store, and the lock beside it.

use super::is_damage;
use crate::store::StoreError;
use rusqlite::Connection;
use std::fs::File;
use std::path::Path;

/// The lock of a store's file, for as long as it lives.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing the file is not enough: a process that is being started at this moment has it as well.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Takes the lock of a store's file.
pub(super) fn lock(path: &Path) -> Result<Lock, StoreError> {
    let open = |why| unopened(path, why);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.with_extension("lock"))
        .map_err(|error| open(error.to_string()))?;
    match lock.try_lock() {
        Ok(()) => Ok(Lock(lock)),
        Err(std::fs::TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(open(error.to_string())),
    }
}

/// Opens or makes the file. A key that is deleted is overwritten where that costs no further write.
pub(super) fn connect(path: &Path) -> Result<Connection, StoreError> {
    let failed = |error| of(path, &error);
    let conn = Connection::open(path).map_err(failed)?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF; PRAGMA secure_delete = FAST;",
    )
    .map_err(failed)?;
    Ok(conn)
}

/// Why a file cannot be opened.
pub(super) fn of(path: &Path, error: &rusqlite::Error) -> StoreError {
    if is_damage(error) {
        return damaged(path, error.to_string());
    }
    unopened(path, error.to_string())
}

pub(super) fn unopened(path: &Path, why: String) -> StoreError {
    StoreError::Open {
        path: path.to_owned(),
        why,
    }
}

/// An error that names the file as it was given.
pub(super) fn named(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Damaged { why, .. } => damaged(path, why),
        error => error,
    }
}

pub(super) fn damaged(path: &Path, why: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        why,
    }
}
