//! What orchestrators tell about tenants and models. [T-DIR-1] to [T-DIR-5]
//!
//! [`Told`] is what the updates of one subscription come to. [`Directories`] is the seam for
//! a copy on disk: whoever holds one can [`Directories::replace`] it before the first link is up.

mod follow;
mod told;

pub(crate) use follow::follow;
pub(crate) use told::Told;

use arc_swap::ArcSwapOption;
use std::collections::HashMap;
use std::sync::Arc;
use tether_wire::codec::CodecError;
use tether_wire::directory::{
    Availability, DirectoryUpdate, MAX_RULES, ModelEntry, ModelRule, TenantEntry,
};
use tether_wire::{Digest, ModelRef, TenantId};

/// Most tenants that are held.
const MAX_TENANTS: usize = 200_000;
/// Most keys of one tenant.
const MAX_KEYS_PER_TENANT: usize = 64;
/// Most models that are held.
const MAX_MODELS: usize = 20_000;

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
    #[error("an update comes before the last piece of version {version}")]
    Pieces { version: u64 },
    #[error("it has more {what} than {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl Directory {
    /// Takes over what an update, or a piece of one, changes. [T-DIR-2]
    fn take(&mut self, update: DirectoryUpdate) -> Result<(), UpdateError> {
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
        bounded("tenants", self.tenants.len(), MAX_TENANTS)
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

#[cfg(test)]
mod tests;
