//! Dropping a tenant's key from a store's file, at an operator's word. (RSV-5)

use super::backup::{look_at, store_version};
use super::{disk, execute, file};
use crate::store::migrations::require_latest;
use crate::store::{StoreError, keys};
use std::path::Path;
use tether_wire::TenantId;

/// Forgets a tenant's key in a store that nobody has open, as [`crate::store::MetadataStore::forget_key`]
/// does in one that is open, and says whether it was there. The store's own key is not needed.
///
/// # Errors
/// When there is no store, when it is open or damaged, or when its schema is an earlier or later one.
pub fn forget_key(path: &Path, tenant: &TenantId) -> Result<bool, StoreError> {
    let _lock = file::lock(path)?;
    require_latest(store_version(&look_at(path)?, path)?)?;
    let conn = file::connect(path)?;
    // Overwritten in the file, and in no log beside it.
    conn.execute_batch("PRAGMA secure_delete = ON")
        .map_err(disk)?;
    let gone = execute(&conn, &keys::forget(tenant))?;
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .map_err(disk)?;
    conn.close().map_err(|(_, error)| disk(error))?;
    Ok(!gone.is_empty())
}
