//! Keeps one model: finds and verifies its files, starts and ends its engine as the pool says, follows
//! what becomes of it.

use super::leases::Leases;
use super::locate::Locator;
use super::memory::{self, Memory};
use super::pool::{Mib, Need};
use super::{Found, Known, ModelState, ModelStatus, Served, cut, find, loaded};
use crate::config::{ModelConfig, WorkerConfig};
use crate::engine::memory::limit;
use crate::engine::protocol::Load;
use crate::engine::restart::{self, Cause};
use crate::engine::{Engine, EngineCommand, EngineSpec, EngineState, Prepare, Ready, Refused};
use crate::models::estimate::Size;
use crate::sandbox::Confine;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tether_artifact_store::{ArtifactError, Trust, VerifiedArtifact, verify};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::Digest;
use tether_wire::card::ModelOffer;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// How often it is looked how much memory a loaded model takes.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// How often progress is shown, and how often logged.
const SHOW_EVERY_MS: u64 = 250;
const LOG_EVERY_MS: u64 = 10_000;
/// How long nobody asks for a model whose engine crashed. The supervisor starts it by itself.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How a stay in memory ended.
enum Ended {
    /// The pool wanted the room.
    Unloaded,
    /// It could not be loaded.
    Failed(String),
    /// Its files are not right any more.
    Refused(Refused),
}

/// Keeps one model.
#[derive(Clone)]
pub(super) struct Keeper {
    pub(super) index: usize,
    pub(super) status: Arc<watch::Sender<Vec<ModelStatus>>>,
    pub(super) config: WorkerConfig,
    pub(super) command: EngineCommand,
    pub(super) metrics: Arc<WorkerMetrics>,
    /// Where the folders are made that engines see.
    pub(super) views: PathBuf,
    pub(super) leases: Leases,
    pub(super) memory: Memory,
    pub(super) locator: Locator,
}

