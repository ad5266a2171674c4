//! What orchestrators tell about tenants and models. [T-DIR-1] to [T-DIR-5]
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
    Availability, DirectoryUpdate, MAX_RULES, MAX_UPDATE_BYTES, ModelEntry, ModelRule, TenantEntry,
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
    tenants: HashMap<TenantId, Tenant>,
    models: Vec<ModelEntry>,
    /// Who may use which models; where there are none, all may use all.
    rules: Arc<Vec<ModelRule>>,
}

/// What is held of a tenant beside its id.
#[derive(Clone, Debug)]
struct Tenant {
    keys: Vec<Digest>,
    rule: usize,
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
        if let Some(rules) = update.rules {
            bounded("rules", rules.len(), MAX_RULES)?;
            rules.iter().try_for_each(ModelRule::check)?;
            self.rules = Arc::new(rules);
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
        let held = Tenant {
            keys: tenant.key_hashes,
            rule: usize::try_from(tenant.rule).unwrap_or(usize::MAX),
        };
        self.tenants.insert(tenant.id, held);
        Ok(())
    }

    fn remove(&mut self, tenant: &TenantId) {
        let held = self.tenants.remove(tenant);
        for hash in held.map(|held| held.keys).unwrap_or_default() {
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

    /// Whether a tenant is shown a model. What it may use is the orchestrator's to decide. [T-DIR-5]
    fn shows(&self, tenant: &TenantId, model: &ModelRef) -> bool {
        let Some(all) = self.rules.first() else {
            return true;
        };
        let own = self.tenants.get(tenant).map_or(0, |tenant| tenant.rule);
        // A rule that is not there permits nothing.
        all.permits(model) && self.rules.get(own).is_some_and(|rule| rule.permits(model))
    }

    /// The models that a tenant can have now, as it names them: each name once, for its newest
    /// version, and with their version those of which there are several.
    pub(crate) fn available(&self, tenant: &TenantId) -> Vec<(String, &ModelEntry)> {
        let mut models: Vec<&ModelEntry> = self
            .models
            .iter()
            .filter(|entry| entry.availability == Availability::Available)
            .filter(|entry| self.shows(tenant, &entry.model))
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

    /// A known model that a tenant is shown, available or not, by `NAME` (its newest version) or
    /// `NAME@VERSION`.
    pub(crate) fn model(&self, tenant: &TenantId, id: &str) -> Option<&ModelEntry> {
        self.models
            .iter()
            .filter(|entry| self.shows(tenant, &entry.model))
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
            rule: 0,
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

    fn id(tenant: &str) -> TenantId {
        tenant.parse().expect("valid")
    }

    fn listed(directory: &Directory, tenant: &str) -> Vec<String> {
        let listed = directory.available(&id(tenant)).into_iter();
        listed.map(|(id, _)| id).collect()
    }

    fn named(directory: &Directory, tenant: &str, model: &str) -> Option<String> {
        let entry = directory.model(&id(tenant), model)?;
        Some(entry.model.to_string())
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
        assert_eq!(next.available(&id("a")).len(), 3);
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
        assert_eq!(listed(&directory, "a"), ["tiny", "tiny@1.10", "tiny@1.0"]);
        assert_eq!(named(&directory, "a", "tiny").as_deref(), Some("tiny@1.10"));
        assert!(
            named(&directory, "a", "big").is_some(),
            "known, though not available"
        );
        assert!(named(&directory, "a", "none").is_none());
    }

    /// [T-DIR-5]
    #[test]
    fn a_tenant_is_shown_what_it_may_use_and_a_bare_name_means_the_newest_of_that() {
        let selectors = |texts: &[&str]| {
            let read = texts.iter().map(|text| text.parse().expect("valid"));
            read.collect::<Vec<_>>()
        };
        let mut update = whole();
        update.tenants[0].rule = 1;
        update.rules = Some(vec![
            ModelRule {
                allow: None,
                deny: selectors(&["big"]),
            },
            ModelRule {
                allow: Some(selectors(&["tiny@1.0", "big"])),
                deny: Vec::new(),
            },
        ]);
        let ruled = Directory::first(update.clone()).expect("whole");
        assert_eq!(listed(&ruled, "a"), ["tiny"]);
        assert_eq!(named(&ruled, "a", "tiny").as_deref(), Some("tiny@1.0"));
        assert_eq!(named(&ruled, "a", "tiny@1.10"), None);
        assert_eq!(
            named(&ruled, "a", "big"),
            None,
            "the first rule is everyone's"
        );
        assert_eq!(listed(&ruled, "b"), ["tiny", "tiny@1.10", "tiny@1.0"]);
        let free = DirectoryUpdate {
            version: 6,
            rules: Some(Vec::new()),
            ..DirectoryUpdate::default()
        };
        let free = ruled.apply(free).expect("in order");
        assert!(
            named(&free, "a", "big").is_some(),
            "there are no rules any more"
        );
        update.tenants[0].rule = 9;
        let missing = Directory::first(update.clone()).expect("whole");
        assert!(listed(&missing, "a").is_empty(), "a rule that is missing");
        update.rules = Some(vec![ModelRule::default(); MAX_RULES + 1]);
        assert!(Directory::first(update).is_err());
    }
}
