//! Where a model's files are: where they lie, or in the store, fetched there from a source.

use crate::config::{ModelConfig, WorkerConfig};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tether_artifact_store::{
    ArtifactError, DirectorySource, Offered, Source, Store, Trust, read_manifest,
};
use tether_wire::{Digest, ModelRef};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// The store's folder inside of the data folder.
const STORE: &str = "artifacts";
const GIB: u64 = 1024 * 1024 * 1024;

/// Where a model's files are.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) path: PathBuf,
    /// Of a copy in the store, which is ours to remove.
    stored: Option<(Arc<Store>, Digest)>,
}

/// An artifact that sources have.
struct Found {
    digest: Digest,
    created_ms: u64,
    /// Where, in the order of the sources.
    at: Vec<(Offered, Arc<dyn Source>)>,
}

/// Finds the files of models. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Locator(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sources: Vec<Arc<dyn Source>>,
    /// Folders of models that are served where they lie.
    paths: Vec<PathBuf>,
    store_dir: PathBuf,
    budget_bytes: u64,
    /// Opened when it is needed: who has no sources needs none.
    store: OnceCell<Arc<Store>>,
    trust: Trust,
    /// What is configured stays.
    kept: Mutex<BTreeSet<Digest>>,
}

impl Located {
    fn at(path: PathBuf) -> Self {
        Self { path, stored: None }
    }

    fn stored(path: PathBuf, store: Arc<Store>, digest: Digest) -> Self {
        Self {
            path,
            stored: Some((store, digest)),
        }
    }

    /// What a copy in the store is named by; a folder of the provider's says itself what it is.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.stored.as_ref().map(|(_, digest)| *digest)
    }

    /// Whether it is a copy of our own that somebody removed since.
    pub(super) fn is_gone(&self) -> bool {
        let stored = self.stored.as_ref();
        stored.is_some_and(|(store, digest)| store.path(digest).is_none())
    }

    /// Removes a copy of our own that was refused, so that it is fetched anew, and says whether it can be
    /// right then. What the provider put somewhere is never touched. Nobody else may verify it now. Blocks.
    pub(super) fn discard(&self, refused: &ArtifactError) -> Result<bool, ArtifactError> {
        match &self.stored {
            Some((store, digest)) => store.discard(digest, refused),
            None => Ok(false),
        }
    }
}

impl Locator {
    pub(super) fn new(config: &WorkerConfig, data_dir: &Path) -> Self {
        let source = |dir: &PathBuf| Arc::new(DirectorySource::new(dir)) as Arc<dyn Source>;
        Self(Arc::new(Inner {
            sources: config.sources.iter().map(source).collect(),
            paths: config
                .models
                .iter()
                .filter_map(|it| it.path.clone())
                .collect(),
            store_dir: data_dir.join(STORE),
            budget_bytes: config.disk_budget_gib.saturating_mul(GIB),
            store: OnceCell::new(),
            trust: Trust::in_publishers(config.trusted_publishers.iter().copied()),
            kept: Mutex::new(config.models.iter().filter_map(|it| it.digest).collect()),
        }))
    }

    /// The folder of a model, fetched if need be. `tell` hears of bytes that came, of bytes in all.
    pub(super) async fn locate(
        &self,
        model: &ModelConfig,
        tell: impl Fn(u64, u64) + Clone + Send + Sync + 'static,
    ) -> Result<Located, ArtifactError> {
        if let Some(path) = &model.path {
            return Ok(Located::at(path.clone()));
        }
        let store = self.store().await?;
        if let Some(digest) = model.digest
            && let Some(path) = store.path(&digest)
        {
            return Ok(Located::stored(path, store, digest));
        }
        let found = self.find(model).await?;
        let digest = found.digest;
        self.kept().insert(digest);
        let mut refused = None;
        // One source that is damaged, or went away meanwhile, is no reason not to ask the next.
        for (offered, source) in found.at {
            match self.fetch(&store, &offered, &source, tell.clone()).await {
                Ok(path) => {
                    tracing::info!(%digest, source = source.name(), "artifact is in the store");
                    return Ok(Located::stored(path, store, digest));
                }
                Err(error) => {
                    let source = source.name();
                    tracing::warn!(%digest, source, %error, "this source does not give it whole");
                    refused.get_or_insert(error);
                }
            }
        }
        Err(refused.unwrap_or_else(|| ArtifactError::NotFound(model.to_string())))
    }

