//! What the kinds of databases have in common: statements in the SQL that all of them understand,
//! and how they are run.
//!
//! Statements are written once, with parameters `$1`, `$2`, … and columns of three types: 64-bit
//! integers, texts, byte strings. None of them looks at what the one before it found: each carries
//! its own condition, so that a database far away is asked for all of them at once.

use super::{StoreError, StoreFuture};
use crate::job::JobState;
use std::fmt;
use tether_wire::{CorrelationId, Digest, NodeId, TenantId};

/// How many jobs are in each state.
pub type Counts = Vec<(JobState, usize)>;

/// A database.
pub trait Database: Send + Sync + 'static {
    /// Runs statements in one transaction and gives the rows of each. Resolves well once they are
    /// on the disk; what waits side by side shares a flush. Where one fails, none of them counts.
    fn run(&self, statements: Vec<Statement>) -> StoreFuture<'_, Vec<Rows>>;
    /// Runs a statement about who lives. Where one process has the database, that need not outlive it.
    fn run_volatile(&self, statement: Statement) -> StoreFuture<'_, Rows>;
    /// Runs a statement that changes nothing.
    fn read(&self, statement: Statement) -> StoreFuture<'_, Rows>;
    /// Counts the jobs, without waiting for a commit.
    fn counts(&self) -> StoreFuture<'_, Counts>;
    /// Finishes what waits and closes it.
    fn close(&self) -> StoreFuture<'_, ()>;
}

/// A statement and its parameters.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its text, the same for all that differ in parameters only.
    pub(super) sql: &'static str,
    /// `$1` and so on.
    pub(super) params: Vec<Param>,
}

impl Statement {
    /// A statement with parameters.
    pub(super) fn new(sql: &'static str, params: impl IntoIterator<Item = Param>) -> Self {
        Self {
            sql,
            params: params.into_iter().collect(),
        }
    }

    /// Bytes of its parameters, about.
    pub(super) fn bytes(&self) -> usize {
        let of = |param: &Param| match param {
            Param::Int(_) => 8,
            Param::Text(text) => text.as_ref().map_or(0, String::len),
            Param::Blob(blob) => blob.as_ref().map_or(0, Vec::len),
        };
        self.params.iter().map(of).sum()
    }
}

/// A parameter; each has a type also where it is nothing.
#[derive(Clone, PartialEq, Eq)]
pub enum Param {
    /// A number or a flag.
    Int(Option<i64>),
    /// A text.
    Text(Option<String>),
    /// Bytes.
    Blob(Option<Vec<u8>>),
}

/// Of what kind, never what: parameters hold what is a tenant's.
impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(_) => f.write_str("a number"),
            Self::Text(text) => write!(f, "a text of {}", text.as_ref().map_or(0, String::len)),
            Self::Blob(blob) => write!(f, "{} bytes", blob.as_ref().map_or(0, Vec::len)),
        }
    }
}

impl From<u64> for Param {
    /// Times and fences stay far below 2^63; seeds use every bit and come back by the same way.
    fn from(value: u64) -> Self {
        Self::Int(Some(value.cast_signed()))
    }
}

impl From<Option<u64>> for Param {
    fn from(value: Option<u64>) -> Self {
        Self::Int(value.map(u64::cast_signed))
    }
}

impl From<u32> for Param {
    fn from(value: u32) -> Self {
        u64::from(value).into()
    }
}

impl From<bool> for Param {
    fn from(value: bool) -> Self {
        u64::from(value).into()
    }
}

impl From<&str> for Param {
    /// PostgreSQL keeps no zero character, so none is kept anywhere.
    fn from(text: &str) -> Self {
        Self::Text(Some(text.replace('\0', "\u{fffd}")))
    }
}

impl From<&[u8]> for Param {
    fn from(bytes: &[u8]) -> Self {
        Self::Blob(Some(bytes.to_vec()))
    }
}

impl From<Vec<u8>> for Param {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(Some(bytes))
    }
}

impl From<CorrelationId> for Param {
    fn from(id: CorrelationId) -> Self {
        id.0.as_slice().into()
    }
}

impl From<NodeId> for Param {
    fn from(id: NodeId) -> Self {
        id.0.as_slice().into()
    }
}