impl Keeper {
    pub(super) async fn run(self, model: ModelConfig, turns: Arc<Semaphore>) {
        let mut check = Check {
            trust: Trust::in_publishers(self.config.trusted_publishers.iter().copied()),
            path: PathBuf::new(),
            digest: model.digest,
            turns,
            view: self.views.join(self.index.to_string()),
            progress: self.progress(false),
        };
        let mut failures = 0;
        let (artifact, view) = loop {
            match self.find_and_check(&model, &mut check).await {
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
        let digest = artifact.digest();
        if !matches!(find(&self.status.borrow(), &digest), Found::Unknown) {
            let reason = "the same artifact is configured twice".to_owned();
            return self.refuse(None, "configured-twice", reason);
        }
        if let Some(base) = artifact.manifest().base_digest {
            let reason = format!("it is an adapter for {base}: adapters are not served yet");
            return self.refuse(Some(digest), "adapter-unsupported", reason);
        }
        self.know(&artifact, model.pin);
        let mut target = self.leases.target(self.index);
        let fresh = Arc::new(Mutex::new(Some(view)));
        let prepare = check.before_each_start(digest, fresh.clone());
        if !*target.borrow_and_update() {
            // What was right now may have changed when somebody asks.
            fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.cold(true);
        }
        let mut failures = 0;
        loop {
            if target.wait_for(|should| *should).await.is_err() {
                return;
            }
            match self.load(&artifact, prepare.clone(), &mut target).await {
                Ended::Unloaded => {
                    failures = 0;
                    self.cold(true);
                    self.leases.unloaded(self.index);
                }
                Ended::Failed(reason) => {
                    failures += 1;
                    let wait = restart::delay(Cause::Load, failures, rand::random());
                    target.mark_unchanged();
                    self.leases.gave_up(self.index, &reason, wait);
                    tokio::select! {
                        loads = target.wait_for(|should| *should) => {
                            if loads.is_err() {
                                return;
                            }
                        }
                        // Whoever asks from now on may have it tried again.
                        () = tokio::time::sleep(wait) => self.cold(true),
                    }
                }
                Ended::Refused(refused) => {
                    self.leases.forget(self.index, &refused.reason);
                    return self.refuse(Some(digest), refused.code, refused.reason);
                }
            }
        }
    }

    async fn find_and_check(
        &self,
        model: &ModelConfig,
        check: &mut Check,
    ) -> Result<(VerifiedArtifact, PathBuf), Refused> {
        let tell = self.progress(true);
        let found = self
            .locator
            .locate(model, move |done, total| tell.told(done, total));
        check.path = found.await.map_err(|error| refused(&error))?;
        check.run().await
    }

    /// Now it can be loaded.
    fn know(&self, artifact: &VerifiedArtifact, is_pinned: bool) {
        let manifest = artifact.manifest();
        let digest = artifact.digest();
        let size = Size::of(manifest);
        let (bytes, reason) = size.bytes(self.memory.seen(&digest));
        let known = Known {
            offer: ModelOffer {
                model: manifest.model.clone(),
                digest,
                warm: false,
                context_tokens: manifest.context_tokens,
                adapters: Vec::new(),
                numerics_class: String::new(),
            },
            sequences: 0,
            max_token_bytes: None,
            is_pinned,
            memory_bytes: bytes,
        };
        self.change(|status| status.known = Some(known));
        let need = Need {
            bytes,
            reason,
            is_adapter: false,
            is_pinned,
        };
        self.leases.know(self.index, need);
    }

    /// One stay of the model in memory: until the pool wants it to go, or its files are not right.
    async fn load(
        &self,
        artifact: &VerifiedArtifact,
        prepare: Prepare,
        target: &mut watch::Receiver<bool>,
    ) -> Ended {
        let manifest = artifact.manifest();
        let digest = artifact.digest();
        let name = manifest.model.to_string();
        let spec = self.spec(artifact, prepare);
        let loading = || ModelState::Loading {
            model: manifest.model.clone(),
            digest,
        };
        tracing::info!(model = name, "loading");
        let engine = Engine::start(spec, self.metrics.clone());
        let mut state = engine.state();
        let mut watching = tokio::time::interval(WATCH_EVERY);
        let mut pid = None;
        let mut was_warm = false;
        let began = Instant::now();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                EngineState::Starting => {
                    if pid.take().is_some() {
                        // It ended by itself: nobody should come for it before it is back.
                        self.leases
                            .failed(self.index, "the engine is started again", RETRY_AFTER);
                        self.cold(false);
                    }
                    self.set(loading());
                }
                EngineState::Ready(ready) => {
                    self.metrics
                        .model_loaded(&name, Duration::from_millis(ready.load_ms));
                    pid = ready.pid;
                    was_warm = true;
                    if let Some(bytes) = pid.and_then(memory::resident_bytes) {
                        self.memory.loaded(digest, bytes);
                    }
                    let load_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.observe(artifact);
                    // In one step: it is never offered as cold in between, nor before who asks for
                    // it is let in; and who waits for it finds it.
                    self.change(|status| {
                        status.is_on_demand = true;
                        if let Some(known) = &mut status.known {
                            known.sequences = ready.sequences;
                            known.max_token_bytes = ready.max_token_bytes;
                            known.offer.numerics_class = cut(&ready.numerics_class, 96);
                            known.offer.context_tokens = ready.context_tokens;
                        }
                        status.state = ModelState::Serving(served(artifact, ready, &engine));
                        self.leases.loaded(self.index, load_ms);
                    });
                    let (bytes, used) = self.leases.memory(self.index);
                    tracing::info!(
                        model = name,
                        load_ms,
                        needs = %Mib(bytes),
                        all_models = %Mib(used),
                        "warm"
                    );
                }
                EngineState::Down { code, reason } => {
                    pid = None;
                    self.change(|status| status.is_on_demand = false);
                    self.fault(Some(digest), code, reason.clone());
                    if !was_warm {
                        // Its memory is for others, until it is tried again.
                        engine.stop().await;
                        return Ended::Failed(reason);
                    }
                    self.leases.failed(self.index, &reason, RETRY_AFTER);
                }
                EngineState::Refused(refused) => return Ended::Refused(refused),
                EngineState::Stopped => return Ended::Unloaded,
            }
            loop {
                tokio::select! {
                    changed = state.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return Ended::Unloaded,
                    },
                    Ok(()) = target.changed() => {
                        if !*target.borrow_and_update() {
                            self.change(|status| status.state = ModelState::Cold);
                            let resident = pid.and_then(memory::resident_bytes).unwrap_or(0);
                            engine.stop().await;
                            tracing::info!(model = name, gave_back = %Mib(resident), "unloaded");
                            return Ended::Unloaded;
                        }
                    }
                    _ = watching.tick() => {
                        let bytes = pid.and_then(memory::resident_bytes);
                        if bytes.is_some_and(|bytes| self.memory.grew(&digest, bytes)) {
                            self.observe(artifact);
                        }
                    }
                }
            }
        }
    }

    fn spec(&self, artifact: &VerifiedArtifact, prepare: Prepare) -> EngineSpec {
        let manifest = artifact.manifest();
        let model_bytes = manifest.files.iter().map(|file| file.size_bytes).sum();
        let memory_limit = limit(self.config.engine.memory_limit_mib, model_bytes);
        EngineSpec {
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
                model_name: manifest.model.to_string(),
                continuation: self.config.engine.continuation,
                echo_delay_ms: self.config.engine.echo_delay_ms,
                confine: Confine::new(&self.config.sandbox, memory_limit),
            },
            config: self.config.engine.clone(),
            prepare,
        }
    }

    /// Takes what was seen into account.
    fn observe(&self, artifact: &VerifiedArtifact) {
        if let Some(seen) = self.memory.seen(&artifact.digest()) {
            let (bytes, _) = Size::of(artifact.manifest()).bytes(Some(seen));
            self.change(|status| {
                if let Some(known) = &mut status.known {
                    known.memory_bytes = bytes;
                }
            });
            self.leases.observed(self.index, bytes);
        }
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

    /// It is not loaded; `is_on_demand` says whether it is offered all the same.
    fn cold(&self, is_on_demand: bool) {
        self.change(|status| {
            status.is_on_demand = is_on_demand;
            status.state = ModelState::Cold;
        });
    }

    fn set(&self, state: ModelState) {
        self.change(|status| status.state = state);
    }

    fn change(&self, change: impl FnOnce(&mut ModelStatus)) {
        self.status
            .send_modify(|models| change(&mut models[self.index]));
        let loaded = loaded(&self.status.borrow());
        self.metrics.set_models_loaded(loaded);
    }

    /// Shows how far the fetch or the check of the files is.
    fn progress(&self, is_fetch: bool) -> Arc<Shown> {
        Arc::new(Shown {
            keeper: self.clone(),
            is_fetch,
            began: Instant::now(),
            shown_ms: AtomicU64::new(0),
            logged_ms: AtomicU64::new(0),
        })
    }
}

