//! Keeps one model: finds and verifies its files, starts and ends its engine as the pool says, follows
//! what becomes of it.
//!
//! # Layout
//!
//! * `check` – its files against their manifest, before each start of its engine
//! * `verified` – what is loaded: a model, or an adapter with its base
//! * `shown` – how far a fetch or a check is

mod check;
mod shown;
mod verified;

use super::division::{self, Means, Threads};
use super::entry::Entry;
use super::leases::Leases;
use super::locate::Locator;
use super::memory::{self, Memory};
use super::observe::{LOOK_EVERY, Observer};
use super::pool::{Mib, Need, Processes, Room};
use super::{Found, Known, ModelState, cut};
use crate::config::{ModelConfig, WorkerConfig};
use crate::device::{Compute, Device};
use crate::engine::memory::limit;
use crate::engine::protocol::{EngineKind, Load};
use crate::engine::restart::{self, Cause};
use crate::engine::{Engine, EngineCommand, EngineSpec, EngineState, Layout, Prepare, Refused};
use crate::models::estimate::Size;
use crate::sandbox::Confine;
use check::Check;
use shown::Shown;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tether_artifact_store::Trust;
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::Digest;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use verified::Verified;

/// How long nobody asks for a model whose engine crashed. The supervisor starts it by itself.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The code of a model for which there can be no room.
const OVER_BUDGET: &str = "over-memory-budget";

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
    pub(super) entry: Entry,
    pub(super) config: WorkerConfig,
    pub(super) compute: Compute,
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
        let over = CancellationToken::new();
        // Whatever is read when the worker stops is given up.
        let _over = over.clone().drop_guard();
        let check = Check {
            trust: Trust::in_publishers(self.config.trusted_publishers.iter().copied()),
            model: model.clone(),
            metrics: self.metrics.clone(),
            locator: self.locator.clone(),
            turns,
            view: self.views.join(self.entry.index().to_string()),
            fetched: Arc::new(Shown::new(self.entry.clone(), true, over.clone())),
            progress: Arc::new(Shown::new(self.entry.clone(), false, over.clone())),
            over,
        };
        let mut failures = 0;
        let verified = loop {
            match check.run().await {
                Ok(verified) => break Arc::new(verified),
                Err(refused) => {
                    if !refused.passing {
                        return self.refuse(None, refused.code, refused.reason);
                    }
                    self.fault(None, refused.code, refused.reason);
                    failures += 1;
                    let wait = restart::delay(Cause::Load, failures, rand::random());
                    tokio::time::sleep(wait).await;
                }
            }
        };
        let digest = verified.digest();
        if !matches!(self.entry.find(&digest), Found::Unknown) {
            let reason = "the same artifact is configured twice".to_owned();
            return self.refuse(None, "configured-twice", reason);
        }
        if verified.base.is_some() && self.config.max_warm_adapters == 0 {
            let reason = "it is an adapter, and `worker.max_warm_adapters` is 0".to_owned();
            return self.refuse(Some(digest), "adapters-off", reason);
        }
        if verified.base.is_some() && self.compute.device != Device::Cpu {
            let device = self.compute.device;
            let reason = format!("adapters are computed by the processor, and not on {device}");
            return self.refuse(Some(digest), "adapter-device", reason);
        }
        let least = self.know(&verified, model.pin).least();
        let mut target = self.leases.target(self.entry.index());
        let mut fresh = Some(verified.clone());
        if *target.borrow_and_update() == 0 {
            // What was right now may have changed when somebody asks.
            fresh = None;
            self.cold(digest, true);
        }
        let mut failures = 0;
        loop {
            let Some(processes) = self.wished(digest, &mut target).await else {
                return;
            };
            self.counted(processes);
            // Cancelled at the latest when the stay is over.
            let stay = check.over.child_token();
            let prepare = check.before_each_start(digest, fresh.take(), &stay);
            let load = self.load(&verified, processes, prepare, &stay, &mut target);
            let ended = load.await;
            stay.cancel();
            self.counted(least);
            match ended {
                Ended::Unloaded => {
                    failures = 0;
                    self.leases.unloaded(self.entry.index());
                    self.cold(digest, true);
                }
                Ended::Failed(reason) => {
                    failures += 1;
                    let wait = restart::delay(Cause::Load, failures, rand::random());
                    target.mark_unchanged();
                    self.leases.gave_up(self.entry.index(), &reason, wait);
                    tokio::select! {
                        loads = target.wait_for(|processes| *processes > 0) => {
                            if loads.is_err() {
                                return;
                            }
                        }
                        // Whoever asks from now on may have it tried again.
                        () = tokio::time::sleep(wait) => self.cold(digest, true),
                    }
                }
                Ended::Refused(refused) => {
                    return self.refuse(Some(digest), refused.code, refused.reason);
                }
            }
        }
    }

    /// Waits until the model should be loaded: into how many processes. Nothing when there is no pool
    /// any more.
    async fn wished(&self, digest: Digest, target: &mut watch::Receiver<u32>) -> Option<u32> {
        let mut unfit = self.leases.unfit(self.entry.index());
        loop {
            tokio::select! {
                biased;
                loads = target.wait_for(|processes| *processes > 0) => return loads.ok().map(|it| *it),
                // What others need changed.
                Ok(()) = unfit.changed() => self.cold(digest, true),
            }
        }
    }

    /// Now it can be loaded. Returns into how many processes.
    fn know(&self, verified: &Verified, is_pinned: bool) -> Processes {
        let seen = self.memory.seen(&verified.digest());
        let (memory, reason) = self.size(verified).memory(seen, 0);
        let processes = division::processes(&self.config.engine, self.means());
        let known = Known {
            processes: processes.least(),
            ..verified.known(is_pinned, memory.most.total(), self.compute.device)
        };
        self.entry.change(|status| status.known = Some(known));
        let need = Need {
            memory,
            reason,
            processes,
            is_adapter: verified.base.is_some(),
            is_pinned,
        };
        self.leases.know(self.entry.index(), need);
        processes
    }

    /// It has so many processes, or is to have.
    fn counted(&self, processes: u32) {
        self.entry.change(|status| {
            if let Some(known) = &mut status.known {
                known.processes = processes;
            }
        });
    }

    /// One stay of the model in memory: until the pool wants it to go, or its files are not right.
    async fn load(
        &self,
        verified: &Verified,
        processes: u32,
        prepare: Prepare,
        stay: &CancellationToken,
        target: &mut watch::Receiver<u32>,
    ) -> Ended {
        let manifest = verified.manifest();
        let digest = verified.digest();
        let name = manifest.model.to_string();
        let spec = self.spec(verified, processes, prepare);
        let loading = || ModelState::Loading {
            model: manifest.model.clone(),
            digest,
        };
        let threads = spec.load.threads;
        tracing::info!(model = name, processes, threads, "loading");
        let engine = Engine::start(spec, self.metrics.clone());
        let mut state = engine.state();
        let mut looking = tokio::time::interval(LOOK_EVERY);
        let observer = Observer::new(
            self.entry.clone(),
            self.memory.clone(),
            digest,
            self.size(verified),
        );
        let observer = Arc::new(observer);
        self.leases.observe_by(self.entry.index(), &observer);
        let mut was_warm = false;
        let mut began = Instant::now();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                EngineState::Starting => {
                    // Of each load anew: the stay before a crash is no part of it.
                    began = Instant::now();
                    if observer.gone() {
                        // It ended by itself: nobody should come for it before it is back.
                        self.leases.failed(
                            self.entry.index(),
                            "the engine is started again",
                            RETRY_AFTER,
                        );
                        self.cold(digest, false);
                    }
                    self.entry.set(loading());
                }
                EngineState::Ready(mut ready) => {
                    // Beyond its slots nothing is given at once.
                    ready.sequences = ready.sequences.min(self.config.slots);
                    let was_down = !observer.is_loaded();
                    was_warm = true;
                    let load_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    if was_down {
                        let took = Duration::from_millis(ready.load_ms);
                        self.metrics.model_loaded(&name, took);
                    }
                    self.observed(observer.loaded(ready.pids.clone()));
                    let (running, sequences) = (ready.pids.len(), ready.sequences);
                    // In one step: it is never offered as cold in between, nor before who asks for
                    // it is let in; and who waits for it finds it.
                    self.entry.change(|status| {
                        status.is_on_demand = true;
                        if let Some(known) = &mut status.known {
                            if was_down {
                                known.load_ms = Some(load_ms);
                            }
                            known.sequences = ready.sequences;
                            known.max_token_bytes = ready.max_token_bytes;
                            known.offer.numerics_class = cut(&ready.numerics_class, 96);
                            known.offer.context_tokens = ready.context_tokens;
                        }
                        status.state = ModelState::Serving(verified.served(ready, &engine));
                        if was_down {
                            self.leases.loaded(self.entry.index(), load_ms);
                        }
                    });
                    if was_down {
                        let (needs, used) = self.leases.memory(self.entry.index());
                        tracing::info!(
                            model = name,
                            load_ms,
                            device = %self.compute.device,
                            needs = %Mib(needs.total()),
                            all_models = %Mib(used.total()),
                            "warm"
                        );
                    }
                    if processes > 1 {
                        tracing::info!(
                            model = name,
                            running,
                            of = processes,
                            sequences,
                            "processes"
                        );
                    }
                }
                EngineState::Down { code, reason } => {
                    observer.gone();
                    self.entry.change(|status| status.is_on_demand = false);
                    self.entry.fault(Some(digest), code, reason.clone());
                    if !was_warm {
                        // Its memory is for others, until it is tried again.
                        engine.stop().await;
                        self.observed(observer.left());
                        return Ended::Failed(reason);
                    }
                    self.leases.failed(self.entry.index(), &reason, RETRY_AFTER);
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
                        if *target.borrow_and_update() == 0 {
                            // First, so that no check of its files is shown after this.
                            stay.cancel();
                            self.entry.change(|status| status.state = ModelState::Cold);
                            let resident = observer.resident_bytes();
                            observer.gone();
                            engine.stop().await;
                            self.observed(observer.left());
                            tracing::info!(model = name, gave_back = %Mib(resident), "unloaded");
                            return Ended::Unloaded;
                        }
                    }
                    _ = looking.tick() => self.observed(observer.look()),
                }
            }
        }
    }

    fn spec(&self, verified: &Verified, processes: u32, prepare: Prepare) -> EngineSpec {
        let Threads {
            each: threads,
            are_pinned,
        } = division::threads(&self.config.engine, self.means(), processes);
        let model = verified.model();
        let memory_limit = limit(self.config.engine.memory_limit_mib, verified.bytes());
        EngineSpec {
            command: self.command.clone(),
            load: Load {
                kind: self.config.engine.kind,
                // Given anew before each start.
                root: PathBuf::new(),
                has_adapter: verified.base.is_some(),
                weights: model.weights.clone(),
                tokenizer: model.tokenizer.clone(),
                format: model.format,
                context_tokens: verified.context_tokens(),
                threads,
                slots: self.config.slots,
                model_name: verified.manifest().model.to_string(),
                continuation: self.config.engine.continuation,
                echo_delay_ms: self.config.engine.echo_delay_ms,
                compute: self.compute.clone(),
                confine: Confine::new(&self.config.sandbox, memory_limit)
                    .with_device(self.compute.device),
            },
            config: self.config.engine.clone(),
            prepare,
            processes,
            layout: Layout {
                // Other engines, and other workers of this machine, begin elsewhere.
                first_processor: are_pinned.then(|| u32::from(rand::random::<u16>())),
            },
        }
    }

    fn size(&self, verified: &Verified) -> Size {
        verified.size(memory::place(&self.config, self.compute.device))
    }

    /// What there is to divide it by.
    fn means(&self) -> Means {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let is_cpu = self.compute.device == Device::Cpu;
        Means {
            is_cpu,
            gives_one: is_cpu && self.config.engine.kind == EngineKind::Mistralrs,
            cores: u32::try_from(cores).unwrap_or(u32::MAX),
            slots: self.config.slots,
        }
    }

    /// Takes what was seen into account.
    fn observed(&self, needs: Option<Room>) {
        if let Some(needs) = needs {
            self.leases.observed(self.entry.index(), &needs);
        }
    }

    /// For good: nothing changes it but a new start of the worker.
    fn refuse(&self, digest: Option<Digest>, code: &'static str, reason: String) {
        self.leases.forget(self.entry.index(), &reason);
        self.fault(digest, code, reason);
    }

    fn fault(&self, digest: Option<Digest>, code: &'static str, reason: String) {
        let configured = self.entry.configured();
        tracing::error!(path = configured, code, reason, "model refused");
        self.entry.fault(digest, code, reason);
    }

    /// It is not loaded; `is_on_demand` says whether it is offered all the same. What can never be
    /// loaded is not.
    fn cold(&self, digest: Digest, is_on_demand: bool) {
        let unfit = self.leases.unfit(self.entry.index()).borrow().clone();
        let is_offered = is_on_demand && unfit.is_none();
        self.entry.change(|status| {
            status.is_on_demand = is_offered;
            if is_offered || !is_on_demand {
                status.state = ModelState::Cold;
            }
        });
        if let Some(why) = unfit.filter(|_| is_on_demand) {
            tracing::error!(
                path = self.entry.configured(),
                why,
                "there is no room for a model"
            );
            self.entry.fault(Some(digest), OVER_BUDGET, why);
        }
    }
}