impl From<Option<String>> for Param {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Option<NodeId>> for Param {
    fn from(id: Option<NodeId>) -> Self {
        Self::Blob(id.map(|id| id.0.to_vec()))
    }
}

impl From<Digest> for Param {
    fn from(digest: Digest) -> Self {
        digest.0.as_slice().into()
    }
}

impl From<&TenantId> for Param {
    fn from(tenant: &TenantId) -> Self {
        tenant.as_str().into()
    }
}

/// A value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// A number or a flag.
    Int(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
}

/// The rows that a statement gave.
pub type Rows = Vec<Row>;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row(pub(super) Vec<Cell>);

impl Row {
    /// Reads its columns in their order; `what` is named where one is not what it should be.
    pub(super) fn read(self, what: &'static str) -> Columns {
        Columns {
            what,
            cells: self.0.into_iter(),
        }
    }
}

/// The columns of a row, from the first to the last.
pub(super) struct Columns {
    what: &'static str,
    cells: std::vec::IntoIter<Cell>,
}

impl Columns {
    fn corrupt(&self) -> StoreError {
        let at = self.cells.len();
        StoreError::Corrupt(format!("{}, column {at} from the end", self.what))
    }

    fn int(&mut self) -> Result<i64, StoreError> {
        match self.cells.next() {
            Some(Cell::Int(value)) => Ok(value),
            _ => Err(self.corrupt()),
        }
    }

    /// A number of 64 bits.
    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        self.int().map(i64::cast_unsigned)
    }

    /// A number of 32 bits.
    pub(super) fn u32(&mut self) -> Result<u32, StoreError> {
        let value = self.int()?;
        u32::try_from(value).map_err(|_| self.corrupt())
    }

    /// A flag.
    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.int()? != 0)
    }

    /// A text.
    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        match self.cells.next() {
            Some(Cell::Text(text)) => Ok(text),
            _ => Err(self.corrupt()),
        }
    }

    /// A text that means something.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self) -> Result<T, StoreError> {
        let text = self.text()?;
        text.parse().map_err(|_| self.corrupt())
    }

    /// A text that is a name of something.
    pub(super) fn named<T>(&mut self, find: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
        let text = self.text()?;
        find(&text).ok_or_else(|| self.corrupt())
    }

    /// Bytes.
    pub(super) fn blob(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.cells.next() {
            Some(Cell::Blob(bytes)) => Ok(bytes),
            _ => Err(self.corrupt()),
        }
    }

    /// So many bytes.
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let bytes = self.blob()?;
        bytes.try_into().map_err(|_| self.corrupt())
    }

    /// What may be nothing.
    pub(super) fn maybe<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        if self.cells.as_slice().first() == Some(&Cell::Null) {
            self.cells.next();
            return Ok(None);
        }
        read(self).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::ModelRef;

    #[test]
    fn a_column_that_is_something_else_is_told_and_not_guessed() {
        let row = |cells: &[Cell]| Row(cells.to_vec()).read("a job");
        assert_eq!(row(&[Cell::Int(-1)]).u64(), Ok(u64::MAX), "every bit");
        assert_eq!(row(&[Cell::Null]).maybe(Columns::u64), Ok(None));
        assert_eq!(row(&[Cell::Int(7)]).maybe(Columns::u32), Ok(Some(7)));
        for wrong in [
            row(&[Cell::Int(1 << 40)]).u32().err(),
            row(&[Cell::Null]).u64().err(),
            row(&[]).text().err(),
            row(&[Cell::Blob(vec![0; 31])]).bytes::<32>().err(),
            row(&[Cell::Text("x".into())]).parsed::<ModelRef>().err(),
        ] {
            let told = wrong.expect("refused").to_string();
            assert!(told.contains("a job"), "{told}");
        }
    }

    #[test]
    fn what_is_a_tenants_is_not_shown() {
        let params = ["the key".into(), Param::from(b"the prompt".as_slice())];
        let shown = format!("{:?}", Statement::new("SELECT $1, $2", params));
        assert!(!shown.contains("the key") && !shown.contains("prompt"));
        assert!(!shown.contains("112"), "{shown}");
    }
}
