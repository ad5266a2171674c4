//! Copies of a store's file: to keep, and to bring back. (RSV-2)

use super::migrate::{self as schema};
use super::{aside, disk, file};
use crate::store::StoreError;
use crate::store::migrations::{behind, refuse_newer};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// How often a copy is tried while the store is busy, and how long it waits in between.
const COPY_TRIES: u32 = 100;
const COPY_PAUSE: Duration = Duration::from_millis(50);

/// Writes a backup of a store, which may be in use, to a new file. It holds what was on the disk when
/// this was called, and is whole; the store's key is not in it.
///
/// # Errors
/// When the file is there, the store is damaged or was made by a later version, or the disk fails.
pub fn backup(path: &Path, to: &Path) -> Result<(), StoreError> {
    let copied = copy(path, folder_of(to))?;
    let refused = |why: io::Error| file::unopened(to, why.to_string());
    copied
        .persist_noclobber(to)
        .map_err(|error| refused(error.error))?;
    sync(folder_of(to)).map_err(refused)
}

/// Brings a backup back in place of a store that nobody has open, and says where what lay there lies
/// now: the store, and what it left of its log. Of one whose file somebody took away already that may
/// be the log alone.
///
/// # Errors
/// When the store is open; when it or the backup was made by a later version; when it changed after
/// the backup was made, unless that is to be lost; when the backup is damaged; when too many stores
/// were set aside already. The store is where it was then.
pub fn restore(backup: &Path, path: &Path, lose_later: bool) -> Result<Vec<PathBuf>, StoreError> {
    let _lock = file::lock(path)?;
    let restored = copy(backup, folder_of(path))?;
    let failed = |why: io::Error| file::unopened(path, why.to_string());
    if path.try_exists().map_err(failed)? {
        refuse_later(path, restored.path(), lose_later)?;
        // Written back into the file, where it is not too damaged for that.
        if let Ok(conn) = Connection::open(path) {
            let _ = conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            let _ = conn.close();
        }
    }
    let aside = aside::set_aside(path, |from, to| fs::hard_link(from, to)).map_err(failed)?;
    // On the disk before the other is there, beside which a log of before would count.
    let replace = || restored.persist(path).map_err(|error| error.error);
    if let Err(error) = sync(folder_of(path)).and_then(|()| replace()) {
        aside.put_back();
        return Err(failed(error));
    }
    sync(folder_of(path)).map_err(failed)?;
    Ok(aside.into_paths())
}

/// A whole copy of a store, in a file without a log beside it.
pub(super) fn copy(path: &Path, folder: &Path) -> Result<NamedTempFile, StoreError> {
    let from = look_at(path)?;
    refuse_newer(store_version(&from, path)?)?;
    let failed = |why: io::Error| file::unopened(folder, why.to_string());
    let to = NamedTempFile::new_in(folder).map_err(failed)?;
    let mut conn = Connection::open(to.path()).map_err(disk)?;
    pages(&from, &mut conn)?;
    conn.execute_batch("PRAGMA journal_mode = DELETE")
        .map_err(disk)?;
    if let Some(problem) = problems(&conn)?.into_iter().next() {
        return Err(file::damaged(path, problem));
    }
    conn.close().map_err(|(_, error)| disk(error))?;
    to.as_file().sync_all().map_err(failed)?;
    Ok(to)
}

/// Copies all pages as one commit left them.
fn pages(from: &Connection, to: &mut Connection) -> Result<(), StoreError> {
    let backup = Backup::new(from, to).map_err(disk)?;
    for _ in 0..COPY_TRIES {
        // All of them in one step: what is written meanwhile does not count.
        if backup.step(-1).map_err(disk)? == StepResult::Done {
            return Ok(());
        }
        std::thread::sleep(COPY_PAUSE);
    }
    Err(StoreError::Disk(
        "the store is too busy to be copied".to_owned(),
    ))
}

/// Opens a store to look at it, also one that is in use.
pub(super) fn look_at(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).map_err(|error| file::of(path, &error))
}

/// The schema of a store; what is none is refused.
pub(super) fn store_version(conn: &Connection, path: &Path) -> Result<u32, StoreError> {
    let found = schema::version(conn).map_err(|error| file::named(path, error))?;
    if found == 0 {
        return Err(file::unopened(path, "it holds no store".to_owned()));
    }
    Ok(found)
}

/// What SQLite itself finds wrong with a file.
pub(super) fn problems(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut check = conn.prepare("PRAGMA integrity_check").map_err(disk)?;
    let said = check.query_map([], |row| row.get(0)).map_err(disk)?;
    let mut said = said.collect::<Result<Vec<String>, _>>().map_err(disk)?;
    said.retain(|line| line != "ok");
    let dangling = schema::dangling(conn)?;
    if dangling > 0 {
        said.push(format!(
            "{dangling} records refer to others that are not there"
        ));
    }
    Ok(said)
}

/// Refuses to replace a store that a later version made, or that changed after a backup was made. One
/// that is damaged may be replaced.
fn refuse_later(path: &Path, backup: &Path, lose_later: bool) -> Result<(), StoreError> {
    let newest = |of: &Path| {
        let conn = look_at(of)?;
        refuse_newer(schema::version(&conn)?)?;
        let newest = "SELECT coalesce(max(updated_ms), 0) FROM jobs";
        conn.query_row(newest, [], |row| row.get::<_, i64>(0))
            .map_err(disk)
    };
    match newest(path) {
        Err(error @ StoreError::Newer { .. }) => Err(error),
        Ok(there) if !lose_later && there > newest(backup)? => {
            Err(StoreError::Later(path.to_owned()))
        }
        _ => Ok(()),
    }
}

/// What is needed to bring a store to the latest schema: the version that it has, and the migrations
/// that are missing. A dry run tries them on a copy and leaves the store as it is, also while it is in
/// use.
///
/// # Errors
/// When the store was made by a later version, is damaged, or, for a real run, in use.
pub fn migrate(
    path: &Path,
    dry_run: bool,
    now_ms: u64,
) -> Result<(u32, Vec<&'static str>), StoreError> {
    let run = |conn: &mut Connection| {
        let found = schema::migrate(conn, now_ms)?;
        let problem = problems(conn)?.into_iter().next();
        problem.map_or(Ok(found), |why| Err(file::damaged(path, why)))
    };
    let found = if dry_run {
        let copied = copy(path, folder_of(path))?;
        run(&mut Connection::open(copied.path()).map_err(disk)?)?
    } else {
        let _lock = file::lock(path)?;
        store_version(&look_at(path)?, path)?;
        run(&mut file::connect(path)?)?
    };
    Ok((found, behind(found).map(|(_, it)| it.name).collect()))
}

pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}
