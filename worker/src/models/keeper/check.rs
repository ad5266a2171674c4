//! Files against their manifest, before each start of an engine that reads them.
//!
//! A copy in the worker's own store that is not right any more is removed and fetched anew, once in each
//! check: a fetch that brings nothing better makes the check fail, and it is tried again later. A folder
//! of the provider's is left as it is.
//!
//! The processes of a model that start with it share one check, as long as nobody touched the files
//! since; one that starts again later has them checked anew.

use super::shown::Shown;
use super::verified::Verified;
use crate::config::ModelConfig;
use crate::engine::{Prepare, Refused};
use crate::models::locate::{Located, Locator};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tether_artifact_store::{ArtifactError, Progress, Trust, VerifiedArtifact, verify_until};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::Digest;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

/// How often a copy of ours is looked for that others remove at the same time.
const MOST_LOOKS: u32 = 8;

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
    /// Cancelled when nobody needs it any more.
    pub(super) over: CancellationToken,
}

/// What a stay of a model in memory has of checks.
#[derive(Default)]
struct Shared {
    /// Processes that began to start.
    started: BTreeSet<u32>,
    /// The check that their first starts share.
    check: Option<Arc<Verified>>,
    /// Whether the first start follows on it at once.
    is_fresh: bool,
}

/// What is checked.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    Model(&'a ModelConfig),
    /// Of an adapter, served here or not.
    Base(Digest),
}

impl Check {
    /// Verifies every byte, off the async threads.
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
        Ok(Verified { artifact, base })
    }

    /// Makes the view of an engine's process anew.
    async fn expose(verified: Arc<Verified>, view: PathBuf) -> Result<PathBuf, Refused> {
        blocking(move || {
            let Verified { artifact, base } = &*verified;
            match base {
                Some(base) => artifact.expose_on(base, &view),
                None => artifact.expose(&view),
            }
        })
        .await
    }

    /// Finds and verifies one artifact.
    async fn sound(&self, wanted: Wanted<'_>) -> Result<VerifiedArtifact, Refused> {
        let expect = match wanted {
            Wanted::Model(model) => model.digest,
            Wanted::Base(digest) => Some(digest),
        };
        let mut looks = 0;
        let damage = loop {
            let located = self.locate(wanted).await;
            let located = located.map_err(|error| refused(&error))?;
            looks += 1;
            match self.verify(located, expect).await {
                // Whoever removed it has counted it.
                Err(Unsound::Gone) if looks < MOST_LOOKS => {}
                Err(Unsound::Damaged(damage)) => break damage,
                verified => return verified.map_err(Refused::from),
            }
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
        if located.is_gone() {
            return Err(Unsound::Gone);
        }
        let check = self.clone();
        let expect = expect.or(located.digest());
        let verified = tokio::task::spawn_blocking(move || {
            let mut tell = |it: Progress<'_>| check.progress.told(it.bytes_done, it.bytes_total);
            let (path, expect) = (&located.path, expect.as_ref());
            let verified = verify_until(path, &check.trust, expect, &check.over, &mut tell);
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
    /// whoever changes a file and then makes the engine crash must not have it loaded. For one stay of
    /// the model in memory, until `over`; where that follows at once on a check, this is `fresh`.
    ///
    /// The first starts of its processes share a check, unless a file was touched since. All later ones
    /// have their own.
    pub(super) fn before_each_start(
        &self,
        digest: Digest,
        fresh: Option<Arc<Verified>>,
        over: &CancellationToken,
    ) -> Prepare {
        let mut check = self.clone();
        check.model.digest = Some(digest);
        check.fetched = Arc::new(self.fetched.again(over.clone()));
        check.progress = Arc::new(self.progress.again(over.clone()));
        check.over = over.clone();
        let shared = Arc::new(Mutex::new(Shared {
            started: BTreeSet::new(),
            is_fresh: fresh.is_some(),
            check: fresh,
        }));
        Prepare::new(move |process| {
            let (check, shared) = (check.clone(), shared.clone());
            Box::pin(async move {
                let verified = check.for_start(process, &shared).await?;
                Self::expose(verified, of_process(&check.view, process)).await
            })
        })
    }

    async fn for_start(
        &self,
        process: u32,
        shared: &Mutex<Shared>,
    ) -> Result<Arc<Verified>, Refused> {
        // Held over the check, so that who comes meanwhile for the first time waits for it.
        let mut shared = shared.lock().await;
        if !shared.started.insert(process) {
            drop(shared);
            return self.run().await.map(Arc::new);
        }
        let is_fresh = std::mem::take(&mut shared.is_fresh);
        if let Some(check) = shared.check.clone() {
            if is_fresh {
                return Ok(check);
            }
            let untouched = blocking(move || Ok(check.is_untouched().then_some(check)));
            if let Some(check) = untouched.await? {
                return Ok(check);
            }
        }
        let check = Arc::new(self.run().await?);
        shared.check = Some(check.clone());
        Ok(check)
    }
}

/// A folder for each: another may be reading from its own while this one is made.
fn of_process(view: &Path, process: u32) -> PathBuf {
    match process {
        0 => view.to_owned(),
        _ => view.with_extension(process.to_string()),
    }
}

/// Why an artifact is not verified.
enum Unsound {
    Refused(Refused),
    /// It was our own copy, and is gone.
    Damaged(ArtifactError),
    /// It was our own copy, and somebody else removed it.
    Gone,
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
            Unsound::Gone => Self {
                code: "copy-damaged",
                reason:
                    "its copy in the store is removed again and again, so the disk may be damaged"
                        .to_owned(),
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

#[cfg(test)]
mod tests;
