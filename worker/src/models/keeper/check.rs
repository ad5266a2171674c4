//! Files against their manifest, before each start of an engine that reads them.

use super::shown::Shown;
use crate::engine::{Prepare, Refused};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tether_artifact_store::{ArtifactError, Trust, VerifiedArtifact, verify};
use tether_wire::Digest;
use tokio::sync::Semaphore;

/// The check of one artifact, as often as its engine starts.
#[derive(Clone)]
pub(super) struct Check {
    pub(super) trust: Trust,
    pub(super) path: PathBuf,
    pub(super) digest: Option<Digest>,
    /// One at a time, over all models.
    pub(super) turns: Arc<Semaphore>,
    /// The folder that the engine sees.
    pub(super) view: PathBuf,
    pub(super) progress: Arc<Shown>,
}

impl Check {
    /// Verifies every byte and makes the engine's view anew, off the async threads.
    pub(super) async fn run(&self) -> Result<(VerifiedArtifact, PathBuf), Refused> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let check = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let expect = check.digest.as_ref();
            let mut tell = |progress: tether_artifact_store::Progress<'_>| {
                check
                    .progress
                    .told(progress.bytes_done, progress.bytes_total);
            };
            let artifact = verify(&check.path, &check.trust, expect, &mut tell)?;
            let view = artifact.expose(&check.view)?;
            Ok((artifact, view))
        });
        let (artifact, view) = match done.await {
            Ok(Ok(verified)) => verified,
            Ok(Err(error)) => return Err(refused(&error)),
            Err(error) => {
                return Err(Refused {
                    code: "internal",
                    reason: error.to_string(),
                    passing: true,
                });
            }
        };
        if !artifact.unlisted().is_empty() {
            let files = artifact.unlisted().join(", ");
            tracing::warn!(
                files,
                "files beside the artifact's own are not shown to its engine"
            );
        }
        Ok((artifact, view))
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
        Prepare::new(move || {
            let (check, fresh) = (self.clone(), fresh.clone());
            Box::pin(async move {
                let view = fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
                match view {
                    Some(view) => Ok(view),
                    None => check.run().await.map(|(_, view)| view),
                }
            })
        })
    }
}

pub(super) fn refused(error: &ArtifactError) -> Refused {
    Refused {
        code: error.code(),
        reason: error.to_string(),
        passing: error.is_passing(),
    }
}
