//! The store in PostgreSQL, for several orchestrators. The only module that knows its client, and
//! what PostgreSQL alone is told.
//!
//! One connection writes: operations that wait are sent as one transaction, all at once, so that a
//! group costs one round trip and one flush however many it holds. Another one reads, and a third one
//! says who lives. All are made anew when they are lost. Nothing here is in memory that another
//! orchestrator would have to know.
//!
//! The connection is not encrypted: what is a tenant's is sealed before it is sent, the rest wants a
//! private network or a local socket.

mod link;
mod migrate;
mod pipeline;
#[cfg(test)]
mod tests;
mod writer;

use super::database::{Cell, Counts, Database, Param, Row, Rows, Statement};
use super::keys::{self, Keys};
use super::{Opening, Report, Store, StoreError, StoreFuture};
use crate::job::JobState;
use crate::secret_file;
use link::Link;
use pipeline::Pipeline;
use std::fmt::Write;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use tether_wire::TenantId;
use tokio_postgres::config::Host;
use tokio_postgres::types::{ToSql, Type};
use writer::Writer;

/// Name under which our connections are listed.
const APPLICATION: &str = "tether";
/// Time for an answer: longer than the server itself gives a statement.
const PATIENCE: Duration = Duration::from_secs(10);

/// The store in PostgreSQL.
pub type PostgresStore = Store<Postgres>;

/// Where a database is, and how to get in.
#[derive(Clone)]
pub struct Place {
    config: tokio_postgres::Config,
    /// Hosts and name, for people.
    name: String,
    /// Time for an answer. What has none by then is given up with its connection.
    patience: Duration,
}

impl Place {
    /// The database that a URL names, or a text of `key=value` pairs, as PostgreSQL's own tools take
    /// them. A password is not part of it.
    ///
    /// # Errors
    /// Says what of it cannot be understood.
    pub fn new(url: &str) -> Result<Self, String> {
        let mut config = tokio_postgres::Config::from_str(url).map_err(|error| {
            let why = std::error::Error::source(&error);
            why.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"))
        })?;
        if config.get_password().is_some() {
            return Err("holds a password: put that into `password_file`".to_owned());
        }
        if config.get_hosts().is_empty() {
            return Err("names no host".to_owned());
        }
        if config.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
            let why = "asks for TLS, which this store does not speak: use a local socket or a private network";
            return Err(why.to_owned());
        }
        config.application_name(APPLICATION);
        let name = name_of(&config);
        Ok(Self {
            config,
            name,
            patience: PATIENCE,
        })
    }

    /// With the password in a file that only its owner can read.
    ///
    /// # Errors
    /// When it cannot be read, or can be by others.
    pub fn with_password_file(mut self, path: &Path) -> Result<Self, StoreError> {
        let failed = |why: String| StoreError::Key {
            path: path.to_owned(),
            why,
        };
        let password = secret_file::read(path).map_err(|error| failed(error.to_string()))?;
        let password = password.ok_or_else(|| failed("there is no such file".to_owned()))?;
        self.config.password(password);
        Ok(self)
    }

    /// Hosts and name of the database, without user and password.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn unreachable(&self, why: impl Into<String>) -> StoreError {
        StoreError::Connect {
            place: self.name.clone(),
            why: why.into(),
        }
    }
}

fn name_of(config: &tokio_postgres::Config) -> String {
    let mut name = String::new();
    for host in config.get_hosts() {
        let separator = if name.is_empty() { "" } else { "," };
        let _ = match host {
            Host::Tcp(host) => write!(name, "{separator}{host}"),
            Host::Unix(path) => write!(name, "{separator}{}", path.display()),
        };
    }
    let database = config.get_dbname().or(config.get_user());
    format!("{name}/{}", database.unwrap_or_default())
}

impl PostgresStore {
    /// Reaches the database, brings its schema up to date, and makes sure that the key is its own.
    ///
    /// # Errors
    /// When it cannot be reached, was made by a later version, or is sealed under another key.
    pub async fn connect(place: Place, opening: Opening) -> Result<Self, StoreError> {
        let mut link = Link::open(&place).await?;
        migrate::migrate(&mut link, opening.now_ms).await?;
        let key = unlock(&link, &opening.key_file).await?;
        Ok(Self {
            database: Postgres {
                reader: Pipeline::new(place.clone()),
                lives: Pipeline::new(place.clone()),
                writer: Writer::start(place, link, opening.on_commit),
            },
            keys: Keys::new(key),
            retention: opening.retention,
        })
    }
}

/// The store's key. Of several orchestrators that start a new store at once, one makes it.
async fn unlock(link: &Link, path: &Path) -> Result<super::seal::Key, StoreError> {
    let read = async || keys::read_remembered(link.rows(&keys::remembered()).await?);
    let remembered = read().await?;
    let unlocked = keys::unlock(path, remembered)?;
    let id = unlocked.key.id();
    if remembered.is_none() {
        link.rows(&keys::remember(id)).await?;
        if read().await? != Some(id) {
            if unlocked.is_new {
                // Nothing was sealed under it; left there, it would be taken for the right one.
                let _ = std::fs::remove_file(path);
                return Err(StoreError::KeyMissing(path.to_owned()));
            }
            return Err(StoreError::WrongKey(path.to_owned()));
        }
    }
    Ok(unlocked.key)
}

