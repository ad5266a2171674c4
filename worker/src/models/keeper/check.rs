//! Files against their manifest, before each start of an engine that reads them.

use super::shown::Shown;
use super::verified::Verified;
use crate::engine::{Prepare, Refused};
use crate::models::locate::Locator;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tether_artifact_store::{ArtifactError, Progress, Trust, VerifiedArtifact, verify};
use tether_wire::Digest;
use tokio::sync::Semaphore;

/// The check of one artifact, and of its base where it is an adapter, as often as its engine starts.
#[derive(Clone)]
pub(super) struct Check {
    pub(super) trust: Trust,
    pub(super) path: PathBuf,
    pub(super) digest: Option<Digest>,
    /// Finds the base of an adapter.
    pub(super) locator: Locator,
    /// One at a time, over all models.
    pub(super) turns: Arc<Semaphore>,
    /// The folder that the engine sees; its first process, where it has several.
    pub(super) view: PathBuf,
    pub(super) fetched: Arc<Shown>,
    pub(super) progress: Arc<Shown>,
}

impl Check {
    /// Verifies every byte and makes the engine's view anew, off the async threads.
    pub(super) async fn run(&self) -> Result<Verified, Refused> {
        let artifact = self.verify(self.path.clone(), self.digest).await?;
        let base = match artifact.manifest().base_digest {
            Some(digest) => Some(self.base(digest).await.map_err(|refused| Refused {
                reason: format!("the adapter's base: {}", refused.reason),
                ..refused
            })?),
            None => None,
        };
        let view = self.view.clone();
        blocking(move || {
            let view = match &base {
                Some(base) => artifact.expose_on(base, &view)?,
                None => artifact.expose(&view)?,
            };
            Ok(Verified {
                artifact,
                base,
                view,
            })
        })
        .await
    }

    /// The base of an adapter, served here or not.
    async fn base(&self, digest: Digest) -> Result<VerifiedArtifact, Refused> {
        let tell = self.fetched.clone();
        let tell = move |done, total| tell.told(done, total);
        let found = self.locator.locate_base(digest, tell).await;
        let path = found.map_err(|error| refused(&error))?;
        self.verify(path, Some(digest)).await
    }

    async fn verify(
        &self,
        path: PathBuf,
        expect: Option<Digest>,
    ) -> Result<VerifiedArtifact, Refused> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let check = self.clone();
        let artifact = blocking(move || {
            let mut tell = |it: Progress<'_>| check.progress.told(it.bytes_done, it.bytes_total);
            verify(&path, &check.trust, expect.as_ref(), &mut tell)
        })
        .await?;
        if !artifact.unlisted().is_empty() {
            let files = artifact.unlisted().join(", ");
            tracing::warn!(
                files,
                "files beside the artifact's own are not shown to its engine"
            );
        }
        Ok(artifact)
    }

    /// The same again before each start of the engine, and for the very artifact that is offered:
    /// whoever changes a file and then makes the engine crash must not have it loaded. A start that
    /// follows at once on the check that gave `fresh` does not repeat it.
    pub(super) fn before_each_start(
        mut self,
        digest: Digest,
        fresh: Arc<Mutex<Option<PathBuf>>>,
    ) -> Prepare {
        self.digest = Some(digest);
        Prepare::new(move |process| {
            let (mut check, fresh) = (self.clone(), fresh.clone());
            Box::pin(async move {
                let view = if process == 0 {
                    fresh.lock().unwrap_or_else(PoisonError::into_inner).take()
                } else {
                    // A folder of its own: another may be reading from the first while it is made.
                    check.view.set_extension(process.to_string());
                    None
                };
                match view {
                    Some(view) => Ok(view),
                    None => check.run().await.map(|verified| verified.view),
                }
            })
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| refused(&error)),
        Err(error) => Err(Refused {
            code: "internal",
            reason: error.to_string(),
            passing: true,
        }),
    }
}

pub(super) fn refused(error: &ArtifactError) -> Refused {
    Refused {
        code: error.code(),
        reason: error.to_string(),
        passing: error.is_passing(),
    }
}
