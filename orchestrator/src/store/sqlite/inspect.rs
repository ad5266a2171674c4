//! Looks at every record of a store's file, also one that is in use: on a copy.

use super::backup::{copy, folder_of};
use super::{SqliteStore, disk, execute, file, migrate};
use crate::store::{Opening, Report, StoreError, keys};
use rusqlite::Connection;
use std::path::Path;

/// Checks a store that lies in a file. The file is left as it is, whatever its schema.
///
/// # Errors
/// When it is damaged, so that no copy of it is whole; when it was made by a later version; when its
/// key is missing or another one.
pub async fn check(path: &Path, key_file: &Path, now_ms: u64) -> Result<Report, StoreError> {
    let folder = tempfile::tempdir_in(folder_of(path))
        .map_err(|error| file::unopened(folder_of(path), error.to_string()))?;
    let copied = copy(path, folder.path())?;
    let mut opening = Opening::in_folder(folder.path(), now_ms);
    // A store of an earlier version has no key yet, and none is made by looking at it.
    if has_key(copied.path(), now_ms)? || key_file.exists() {
        opening.key_file = key_file.to_owned();
    }
    let store = SqliteStore::open(copied.path(), opening)?;
    let report = store.check().await;
    store.database.writer.close().await?;
    report
}

fn has_key(path: &Path, now_ms: u64) -> Result<bool, StoreError> {
    let mut conn = Connection::open(path).map_err(disk)?;
    migrate::migrate(&mut conn, now_ms)?;
    let found = execute(&conn, &keys::remembered())?;
    Ok(keys::read_remembered(found)?.is_some())
}