/// Checks a store that lies in a database. It is left as it is.
///
/// # Errors
/// When it cannot be reached, has an earlier or later schema, or is sealed under another key.
pub async fn check(place: Place, opening: Opening) -> Result<Report, StoreError> {
    let link = Link::open(&place).await?;
    super::migrations::require_latest(migrate::version(&link).await?)?;
    drop(link);
    let store = PostgresStore::connect(place, opening).await?;
    let report = store.check().await;
    store.database.close().await?;
    report
}

/// Forgets a tenant's key, also while orchestrators run, and says whether it was there. The store's own
/// key is not needed.
///
/// # Errors
/// When the database cannot be reached, or has an earlier or later schema.
pub async fn forget_key(place: &Place, tenant: &TenantId) -> Result<bool, StoreError> {
    let link = Link::open(place).await?;
    super::migrations::require_latest(migrate::version(&link).await?)?;
    let gone = link.rows(&keys::forget(tenant)).await?;
    Ok(!gone.is_empty())
}

/// The schema that the store of a database has, and the migrations that are missing; 0 where there is
/// no store. A dry run tries them and takes them back.
///
/// # Errors
/// When it cannot be reached, or was made by a later version.
pub async fn migrate(
    place: &Place,
    dry_run: bool,
    now_ms: u64,
) -> Result<(u32, Vec<&'static str>), StoreError> {
    let mut link = Link::open(place).await?;
    let found = if dry_run {
        migrate::try_out(&mut link, now_ms).await?
    } else {
        migrate::migrate(&mut link, now_ms).await?
    };
    let missing = super::migrations::behind(found);
    Ok((found, missing.map(|(_, it)| it.name).collect()))
}

/// A PostgreSQL database.
pub struct Postgres {
    writer: Writer,
    reader: Pipeline,
    /// For leases: an owner whose writer waits for others must not be taken for lost.
    lives: Pipeline,
}

impl Database for Postgres {
    fn run(&self, statements: Vec<Statement>) -> StoreFuture<'_, Vec<Rows>> {
        Box::pin(self.writer.run(statements))
    }

    fn run_volatile(&self, statement: Statement) -> StoreFuture<'_, Rows> {
        Box::pin(self.lives.ask(statement))
    }

    fn read(&self, statement: Statement) -> StoreFuture<'_, Rows> {
        Box::pin(self.reader.ask(statement))
    }

    /// Counted by the index on states, on the connection that reads.
    fn counts(&self) -> StoreFuture<'_, Counts> {
        let sql = "SELECT state, count(*) FROM jobs GROUP BY state";
        Box::pin(async move {
            let mut counts: Counts = JobState::ALL.into_iter().map(|state| (state, 0)).collect();
            for row in self.reader.ask(Statement::new(sql, [])).await? {
                let mut row = row.read("a count of jobs");
                let state = row.named(JobState::from_name)?;
                let count = usize::try_from(row.u64()?).unwrap_or(usize::MAX);
                for it in counts.iter_mut().filter(|it| it.0 == state) {
                    it.1 = count;
                }
            }
            Ok(counts)
        })
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.writer.close().await;
            self.reader.close();
            self.lives.close();
            Ok(())
        })
    }
}

impl Param {
    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Int(value) => value,
            Self::Text(text) => text,
            Self::Blob(bytes) => bytes,
        }
    }

    fn sql_type(&self) -> Type {
        match self {
            Self::Int(_) => Type::INT8,
            Self::Text(_) => Type::TEXT,
            Self::Blob(_) => Type::BYTEA,
        }
    }
}

/// A row as it came. What cannot be read is nothing, which whoever reads the row refuses.
fn row(from: &tokio_postgres::Row) -> Row {
    let cell = |at: usize| {
        let cell = match *from.columns()[at].type_() {
            Type::INT8 => from
                .try_get::<_, Option<i64>>(at)
                .map(|it| it.map(Cell::Int)),
            Type::BYTEA => from
                .try_get::<_, Option<Vec<u8>>>(at)
                .map(|it| it.map(Cell::Blob)),
            _ => from
                .try_get::<_, Option<String>>(at)
                .map(|it| it.map(Cell::Text)),
        };
        cell.ok().flatten().unwrap_or(Cell::Null)
    };
    Row((0..from.len()).map(cell).collect())
}

/// An error in the database's words, but for what it quotes of records.
fn disk(error: &tokio_postgres::Error) -> StoreError {
    StoreError::Disk(match error.as_db_error() {
        Some(said) => format!("PostgreSQL: {} ({})", said.message(), said.code().code()),
        None => {
            let why = std::error::Error::source(error);
            why.map_or_else(|| error.to_string(), |why| format!("{error}: {why}"))
        }
    })
}