/// Progress, shown and logged at a calm pace.
struct Shown {
    keeper: Keeper,
    is_fetch: bool,
    began: Instant,
    shown_ms: AtomicU64,
    logged_ms: AtomicU64,
}

impl Shown {
    fn told(&self, done: u64, total: u64) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let is_due = |last: &AtomicU64, every_ms: u64| {
            let is_due = now_ms >= last.load(Ordering::Relaxed).saturating_add(every_ms);
            if is_due {
                last.store(now_ms, Ordering::Relaxed);
            }
            is_due
        };
        if is_due(&self.shown_ms, SHOW_EVERY_MS) {
            let state = if self.is_fetch {
                ModelState::Fetching { done, total }
            } else {
                ModelState::Verifying { done, total }
            };
            self.keeper.set(state);
        }
        if is_due(&self.logged_ms, LOG_EVERY_MS) {
            let path = self.keeper.status.borrow()[self.keeper.index]
                .configured
                .clone();
            let what = if self.is_fetch {
                "fetching"
            } else {
                "verifying"
            };
            tracing::info!(path, done = %Mib(done), total = %Mib(total), what);
        }
    }
}

/// The check of one artifact, as often as its engine starts.
#[derive(Clone)]
struct Check {
    trust: Trust,
    path: PathBuf,
    digest: Option<Digest>,
    /// One at a time, over all models.
    turns: Arc<Semaphore>,
    /// The folder that the engine sees.
    view: PathBuf,
    progress: Arc<Shown>,
}

impl Check {
    /// Verifies every byte and makes the engine's view anew, off the async threads.
    async fn run(&self) -> Result<(VerifiedArtifact, PathBuf), Refused> {
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
    fn before_each_start(mut self, digest: Digest, fresh: Arc<Mutex<Option<PathBuf>>>) -> Prepare {
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

fn refused(error: &ArtifactError) -> Refused {
    Refused {
        code: error.code(),
        reason: error.to_string(),
        passing: error.is_passing(),
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
        shields: ready.shields,
        max_token_bytes: ready.max_token_bytes,
        pid: ready.pid,
        engine: engine.clone(),
    }
}
