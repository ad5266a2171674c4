//! Files against their manifest, before each start of an engine that reads them.
//!
//! A copy in the worker's own store that is not right any more is removed and fetched anew, once in each
//! check: a fetch that brings nothing better makes the check fail, and it is tried again later. A folder
//! of the provider's is left as it is.

use super::shown::Shown;
use super::verified::Verified;
use crate::config::ModelConfig;
use crate::engine::{Prepare, Refused};
use crate::models::locate::{Located, Locator};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tether_artifact_store::{ArtifactError, Progress, Trust, VerifiedArtifact, verify};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::Digest;
use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// The check of one artifact, and of its base where it is an adapter, as often as its engine starts.
#[derive(Clone)]
pub(super) struct Check {
    pub(super) trust: Trust,
    /// With the digest of what is offered, once that is known.
    pub(super) model: ModelConfig,
    pub(super) locator: Locator,
    pub(super) metrics: Arc<WorkerMetrics>,
    /// One at a time, over all models.
    pub(super) turns: Arc<Semaphore>,
    /// The folder that the engine sees; its first process, where it has several.
    pub(super) view: PathBuf,
    pub(super) fetched: Arc<Shown>,
    pub(super) progress: Arc<Shown>,
}

/// What is checked.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Model(&'a ModelConfig),
    /// Of an adapter, served here or not.
    Base(Digest),
}

impl Check {
    /// Verifies every byte and makes the engine's view anew, off the async threads.
    pub(super) async fn run(&self) -> Result<Verified, Refused> {
        let artifact = self.sound(Wanted::Model(&self.model)).await?;
        let base =
            match artifact.manifest().base_digest {
                Some(digest) => Some(self.sound(Wanted::Base(digest)).await.map_err(
                    |refused| Refused {
                        reason: format!("the adapter's base: {}", refused.reason),
                        ..refused
                    },
                )?),
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

    /// Finds and verifies one artifact.
    async fn sound(&self, wanted: Wanted<'_>) -> Result<VerifiedArtifact, Refused> {
        let expect = match wanted {
            Wanted::Model(model) => model.digest,
            Wanted::Base(digest) => Some(digest),
        };
        let located = self.locate(wanted).await;
        let located = located.map_err(|error| refused(&error))?;
        let damage = match self.verify(located, expect).await {
            Err(Unsound::Damaged(damage)) => damage,
            verified => return verified.map_err(Refused::from),
        };
        tracing::warn!(
            code = damage.code(),
            reason = %damage,
            "a copy in the store is damaged: it is removed and fetched anew"
        );
        self.metrics.model_fault(damage.code());
        let located = self.locate(wanted).await.map_err(|error| Refused {
            reason: format!(
                "its copy in the store was damaged and is removed ({damage}), and it cannot be fetched anew: {error}"
            ),
            ..refused(&error)
        })?;
        let verified = self.verify(located, expect).await;
        verified.map_err(Refused::from)
    }

    async fn locate(&self, wanted: Wanted<'_>) -> Result<Located, ArtifactError> {
        let tell = self.fetched.clone();
        let tell = move |done, total| tell.told(done, total);
        match wanted {
            Wanted::Model(model) => self.locator.locate(model, tell).await,
            Wanted::Base(digest) => self.locator.locate_base(digest, tell).await,
        }
    }

    async fn verify(
        &self,
        located: Located,
        expect: Option<Digest>,
    ) -> Result<VerifiedArtifact, Unsound> {
        // The semaphore is never closed. A damaged copy is removed in the same turn, so that it is not
        // one that somebody else fetched meanwhile.
        let _turn = self.turns.acquire().await;
        let check = self.clone();
        let expect = expect.or(located.digest());
        let verified = tokio::task::spawn_blocking(move || {
            let mut tell = |it: Progress<'_>| check.progress.told(it.bytes_done, it.bytes_total);
            let verified = verify(&located.path, &check.trust, expect.as_ref(), &mut tell);
            verified.map_err(|error| match located.discard(&error) {
                Ok(true) => Unsound::Damaged(error),
                Ok(false) => Unsound::Refused(refused(&error)),
                Err(why) => Unsound::Refused(Refused {
                    reason: format!("{error}; the copy cannot be removed: {why}"),
                    passing: true,
                    ..refused(&error)
                }),
            })
        });
        let artifact = verified
            .await
            .unwrap_or_else(|error| Err(Unsound::Refused(internal(&error))))?;
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
        self.model.digest = Some(digest);
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

/// Why an artifact is not verified.
enum Unsound {
    Refused(Refused),
    /// It was our own copy, and is gone.
    Damaged(ArtifactError),
}

impl From<Unsound> for Refused {
    fn from(unsound: Unsound) -> Self {
        match unsound {
            Unsound::Refused(refused) => refused,
            // The copy that was just fetched: its disk is to blame.
            Unsound::Damaged(error) => Self {
                code: "copy-damaged",
                reason: format!(
                    "its copy in the store is damaged as soon as it is fetched, so the disk may be: {error}"
                ),
                passing: true,
            },
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, Refused> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| refused(&error)),
        Err(error) => Err(internal(&error)),
    }
}

fn internal(error: &JoinError) -> Refused {
    Refused {
        code: "internal",
        reason: error.to_string(),
        passing: true,
    }
}

fn refused(error: &ArtifactError) -> Refused {
    Refused {
        code: error.code(),
        reason: error.to_string(),
        passing: error.is_passing(),
    }
}