    async fn fetch(
        &self,
        store: &Store,
        offered: &Offered,
        source: &Arc<dyn Source>,
        tell: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<PathBuf, ArtifactError> {
        let keep = |digest: &Digest| self.kept().contains(digest);
        // Dropping the fetch, when the worker stops, cancels it.
        let cancel = CancellationToken::new();
        let _cancelling = cancel.clone().drop_guard();
        let fetched = store.fetch(offered, &self.0.trust, &**source, keep, tell, cancel);
        let path = fetched.await;
        path.map_err(|error| error.of_source(source.name()))
    }

    /// The folder of an adapter's base: configured, in the store, or fetched there.
    pub(super) async fn locate_base(
        &self,
        digest: Digest,
        tell: impl Fn(u64, u64) + Clone + Send + Sync + 'static,
    ) -> Result<Located, ArtifactError> {
        if let Some(path) = self.configured(digest).await {
            return Ok(Located::at(path));
        }
        // It stays as long as its adapter is configured.
        self.kept().insert(digest);
        let base = ModelConfig {
            digest: Some(digest),
            ..ModelConfig::default()
        };
        self.locate(&base, tell).await.map_err(|error| match error {
            ArtifactError::NotFound(_) => ArtifactError::BaseMissing(digest),
            error => error,
        })
    }

    /// The folder of `models` that holds an artifact.
    async fn configured(&self, digest: Digest) -> Option<PathBuf> {
        let inner = self.0.clone();
        let look = move || {
            let has = |path: &&PathBuf| {
                let found = read_manifest(path, &inner.trust);
                found.is_ok_and(|(found, _)| found == digest)
            };
            inner.paths.iter().find(has).cloned()
        };
        tokio::task::spawn_blocking(look).await.ok().flatten()
    }

    async fn store(&self) -> Result<Arc<Store>, ArtifactError> {
        let inner = self.0.clone();
        let open = move || async move {
            let open = move || Store::open(&inner.store_dir, inner.budget_bytes);
            let opened = tokio::task::spawn_blocking(open).await;
            let opened = opened.unwrap_or_else(|error| {
                let error = std::io::Error::other(error.to_string());
                Err(ArtifactError::io(Path::new("a thread"), error))
            });
            opened.map(Arc::new)
        };
        self.0.store.get_or_try_init(open).await.cloned()
    }

    /// The newest that a trusted publisher signed, where only the name says which.
    async fn find(&self, model: &ModelConfig) -> Result<Found, ArtifactError> {
        let mut best: Option<Found> = None;
        let mut refused = None;
        for source in &self.0.sources {
            let listed = match source.list().await {
                Ok(listed) => listed,
                Err(error) => {
                    refused = Some(error);
                    continue;
                }
            };
            for offered in listed {
                let digest = offered.digest();
                if model.digest.is_some_and(|asked| asked != digest) {
                    continue;
                }
                let manifest = match offered.open(&self.0.trust) {
                    Ok(manifest) => manifest,
                    // Of many strangers in a folder none is a fault, unless it is the one.
                    Err(error) if model.digest.is_some() => return Err(error),
                    Err(_) => continue,
                };
                let is_named = |name: &ModelRef| *name == manifest.model;
                if !model.name.as_ref().is_none_or(is_named) {
                    continue;
                }
                let place = (offered, source.clone());
                match &mut best {
                    Some(best) if best.digest == digest => best.at.push(place),
                    Some(best) if best.created_ms >= manifest.created_ms => {}
                    _ => {
                        best = Some(Found {
                            digest,
                            created_ms: manifest.created_ms,
                            at: vec![place],
                        });
                    }
                }
            }
        }
        best.ok_or_else(|| refused.unwrap_or_else(|| ArtifactError::NotFound(model.to_string())))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
