//! The suite on PostgreSQL, and what holds for its kind alone: several processes on one database, a
//! server that stops at once, connections that are cut, rows that others hold.

mod cut;
mod held;
mod stopped;
mod together;

#[path = "../../../../tests/support/postgres.rs"]
mod server;

use super::*;
use crate::store::suite;
use crate::store::{MetadataStore, Report};
use server::{Server, skip};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;

/// A server of its own, for those who stop it.
fn own_server() -> Option<Server> {
    match Server::start() {
        Ok(server) => Some(server),
        Err(missing) => {
            skip(&missing);
            None
        }
    }
}

/// The server of all other tests, each with a database of its own.
fn shared_server() -> Option<&'static Server> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    match SERVER.get_or_init(Server::start) {
        Ok(server) => Some(server),
        Err(missing) => {
            skip(missing);
            None
        }
    }
}

/// An empty database, and a folder for its key.
struct Database {
    url: String,
    folder: TempDir,
}

impl Database {
    fn on(server: &Server) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            url: server.database(&format!("t{number}")),
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn place(&self) -> Place {
        Place::new(&self.url).expect("valid")
    }

    async fn open(&self) -> Result<PostgresStore, StoreError> {
        let opening = Opening::in_folder(self.folder.path(), 1);
        PostgresStore::connect(self.place(), opening).await
    }
}

impl suite::Place for Database {
    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn open_with(&self, opening: Opening) -> StoreFuture<'_, Arc<dyn MetadataStore>> {
        Box::pin(async move {
            let store = PostgresStore::connect(self.place(), opening).await?;
            Ok(Arc::new(store) as Arc<dyn MetadataStore>)
        })
    }

    fn check(&self) -> StoreFuture<'_, Report> {
        Box::pin(async move { self.open().await?.check().await })
    }

    fn forget_key(&self, tenant: TenantId) -> StoreFuture<'_, bool> {
        Box::pin(async move { super::forget_key(&self.place(), &tenant).await })
    }

    fn behind(&self, statements: Vec<Statement>) -> StoreFuture<'_, Vec<Rows>> {
        Box::pin(async move {
            let link = Link::open(&self.place()).await?;
            let all: Vec<&Statement> = statements.iter().collect();
            let ran = link.transaction(&all).await;
            ran.map_err(|failed| StoreError::Disk(format!("{failed:?}")))
        })
    }
}

async fn place() -> Option<Database> {
    let server = tokio::task::spawn_blocking(shared_server);
    server.await.expect("starts").map(Database::on)
}

/// Asks until the server is reached again, as whoever has to record something does.
async fn until_reached<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    loop {
        match ask().await {
            Err(StoreError::Disk(_) | StoreError::Connect { .. }) => {
                // Polling for an event of another process; nothing depends on this time.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

mod kind {
    crate::store::suite::suite!(super::super::place);
}

#[test]
fn where_a_database_is_can_be_told_without_its_password() {
    let refused = |url: &str| Place::new(url).err().expect("refused");
    assert!(refused("postgres://me:secret@db.example/tether").contains("password_file"));
    assert!(refused("postgres://me@db.example/x?sslmode=require").contains("TLS"));
    assert!(refused("dbname=x").contains("no host"));
    assert!(!refused("nonsense").is_empty());
    let place = Place::new("postgres://me@db.example,other/tether").expect("valid");
    assert_eq!(place.name(), "db.example,other/tether");
    let local = Place::new("host=/run/postgresql dbname=tether").expect("valid");
    assert_eq!(local.name(), "/run/postgresql/tether");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told_with_its_name_and_not_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(&server::url_in(folder.path(), "x")).expect("valid");
    let opening = Opening::in_folder(folder.path(), 1);
    let told = PostgresStore::connect(place, opening).await.err();
    let told = told.expect("refused").to_string();
    let name = folder.path().display().to_string();
    assert!(
        told.contains(&name) && told.contains("cannot be reached"),
        "{told}"
    );
}
