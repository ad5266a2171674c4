//! The suite on SQLite, and what holds for its kind alone: what a power cut leaves, what shares a
//! commit, what the file itself can be, what is counted beside the jobs.

mod backup;
mod counts;
mod durability;
mod files;
mod group_commit;
mod killed;
mod migration;
mod power_cut;

use super::*;
use crate::job::{Job, JobState, Step};
use crate::store::suite::*;
use crate::store::{MetadataStore, Report, Reserved, Retention};
use std::sync::Arc;
use tempfile::TempDir;
use tether_wire::TenantId;

/// A folder for a store.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self) -> std::path::PathBuf {
        file_in(self.0.path())
    }
}

impl Place for Folder {
    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn open_with(&self, opening: Opening) -> StoreFuture<'_, Arc<dyn MetadataStore>> {
        Box::pin(async move {
            let store = SqliteStore::open(&self.file(), opening)?;
            Ok(Arc::new(store) as Arc<dyn MetadataStore>)
        })
    }

    fn check(&self) -> StoreFuture<'_, Report> {
        Box::pin(async move {
            let key = Opening::in_folder(self.folder(), 1).key_file;
            super::check(&self.file(), &key, 1).await
        })
    }

    fn forget_key(&self, tenant: TenantId) -> StoreFuture<'_, bool> {
        Box::pin(async move { super::forget_key(&self.file(), &tenant) })
    }

    fn behind(&self, statements: Vec<Statement>) -> StoreFuture<'_, Vec<Rows>> {
        Box::pin(async move {
            let mut conn = file::connect(&self.file())?;
            let behind = conn.transaction().map_err(disk)?;
            let rows = execute_all(&behind, &statements)?;
            behind.commit().map_err(disk)?;
            Ok(rows)
        })
    }
}

fn file_in(dir: &Path) -> std::path::PathBuf {
    dir.join("s.sqlite")
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(&file_in(dir), Opening::in_folder(dir, 1)).expect("opens")
}

async fn place() -> Option<Folder> {
    Some(Folder::new())
}

mod suite {
    crate::store::suite::suite!(super::super::place);
}

/// Records a job from inside a transaction.
fn record(conn: &Connection, token: &str) -> Result<(), StoreError> {
    let statements = crate::store::jobs::reserve(&job(token), &Retention::default());
    execute_all(conn, &statements).map(|_| ())
}
