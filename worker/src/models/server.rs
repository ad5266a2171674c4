//! A model that a server beside the worker serves: its manifest read, its health followed. (WRK-4)

use super::entry::Entry;
use super::{Found, ModelState, Served, cut};
use crate::config::{ServerConfig, WorkerConfig};
use crate::engine::openai::{self, ServerSpec};
use crate::engine::{Engine, EngineState, Ready, Refused};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tether_artifact_store::{ArtifactError, Trust, read_manifest};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, Manifest};

/// Most bytes of a file with a key.
const MAX_KEY_BYTES: u64 = 4_096;

/// Looks after one server.
pub(super) struct ServerKeeper {
    pub(super) entry: Entry,
    pub(super) config: WorkerConfig,
    pub(super) metrics: Arc<WorkerMetrics>,
}

impl ServerKeeper {
    pub(super) async fn run(self, server: ServerConfig) {
        let trust = Trust::in_publishers(self.config.trusted_publishers.iter().copied());
        let deadlines = self.config.engine.clone();
        let found = tokio::task::spawn_blocking(move || {
            let (digest, manifest) = manifest(&server, &trust)?;
            let key = server.api_key_file.as_deref().map(key).transpose()?;
            let spec = ServerSpec {
                server,
                deadlines,
                context_tokens: manifest.context_tokens,
                key,
            };
            Ok::<_, Refused>((digest, manifest, spec))
        });
        let (digest, manifest, spec) = match found.await {
            Ok(Ok(found)) => found,
            Ok(Err(Refused { code, reason, .. })) => return self.fault(None, code, reason),
            Err(error) => return self.fault(None, "internal", error.to_string()),
        };
        if !matches!(self.entry.find(&digest), Found::Unknown) {
            let reason = "the same artifact is configured twice".to_owned();
            return self.fault(None, "configured-twice", reason);
        }
        match openai::start(spec, self.metrics.clone()) {
            Ok(engine) => self.keep(digest, &manifest, &engine).await,
            Err(reason) => self.fault(Some(digest), "server-url", reason),
        }
    }

    async fn keep(&self, digest: Digest, manifest: &Manifest, engine: &Engine) {
        self.entry
            .change(|status| status.server_model = Some(manifest.model.clone()));
        let mut state = engine.state();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                EngineState::Starting => self.entry.set(ModelState::Loading {
                    model: manifest.model.clone(),
                    digest,
                }),
                EngineState::Ready(mut ready) => {
                    ready.sequences = ready.sequences.min(self.config.slots);
                    let took = Duration::from_millis(ready.load_ms);
                    self.metrics.model_loaded(&manifest.model.to_string(), took);
                    self.entry.set(ModelState::Serving(Box::new(served(
                        digest, manifest, ready, engine,
                    ))));
                }
                EngineState::Down { code, reason } => self.fault(Some(digest), code, reason),
                EngineState::Refused(Refused { code, reason, .. }) => {
                    return self.fault(Some(digest), code, reason);
                }
                EngineState::Stopped => return,
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    fn fault(&self, digest: Option<Digest>, code: &'static str, reason: String) {
        tracing::warn!(
            server = self.entry.configured(),
            code,
            reason,
            "the model of a server is not served"
        );
        self.entry.fault(digest, code, reason);
    }
}

/// The signed words of a trusted publisher; the files are the server's affair.
fn manifest(server: &ServerConfig, trust: &Trust) -> Result<(Digest, Manifest), Refused> {
    let refused = |error: ArtifactError| Refused {
        code: error.code(),
        reason: error.to_string(),
        passing: false,
    };
    let (found, manifest) = read_manifest(&server.artifact, trust).map_err(refused)?;
    match server.digest {
        Some(expected) if expected != found => {
            Err(refused(ArtifactError::WrongDigest { expected, found }))
        }
        _ => Ok((found, manifest.into_inner())),
    }
}

fn key(path: &Path) -> Result<String, Refused> {
    let refused = |why: &dyn std::fmt::Display| Refused {
        code: "server-key-file",
        reason: format!("the key in {} cannot be used: {why}", path.display()),
        passing: false,
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| refused(&error))?;
    file.take(MAX_KEY_BYTES)
        .read_to_string(&mut text)
        .map_err(|error| refused(&error))?;
    let key = text.trim();
    if key.is_empty() {
        return Err(refused(&"the file is empty"));
    }
    Ok(key.to_owned())
}

fn served(digest: Digest, manifest: &Manifest, ready: Ready, engine: &Engine) -> Served {
    Served {
        shields: ready.shields,
        offer: ModelOffer {
            model: manifest.model.clone(),
            digest,
            warm: true,
            context_tokens: ready.context_tokens,
            adapters: Vec::new(),
            numerics_class: cut(&ready.numerics_class, 96),
        },
        base: None,
        engine_version: cut(&ready.engine, 64),
        sequences: ready.sequences,
        max_token_bytes: None,
        pids: Vec::new(),
        fallen: ready.fallen,
        engine: engine.clone(),
    }
}
