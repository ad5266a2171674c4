//! The store in one SQLite file. The only module that knows rusqlite, and what SQLite alone is told.
//!
//! Write-ahead log, and a flush of the disk at each commit (`synchronous = FULL`): what was
//! answered for survives a power cut. One process at a time has the file, by a lock beside it.

mod aside;
mod backup;
mod counts;
mod file;
mod forget;
mod inspect;
mod migrate;
#[cfg(test)]
mod tests;
mod writer;

use super::database::{Cell, Counts, Database, Param, Row, Rows, Statement};
use super::keys::{self, Keys};
use super::{Opening, Store, StoreError, StoreFuture};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, ToSql};
use std::path::Path;
use writer::Writer;

pub use backup::{backup, migrate, restore};
pub use forget::forget_key;
pub use inspect::check;

/// Statements that are kept prepared: all that there are.
const PREPARED: usize = 64;

/// The store in one SQLite file.
pub type SqliteStore = Store<Sqlite>;

impl SqliteStore {
    /// Opens or makes the file and brings its schema up to date.
    ///
    /// # Errors
    /// When the file is in use, cannot be opened, was made by a later version, or is sealed under
    /// another key.
    pub fn open(path: &Path, opening: Opening) -> Result<Self, StoreError> {
        let open = |why| file::unopened(path, why);
        let lock = file::lock(path)?;
        let mut conn = file::connect(path)?;
        migrate::migrate(&mut conn, opening.now_ms).map_err(|error| file::named(path, error))?;
        counts::follow(&conn).map_err(|error| open(error.to_string()))?;
        conn.set_prepared_statement_cache_capacity(PREPARED);
        let remembered = keys::read_remembered(execute(&conn, &keys::remembered())?)?;
        let unlocked = keys::unlock(&opening.key_file, remembered)?;
        if remembered.is_none() {
            execute(&conn, &keys::remember(unlocked.key.id()))?;
        }
        let writer = Writer::start(conn, lock, opening.on_commit)
            .map_err(|error| open(error.to_string()))?;
        Ok(Self {
            database: Sqlite { writer },
            keys: Keys::new(unlocked.key),
            retention: opening.retention,
        })
    }
}

/// A SQLite file.
pub struct Sqlite {
    writer: Writer,
}

impl Database for Sqlite {
    fn run(&self, statements: Vec<Statement>) -> StoreFuture<'_, Vec<Rows>> {
        Box::pin(self.writer.run(move |conn| execute_all(conn, &statements)))
    }

    fn run_volatile(&self, statement: Statement) -> StoreFuture<'_, Rows> {
        let run = move |conn: &Connection| execute(conn, &statement);
        Box::pin(self.writer.run_volatile(run))
    }

    fn read(&self, statement: Statement) -> StoreFuture<'_, Rows> {
        Box::pin(self.writer.run(move |conn| execute(conn, &statement)))
    }

    fn counts(&self) -> StoreFuture<'_, Counts> {
        Box::pin(std::future::ready(self.writer.counts()))
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.close())
    }
}

fn execute_all(conn: &Connection, statements: &[Statement]) -> Result<Vec<Rows>, StoreError> {
    (statements.iter().map(|it| execute(conn, it))).collect()
}

/// Runs a statement. In SQLite a parameter's number stands behind a question mark.
fn execute(conn: &Connection, statement: &Statement) -> Result<Rows, StoreError> {
    let sql = statement.sql.replace('$', "?");
    let mut prepared = conn.prepare_cached(&sql).map_err(disk)?;
    let columns = prepared.column_count();
    let params = rusqlite::params_from_iter(&statement.params);
    let rows = prepared
        .query_map(params, |row| {
            let cells = (0..columns).map(|at| row.get_ref(at).map(cell));
            cells.collect::<rusqlite::Result<_>>().map(Row)
        })
        .map_err(disk)?;
    rows.collect::<Result<_, _>>().map_err(disk)
}

fn cell(value: ValueRef<'_>) -> Cell {
    match value {
        ValueRef::Integer(value) => Cell::Int(value),
        ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(bytes) => Cell::Blob(bytes.to_vec()),
        // No column is a real number.
        ValueRef::Null | ValueRef::Real(_) => Cell::Null,
    }
}

impl ToSql for Param {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Self::Int(Some(value)) => ValueRef::Integer(*value),
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Blob(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Int(None) | Self::Text(None) | Self::Blob(None) => ValueRef::Null,
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

fn disk(error: rusqlite::Error) -> StoreError {
    if is_damage(&error) {
        let path = Path::new(crate::orchestrator::STORE_FILE);
        return file::damaged(path, error.to_string());
    }
    StoreError::Disk(error.to_string())
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}
