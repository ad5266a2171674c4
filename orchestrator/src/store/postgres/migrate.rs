//! Brings a database to the latest schema. Of several orchestrators that start at once, one does it
//! and the others wait.

use super::disk;
use super::link::Link;
use crate::store::StoreError;
use crate::store::database::Statement;
use crate::store::migrations::{behind, refuse_newer};
use tokio_postgres::{Client, Transaction};

/// The lock of the database that is held meanwhile: any number that nobody else uses there.
const LOCK: i64 = 0x7465_7468_6572_0001;

/// Brings it to the latest version in one transaction, and says which it had. Doing it again changes
/// nothing.
pub(super) async fn migrate(link: &mut Link, now_ms: u64) -> Result<u32, StoreError> {
    let (found, transaction) = run(link.client(), now_ms).await?;
    transaction.commit().await.map_err(|error| disk(&error))?;
    Ok(found)
}

/// The same, and takes it back.
pub(super) async fn try_out(link: &mut Link, now_ms: u64) -> Result<u32, StoreError> {
    let (found, transaction) = run(link.client(), now_ms).await?;
    transaction.rollback().await.map_err(|error| disk(&error))?;
    Ok(found)
}

/// The schema of a database; 0 where there is no store.
pub(super) async fn version(link: &Link) -> Result<u32, StoreError> {
    let there = "SELECT count(*) FROM pg_tables
        WHERE tablename = 'schema_migrations' AND schemaname = ANY (current_schemas(false))";
    let number = async |sql| {
        let rows = link.rows(&Statement::new(sql, [])).await?;
        let row = rows.into_iter().next();
        row.map_or(Ok(0), |row| row.read("a schema").u32())
    };
    if number(there).await? == 0 {
        return Ok(0);
    }
    number("SELECT coalesce(max(version), 0) FROM schema_migrations").await
}

async fn run(client: &mut Client, now_ms: u64) -> Result<(u32, Transaction<'_>), StoreError> {
    let failed = |error: tokio_postgres::Error| disk(&error);
    let tx = client.transaction().await.map_err(failed)?;
    // A migration over many jobs may take longer than a statement otherwise may, and those who start
    // at the same time wait for it.
    tx.batch_execute(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
         SET LOCAL idle_in_transaction_session_timeout = 0",
    )
    .await
    .map_err(failed)?;
    tx.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await
        .map_err(failed)?;
    tx.batch_execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
            version    BIGINT NOT NULL PRIMARY KEY,
            name       TEXT   NOT NULL,
            applied_ms BIGINT NOT NULL
        )",
    )
    .await
    .map_err(failed)?;
    let found = tx
        .query_one(
            "SELECT coalesce(max(version), 0) FROM schema_migrations",
            &[],
        )
        .await
        .map_err(failed)?
        .get::<_, i64>(0);
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    refuse_newer(found)?;
    for (version, migration) in behind(found) {
        tx.batch_execute(migration.postgres).await.map_err(failed)?;
        tx.execute(
            "INSERT INTO schema_migrations (version, name, applied_ms) VALUES ($1, $2, $3)",
            &[&i64::from(version), &migration.name, &now_ms.cast_signed()],
        )
        .await
        .map_err(failed)?;
    }
    Ok((found, tx))
}
