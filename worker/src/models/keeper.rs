//! Keeps one model: verifies it, starts its engine, follows what becomes of it.

use super::{Found, ModelState, ModelStatus, Served, cut, find, offers};
use crate::config::{ModelConfig, WorkerConfig};
use crate::engine::protocol::Load;
use crate::engine::restart::{self, Cause};
use crate::engine::{Engine, EngineCommand, EngineSpec, EngineState, Prepare, Ready, Refused};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tether_artifact_store::{ArtifactError, Trust, VerifiedArtifact, verify};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::Digest;
use tether_wire::card::ModelOffer;
use tokio::sync::{Semaphore, watch};

/// Keeps one model.
pub(super) struct Keeper {
    pub(super) index: usize,
    pub(super) status: Arc<watch::Sender<Vec<ModelStatus>>>,
    pub(super) config: WorkerConfig,
    pub(super) command: EngineCommand,
    pub(super) metrics: Arc<WorkerMetrics>,
    /// Where the folders are made that engines see.
    pub(super) views: PathBuf,
}

impl Keeper {
    pub(super) async fn run(self, model: ModelConfig, turns: Arc<Semaphore>) {
        let check = Check {
            trust: Trust::in_publishers(self.config.trusted_publishers.iter().copied()),
            model,
            turns,
            view: self.views.join(self.index.to_string()),
        };
        let mut failures = 0;
        let (artifact, view) = loop {
            match check.run().await {
                Ok(verified) => break verified,
                Err(refused) => {
                    self.refuse(None, refused.code, refused.reason);
                    if !refused.passing {
                        return;
                    }
                    failures += 1;
                    let wait = restart::delay(Cause::Load, failures, rand::random());
                    tokio::time::sleep(wait).await;
                }
            }
        };
        if self.is_taken(&artifact.digest()) {
            let reason = "the same artifact is configured twice".to_owned();
            return self.refuse(None, "configured-twice", reason);
        }
        let prepare = check.before_each_start(artifact.digest(), view);
        self.keep(&artifact, prepare).await;
    }

    async fn keep(&self, artifact: &VerifiedArtifact, prepare: Prepare) {
        let manifest = artifact.manifest();
        let digest = artifact.digest();
        let name = manifest.model.to_string();
        let spec = EngineSpec {
            command: self.command.clone(),
            load: Load {
                kind: self.config.engine.kind,
                // Given anew before each start.
                root: PathBuf::new(),
                weights: manifest.weights.clone(),
                tokenizer: manifest.tokenizer.clone(),
                format: manifest.format,
                context_tokens: manifest.context_tokens,
                threads: self.config.engine.threads,
                slots: self.config.slots,
                model_name: name.clone(),
                echo_delay_ms: self.config.engine.echo_delay_ms,
            },
            config: self.config.engine.clone(),
            prepare,
        };
        let engine = Engine::start(spec, self.metrics.clone());
        let mut state = engine.state();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                EngineState::Starting => self.set(ModelState::Loading {
                    model: manifest.model.clone(),
                    digest,
                }),
                EngineState::Ready(ready) => {
                    self.metrics
                        .model_loaded(&name, Duration::from_millis(ready.load_ms));
                    self.set(ModelState::Serving(served(artifact, ready, &engine)));
                }
                EngineState::Down { code, reason } => self.fault(Some(digest), code, reason),
                EngineState::Refused(Refused { code, reason, .. }) => {
                    return self.refuse(Some(digest), code, reason);
                }
                EngineState::Stopped => return,
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    fn is_taken(&self, digest: &Digest) -> bool {
        !matches!(find(&self.status.borrow(), digest), Found::Unknown)
    }

    /// For good: nothing changes it but a new start of the worker.
    fn refuse(&self, digest: Option<Digest>, code: &'static str, reason: String) {
        let configured = self.status.borrow()[self.index].configured.clone();
        tracing::error!(path = configured, code, reason, "model refused");
        self.fault(digest, code, reason);
    }

    fn fault(&self, digest: Option<Digest>, code: &'static str, reason: String) {
        self.metrics.model_fault(code);
        self.set(ModelState::Faulted {
            digest,
            code,
            reason,
        });
    }

    fn set(&self, state: ModelState) {
        self.status
            .send_modify(|models| models[self.index].state = state);
        let loaded = offers(&self.status.borrow()).len();
        self.metrics.set_models_loaded(loaded);
    }
}

/// The check of one artifact, as often as its engine starts.
#[derive(Clone)]
struct Check {
    trust: Trust,
    model: ModelConfig,
    /// One at a time, over all models.
    turns: Arc<Semaphore>,
    /// The folder that the engine sees.
    view: PathBuf,
}

impl Check {
    /// Verifies every byte and makes the engine's view anew, off the async threads.
    async fn run(&self) -> Result<(VerifiedArtifact, PathBuf), Refused> {
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let check = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let expect = check.model.digest.as_ref();
            let artifact = verify(&check.model.path, &check.trust, expect, &mut |_| ())?;
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
    /// whoever changes a file and then makes the engine crash must not have it loaded. The first
    /// start follows at once on the check that gave `view`, which is not repeated for it.
    fn before_each_start(mut self, digest: Digest, view: PathBuf) -> Prepare {
        self.model.digest = Some(digest);
        let fresh = Arc::new(Mutex::new(Some(view)));
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

fn refused(error: &ArtifactError) -> Refused {
    Refused {
        code: error.code(),
        reason: error.to_string(),
        passing: matches!(error, ArtifactError::Io { .. }),
    }
}

fn served(artifact: &VerifiedArtifact, ready: Ready, engine: &Engine) -> Served {
    let manifest = artifact.manifest();
    Served {
        offer: ModelOffer {
            model: manifest.model.clone(),
            digest: artifact.digest(),
            warm: true,
            context_tokens: ready.context_tokens,
            adapters: Vec::new(),
            numerics_class: cut(&ready.numerics_class, 96),
        },
        engine_version: cut(&ready.engine, 64),
        sequences: ready.sequences,
        max_token_bytes: ready.max_token_bytes,
        pid: ready.pid,
        engine: engine.clone(),
    }
}
