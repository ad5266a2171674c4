//! What orchestrators tell about tenants and models. [T-DIR-1] to [T-DIR-4]
//!
//! One orchestrator at a time is followed: versions are counted by each for itself. When it is
//! lost the last directory stays in use, and another is followed. [`Directories`] is the seam for
//! a copy on disk: whoever holds one can [`Directories::replace`] it before the first link is up.

use crate::orchestrators::Orchestrators;
use arc_swap::ArcSwapOption;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tether_net::Link;
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::codec::{self, CodecError};
use tether_wire::directory::{
    Availability, DirectoryUpdate, MAX_UPDATE_BYTES, ModelEntry, TenantEntry,
};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{Digest, ModelRef, TenantId};

/// Most tenants that are held.
const MAX_TENANTS: usize = 200_000;
/// Most keys of one tenant.
const MAX_KEYS_PER_TENANT: usize = 64;
/// Most models that are held.
const MAX_MODELS: usize = 20_000;
/// Pause before a lost subscription is taken up again.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(200);

/// Tenants and models, as of one version. Immutable.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directory {
    version: u64,
    keys: HashMap<Digest, TenantId>,
    tenants: HashMap<TenantId, Vec<Digest>>,
    models: Vec<ModelEntry>,
}

/// Why an update is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UpdateError {
    #[error("the first update of a subscription is not whole")]
    NotWhole,
    #[error("version {new} comes after version {old}")]
    Order { old: u64, new: u64 },
    #[error("it has more {what} than {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Directory {
    /// The directory that the first update of a subscription makes.
    pub(crate) fn first(update: DirectoryUpdate) -> Result<Self, UpdateError> {
        if !update.whole {
            return Err(UpdateError::NotWhole);
        }
        Self::default().take(update)
    }

    /// The directory after an update.
    pub(crate) fn apply(&self, update: DirectoryUpdate) -> Result<Self, UpdateError> {
        if update.whole {
            return Self::first(update);
        }
        if update.version <= self.version {
            let (old, new) = (self.version, update.version);
            return Err(UpdateError::Order { old, new });
        }
        self.clone().take(update)
    }

    fn take(mut self, update: DirectoryUpdate) -> Result<Self, UpdateError> {
        self.version = update.version;
        for tenant in &update.removed_tenants {
            self.remove(tenant);
        }
        for tenant in update.tenants {
            self.add(tenant)?;
        }
        if let Some(models) = update.models {
            self.models = models;
        }
        bounded("models", self.models.len(), MAX_MODELS)?;
        bounded("tenants", self.tenants.len(), MAX_TENANTS)?;
        Ok(self)
    }

    fn add(&mut self, tenant: TenantEntry) -> Result<(), UpdateError> {
        bounded("keys", tenant.key_hashes.len(), MAX_KEYS_PER_TENANT)?;
        self.remove(&tenant.id);
        for hash in &tenant.key_hashes {
            self.keys.insert(*hash, tenant.id.clone());
        }
        self.tenants.insert(tenant.id, tenant.key_hashes);
        Ok(())
    }

    fn remove(&mut self, tenant: &TenantId) {
        for hash in self.tenants.remove(tenant).unwrap_or_default() {
            // A key that was given to another tenant in the meantime stays theirs.
            if self.keys.get(&hash) == Some(tenant) {
                self.keys.remove(&hash);
            }
        }
    }

    /// The tenant whose key has this hash.
    pub(crate) fn tenant(&self, key_hash: &Digest) -> Option<&TenantId> {
        self.keys.get(key_hash)
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The models that can be had now, as tenants name them: each name once, for its newest
    /// version, and with their version those of which there are several.
    pub(crate) fn available(&self) -> Vec<(String, &ModelEntry)> {
        let mut models: Vec<&ModelEntry> = self
            .models
            .iter()
            .filter(|entry| entry.availability == Availability::Available)
            .collect();
        models.sort_by_key(|entry| sort_key(&entry.model));
        let mut listed = Vec::with_capacity(models.len());
        for versions in models.chunk_by(|a, b| a.model.name == b.model.name) {
            if let Some(newest) = versions.first() {
                listed.push((newest.model.name.to_string(), *newest));
            }
            if versions.len() > 1 {
                listed.extend(
                    versions
                        .iter()
                        .map(|entry| (entry.model.to_string(), *entry)),
                );
            }
        }
        listed
    }

    /// A known model, available or not, by `NAME` (its newest version) or `NAME@VERSION`.
    pub(crate) fn model(&self, id: &str) -> Option<&ModelEntry> {
        self.models
            .iter()
            .filter(|entry| entry.model.name.as_str() == id || entry.model.to_string() == id)
            .min_by_key(|entry| sort_key(&entry.model))
    }
}

/// By name, the newest version first.
fn sort_key(model: &ModelRef) -> (String, std::cmp::Reverse<(u32, u32)>) {
    (
        model.name.to_string(),
        std::cmp::Reverse(model.version.numbers()),
    )
}

fn bounded(what: &'static str, count: usize, limit: usize) -> Result<(), UpdateError> {
    if count > limit {
        return Err(UpdateError::TooMany { what, limit });
    }
    Ok(())
}

