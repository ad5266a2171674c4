//! Who can read what is a tenant's: each tenant has a random key, which lies in the database, sealed
//! under the store's key, which never does. (RSV-5)
//!
//! The store's key is a file. Orchestrators that share a store have the same one: the database
//! remembers its id, and another is refused. A tenant's key whose row is gone takes everything with
//! it that was sealed under it, but for backups of before.

use super::StoreError;
use super::database::{Database, Row, Statement};
use super::seal::{self, KEY_BYTES, Key, KeyId, NONCE_BYTES, SealError};
use crate::secret_file;
use rand::TryRngCore;
use rand::rngs::OsRng;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::{CorrelationId, Digest, TenantId};

/// Name of the key's file in the data folder, unless another is configured.
pub const KEY_FILE: &str = "store.key";
/// Tenants whose keys are remembered in memory at most; those beyond are read again.
const MAX_REMEMBERED: usize = 4_096;
/// The table of tenants' keys, which each is bound to.
const TABLE: &str = "tenant_keys";

/// Random bytes of the system.
fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    (OsRng.try_fill_bytes(&mut bytes))
        .map_err(|error| StoreError::Disk(format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}

/// The store's key, as it was found.
pub(super) struct Unlocked {
    pub(super) key: Key,
    /// Whether the file was made just now.
    pub(super) is_new: bool,
}

/// The key in a file, for a store that remembers the id of one, or of none yet: then it is made where
/// there is none.
pub(super) fn unlock(path: &Path, remembered: Option<KeyId>) -> Result<Unlocked, StoreError> {
    let failed = |why: String| StoreError::Key {
        path: path.to_owned(),
        why,
    };
    let held = secret_file::read(path).map_err(|error| failed(error.to_string()))?;
    let held = held.map(|text| text.parse::<Digest>()).transpose();
    let held = held.map_err(|_| failed(format!("it does not hold {KEY_BYTES} bytes in hex")))?;
    match (held.map(|it| Key::new(it.0)), remembered) {
        (Some(key), Some(id)) if key.id() != id => Err(StoreError::WrongKey(path.to_owned())),
        (Some(key), _) => Ok(Unlocked { key, is_new: false }),
        (None, Some(_)) => Err(StoreError::KeyMissing(path.to_owned())),
        (None, None) => {
            let bytes = random()?;
            let text = format!("{}\n", Digest(bytes).to_hex());
            match secret_file::make(path, &text) {
                Ok(()) => Ok(Unlocked {
                    key: Key::new(bytes),
                    is_new: true,
                }),
                // Another process was quicker; what it made is there as a whole.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => unlock(path, remembered),
                Err(error) => Err(failed(error.to_string())),
            }
        }
    }
}

/// The id of the key that the store remembers.
pub(super) fn remembered() -> Statement {
    Statement::new("SELECT key_id FROM store_key", [])
}

/// What [`remembered`] found.
pub(super) fn read_remembered(rows: Vec<Row>) -> Result<Option<KeyId>, StoreError> {
    let first = rows.into_iter().next();
    let read = |row: Row| row.read("the id of the store's key").bytes();
    first.map(read).transpose()
}

/// Has the store remember a key, unless it remembers one.
pub(super) fn remember(id: KeyId) -> Statement {
    Statement::new(
        "INSERT INTO store_key (only_one, key_id) VALUES (1, $1) ON CONFLICT DO NOTHING",
        [id.as_slice().into()],
    )
}

/// Something sealed under a tenant's key.
pub(super) struct Sealed {
    pub(super) tenant: TenantId,
    /// The key, as it lies in the database: what is sealed is kept only where it still does.
    pub(super) wrapped_key: Vec<u8>,
    pub(super) bytes: Vec<u8>,
}

#[derive(Clone)]
struct TenantKey {
    key: Key,
    wrapped: Vec<u8>,
}

/// The store's key, and those of tenants that were used of late.
pub(super) struct Keys {
    store: Key,
    tenants: Mutex<HashMap<TenantId, Arc<TenantKey>>>,
}

impl Keys {
    pub(super) fn new(store: Key) -> Self {
        Self {
            store,
            tenants: Mutex::default(),
        }
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<TenantKey>>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seals a text for a place of a tenant's, whose key is made where there is none.
    pub(super) async fn seal(
        &self,
        database: &impl Database,
        tenant: &TenantId,
        place: &[u8],
        text: &[u8],
        now_ms: u64,
    ) -> Result<Sealed, StoreError> {
        let held = self.tenants().get(tenant).cloned();
        let held = match held {
            Some(held) => held,
            None => self.learn(database, tenant, now_ms).await?,
        };
        Ok(Sealed {
            tenant: tenant.clone(),
            wrapped_key: held.wrapped.clone(),
            bytes: seal::seal(&held.key, random()?, place, text),
        })
    }

    /// Opens what was sealed for a place of a tenant's, with the key as it lies in the database.
    pub(super) fn unseal(
        &self,
        tenant: &TenantId,
        wrapped: Option<Vec<u8>>,
        place: &[u8],
        sealed: &[u8],
        what: &str,
    ) -> Result<Vec<u8>, StoreError> {
        let wrapped = wrapped.ok_or_else(|| StoreError::KeyGone(tenant.clone()))?;
        let key = self.unwrap(tenant, &wrapped)?;
        seal::unseal(&key, place, sealed).map_err(|error| match error {
            SealError::OtherKey => StoreError::KeyGone(tenant.clone()),
            SealError::Damaged => StoreError::Unreadable(what.to_owned()),
        })
    }

    /// A tenant's key is read again when it is next used.
    pub(super) fn forget(&self, tenant: &TenantId) {
        self.tenants().remove(tenant);
    }

    /// Reads a tenant's key, or makes it. Only what is on the disk is remembered.
    async fn learn(
        &self,
        database: &impl Database,
        tenant: &TenantId,
        now_ms: u64,
    ) -> Result<Arc<TenantKey>, StoreError> {
        let mut rows = database.read(find(tenant)).await?;
        if rows.is_empty() {
            let made = self.wrap(tenant, &Key::new(random()?), random()?);
            let statements = vec![make(tenant, &made, now_ms), find(tenant)];
            rows = database.run(statements).await?.pop().unwrap_or_default();
        }
        let row = (rows.into_iter().next()).ok_or_else(|| StoreError::KeyGone(tenant.clone()))?;
        let wrapped = row.read("a tenant's key").blob()?;
        let key = self.unwrap(tenant, &wrapped)?;
        let held = Arc::new(TenantKey { key, wrapped });
        let mut tenants = self.tenants();
        if tenants.len() >= MAX_REMEMBERED {
            tenants.clear();
        }
        tenants.insert(tenant.clone(), held.clone());
        Ok(held)
    }

    fn wrap(&self, tenant: &TenantId, key: &Key, nonce: [u8; NONCE_BYTES]) -> Vec<u8> {
        seal::seal(&self.store, nonce, &place_of(tenant), key.bytes())
    }

    pub(super) fn unwrap(&self, tenant: &TenantId, wrapped: &[u8]) -> Result<Key, StoreError> {
        let bytes = seal::unseal(&self.store, &place_of(tenant), wrapped).ok();
        let key: Option<[u8; KEY_BYTES]> = bytes.and_then(|it| it.try_into().ok());
        key.map(Key::new)
            .ok_or_else(|| StoreError::Unreadable(format!("the key of tenant {tenant}")))
    }
}

fn place_of(tenant: &TenantId) -> Vec<u8> {
    seal::place(TABLE, tenant, CorrelationId([0; 16]), 0)
}

fn find(tenant: &TenantId) -> Statement {
    let sql = "SELECT wrapped FROM tenant_keys WHERE tenant = $1";
    Statement::new(sql, [tenant.into()])
}

fn make(tenant: &TenantId, wrapped: &[u8], now_ms: u64) -> Statement {
    Statement::new(
        "INSERT INTO tenant_keys (tenant, wrapped, created_ms) VALUES ($1, $2, $3)
         ON CONFLICT (tenant) DO NOTHING",
        [tenant.into(), wrapped.into(), now_ms.into()],
    )
}

/// Forgets a tenant's key.
pub(super) fn forget(tenant: &TenantId) -> Statement {
    let sql = "DELETE FROM tenant_keys WHERE tenant = $1 RETURNING created_ms";
    Statement::new(sql, [tenant.into()])
}

/// A page of tenants and their keys, by their names.
pub(super) fn page(behind: &str, limit: u32) -> Statement {
    Statement::new(
        "SELECT tenant, wrapped FROM tenant_keys WHERE tenant > $1 ORDER BY tenant LIMIT $2",
        [behind.into(), limit.into()],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_store_is_made_once_and_another_is_refused_in_words() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(KEY_FILE);
        let made = unlock(&path, None).expect("made");
        assert!(made.is_new);
        let id = made.key.id();
        let again = unlock(&path, Some(id)).expect("read");
        assert_eq!((again.key.id(), again.is_new), (id, false));
        let other = unlock(&path, Some([0; 8])).err();
        assert_eq!(other, Some(StoreError::WrongKey(path.clone())));
        std::fs::write(&path, "no key").expect("written");
        let broken = unlock(&path, Some(id)).err().expect("refused");
        assert!(broken.to_string().contains("32 bytes in hex"), "{broken}");
        std::fs::remove_file(&path).expect("removed");
        let missing = unlock(&path, Some(id)).err();
        assert_eq!(missing, Some(StoreError::KeyMissing(path.clone())));
        assert!(!path.exists(), "no other key is made in its place");
    }
}
