//! Keeps one model: verifies it, starts its engine, follows what becomes of it.

use super::{Found, ModelState, ModelStatus, Served, cut, find, offers};
use crate::config::{ModelConfig, WorkerConfig};
use crate::engine::protocol::Load;
use crate::engine::{Engine, EngineCommand, EngineSpec, EngineState, Ready};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tether_artifact_store::{Trust, VerifiedArtifact, verify};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::Digest;
use tether_wire::heartbeat::ModelOffer;
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
        let artifact = {
            // The semaphore is never closed.
            let _turn = turns.acquire().await;
            self.verify(&model).await
        };
        let artifact = match artifact {
            Ok(artifact) => artifact,
            Err((code, reason)) => {
                tracing::error!(path = %model.path.display(), code, reason, "model refused");
                return self.fault(None, code, reason);
            }
        };
        if self.is_taken(&artifact.digest()) {
            let reason = "the same artifact is configured twice".to_owned();
            return self.fault(None, "configured-twice", reason);
        }
        match artifact.expose(&self.views.join(artifact.digest().to_hex())) {
            Ok(view) => self.keep(&artifact, view).await,
            Err(error) => self.fault(None, error.code(), error.to_string()),
        }
    }

    /// Off the async threads: it reads every byte.
    async fn verify(
        &self,
        model: &ModelConfig,
    ) -> Result<VerifiedArtifact, (&'static str, String)> {
        let trust = Trust::in_publishers(self.config.trusted_publishers.iter().copied());
        let model = model.clone();
        let verified = tokio::task::spawn_blocking(move || {
            verify(&model.path, &trust, model.digest.as_ref(), &mut |_| ())
        });
        match verified.await {
            Ok(Ok(artifact)) => {
                if !artifact.unlisted().is_empty() {
                    let files = artifact.unlisted().join(", ");
                    tracing::warn!(
                        files,
                        "files beside the artifact's own are not shown to its engine"
                    );
                }
                Ok(artifact)
            }
            Ok(Err(error)) => Err((error.code(), error.to_string())),
            Err(error) => Err(("internal", error.to_string())),
        }
    }

    async fn keep(&self, artifact: &VerifiedArtifact, view: PathBuf) {
        let manifest = artifact.manifest();
        let digest = artifact.digest();
        let name = manifest.model.to_string();
        let spec = EngineSpec {
            command: self.command.clone(),
            load: Load {
                kind: self.config.engine.kind,
                root: view,
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
        pid: ready.pid,
        engine: engine.clone(),
    }
}