/// The directory in use; read without blocking.
#[derive(Default)]
pub(crate) struct Directories {
    current: ArcSwapOption<Directory>,
}

impl Directories {
    /// The directory in use; nothing before the first one came.
    pub(crate) fn current(&self) -> Option<Arc<Directory>> {
        self.current.load_full()
    }

    /// Takes over another directory.
    pub(crate) fn replace(&self, directory: Directory) {
        self.current.store(Some(Arc::new(directory)));
    }
}

/// Follows the directory of one orchestrator after the other, without end.
pub(crate) async fn follow(
    orchestrators: Arc<Orchestrators>,
    directories: Arc<Directories>,
    metrics: Arc<GatewayMetrics>,
) {
    loop {
        let Some(link) = orchestrators.any() else {
            orchestrators.changed().await;
            continue;
        };
        let peer = link.peer().id;
        match subscribe(&link, &orchestrators, &directories, &metrics).await {
            Ok(()) => tracing::info!(%peer, "the orchestrator ended its directory"),
            Err(error) => tracing::warn!(%peer, %error, "the directory is not followed any more"),
        }
        tokio::time::sleep(RESUBSCRIBE_PAUSE).await;
    }
}

async fn subscribe(
    link: &Link,
    orchestrators: &Orchestrators,
    directories: &Directories,
    metrics: &GatewayMetrics,
) -> Result<(), RpcError> {
    let refuse = |error: UpdateError| RpcError::new(Code::Invalid, error.to_string());
    let mut call = link.call(method::DIRECTORY, None, &[]).await?;
    call.finish_sending().await;
    let mut directory: Option<Directory> = None;
    loop {
        let item = tokio::select! {
            biased;
            item = call.next() => item?,
            // Another one may be heard, and what this one tells would be late.
            () = link.until_quiet() => {
                let why = "nothing is heard of the orchestrator";
                return Err(RpcError::new(Code::Unavailable, why));
            }
        };
        let Some(bytes) = item else { return Ok(()) };
        let update: DirectoryUpdate = codec::decode("directory update", &bytes, MAX_UPDATE_BYTES)
            .map_err(|error| refuse(error.into()))?;
        let next = match &directory {
            None => Directory::first(update),
            Some(directory) => directory.apply(update),
        }
        .map_err(refuse)?;
        tracing::debug!(
            version = next.version,
            tenants = next.tenants.len(),
            models = next.models.len(),
            "directory updated"
        );
        metrics.directory(next.version());
        directories.replace(next.clone());
        directory = Some(next);
        orchestrators.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str, key: u8) -> TenantEntry {
        TenantEntry {
            id: id.parse().expect("valid"),
            key_hashes: vec![Digest([key; 32])],
        }
    }

    fn model(text: &str, availability: Availability) -> ModelEntry {
        ModelEntry {
            model: text.parse().expect("valid"),
            created_ms: 1_000,
            availability,
        }
    }

    fn whole() -> DirectoryUpdate {
        DirectoryUpdate {
            version: 5,
            whole: true,
            tenants: vec![tenant("a", 1), tenant("b", 2)],
            models: Some(vec![
                model("tiny@1.0", Availability::Available),
                model("tiny@1.10", Availability::Available),
                model("big@2.0", Availability::Unavailable),
            ]),
            ..DirectoryUpdate::default()
        }
    }

    #[test]
    fn a_delta_changes_what_it_names_and_nothing_else() {
        let first = Directory::first(whole()).expect("whole");
        let delta = DirectoryUpdate {
            version: 6,
            tenants: vec![tenant("a", 3)],
            removed_tenants: vec!["b".parse().expect("valid")],
            ..DirectoryUpdate::default()
        };
        let next = first.apply(delta).expect("in order");
        let of = |key: u8| next.tenant(&Digest([key; 32])).map(TenantId::as_str);
        assert_eq!((of(1), of(2), of(3)), (None, None, Some("a")));
        assert_eq!(next.available().len(), 3);
        assert!(
            first.tenant(&Digest([1; 32])).is_some(),
            "readers keep theirs"
        );
    }

    #[test]
    fn updates_out_of_order_or_without_a_beginning_are_refused() {
        let first = Directory::first(whole()).expect("whole");
        let old = DirectoryUpdate {
            version: 5,
            ..DirectoryUpdate::default()
        };
        assert_eq!(
            first.apply(old.clone()).expect_err("old"),
            UpdateError::Order { old: 5, new: 5 }
        );
        assert_eq!(
            Directory::first(old).expect_err("a delta"),
            UpdateError::NotWhole
        );
        let mut many = whole();
        many.tenants[0].key_hashes = vec![Digest([9; 32]); MAX_KEYS_PER_TENANT + 1];
        assert!(Directory::first(many).is_err());
    }

    #[test]
    fn models_are_listed_by_the_names_that_can_be_asked_for() {
        let directory = Directory::first(whole()).expect("whole");
        let ids: Vec<String> = directory
            .available()
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        assert_eq!(ids, ["tiny", "tiny@1.10", "tiny@1.0"]);
        assert_eq!(
            directory.model("tiny").expect("known").model.to_string(),
            "tiny@1.10"
        );
        assert!(
            directory.model("big").is_some(),
            "known, though not available"
        );
        assert!(directory.model("none").is_none());
    }
}
