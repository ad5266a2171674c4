//! From a folder to a served model: verified, loaded, offered; or a fault with its reason. (WRK-5)
//!
//! Files come from where they lie, or through the store from a source; `pool` decides which models
//! are loaded, `leases` holds them for requests, and a `keeper` each follows. A model for which there
//! is no room is offered as cold, and loaded when somebody asks for it.
//!
//! A model that is refused leaves the worker up and the other models alone. A failed verification
//! is final until the worker starts again, unless other processes of the model answer; an engine that
//! fails is started again by its supervisor, after its files were verified again.

mod card;
mod division;
mod entry;
mod estimate;
mod keeper;
pub(crate) mod leases;
mod locate;
mod memory;
mod observe;
mod pool;
mod server;

use crate::config::{ModelConfig, WorkerConfig};
use crate::device::{Compute, Device};
use crate::engine::{Engine, EngineCommand, Fallen};
use crate::health::GpuReading;
use crate::sandbox::Shield;
use crate::status::reasons;
use card::cut;
pub(crate) use card::{capacity, faults, offers, worker_state};
use entry::Entry;
use keeper::Keeper;
use leases::{Lease, Leases};
use locate::Locator;
use memory::Memory;
use pool::{Limits, Pool};
use serde::Serialize;
use server::ServerKeeper;
use std::path::Path;
use std::sync::Arc;
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, ModelRef};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

/// One model of the configuration, and what became of it.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// The folder, as configured.
    pub configured: String,
    /// What became of it.
    pub state: ModelState,
    /// What it is, once its manifest was believed; nothing of models that are not loaded here.
    pub known: Option<Known>,
    /// The name and version of a server's model, once its manifest was believed.
    pub server_model: Option<ModelRef>,
    /// Whether it is offered while it is not loaded: it was loaded once, or there was no room for it.
    /// A model that is on its first way is not.
    pub is_on_demand: bool,
}

/// A model that this worker can load.
#[derive(Clone, Debug)]
pub struct Known {
    /// What the card says of it while it is cold.
    pub offer: ModelOffer,
    /// Of an adapter: the digest of its base.
    pub base: Option<Digest>,
    /// Most answers that its engine gives at once; 0 before it was ever loaded.
    pub sequences: u32,
    /// Most bytes of text that one of its tokens stands for, where that is known.
    pub max_token_bytes: Option<u32>,
    /// Whether it is always loaded.
    pub is_pinned: bool,
    /// Memory that each of its processes is thought to take, or was seen to, of all devices.
    pub process_bytes: u64,
    /// Where it is computed.
    pub device: Device,
    /// Processes that give its answers, once they are all there; while it is not loaded, as few as it
    /// is loaded with.
    pub processes: u32,
    /// How long its last load took, the check of its files included; nothing before the first.
    pub load_ms: Option<u64>,
}

impl Known {
    /// Memory that it is thought to take in all its processes.
    fn memory_bytes(&self) -> u64 {
        self.process_bytes.saturating_mul(self.processes.into())
    }
}

/// A model for programs: `tether worker status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelReport {
    /// As configured.
    pub configured: String,
    /// Name and version, once known.
    pub model: Option<ModelRef>,
    /// Digest of its manifest, once known.
    pub digest: Option<Digest>,
    /// Of an adapter: the digest of its base.
    pub base: Option<Digest>,
    /// `fetching`, `verifying`, `cold`, `loading`, `warm` or `faulted`.
    pub state: &'static str,
    /// Bytes that were fetched or verified, of bytes in all.
    pub progress: Option<(u64, u64)>,
    /// Whether it is always loaded.
    pub is_pinned: bool,
    /// Memory that it is thought to take, or was seen to, in all its processes.
    pub memory_bytes: Option<u64>,
    /// Where it is computed, of models that this worker loads.
    pub device: Option<Device>,
    /// What keeps its engine in, while it is loaded.
    pub shields: Vec<Shield>,
    /// Processes that answer, of those that should; nothing of a server.
    pub processes: Option<(u32, u32)>,
    /// Answers that it gives at once now: no more than the worker has slots.
    pub sequences: u32,
    /// Milliseconds that its last load took: who asks for it while it is cold waits so long.
    pub load_ms: Option<u64>,
    /// Why it is not served, as a code and for people.
    pub fault: Option<(&'static str, String)>,
    /// Why processes of it do not answer while others do; equal ones are told once.
    pub process_faults: Vec<ProcessFault>,
}

/// Why processes of a model do not answer while others do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessFault {
    /// How many.
    pub processes: u32,
    /// A stable code, as that of a fault.
    pub code: &'static str,
    /// For people.
    pub reason: String,
    /// What to do about it.
    pub next: &'static str,
}

impl ModelStatus {
    fn new(configured: String) -> Self {
        Self {
            configured,
            state: ModelState::Verifying { done: 0, total: 0 },
            known: None,
            server_model: None,
            is_on_demand: false,
        }
    }

    /// Its name and version, once they are known.
    pub(crate) fn name(&self) -> Option<&ModelRef> {
        let known = self.known.as_ref().map(|known| &known.offer.model);
        known.or(self.server_model.as_ref())
    }

    /// The same for programs.
    #[must_use]
    pub fn report(&self) -> ModelReport {
        let known = self.known.as_ref();
        let offer = match &self.state {
            ModelState::Serving(served) => Some(&served.offer),
            _ => known.map(|known| &known.offer),
        };
        let progress = match self.state {
            ModelState::Fetching { done, total } | ModelState::Verifying { done, total } => {
                Some((done, total))
            }
            _ => None,
        };
        let (running, sequences) = match &self.state {
            ModelState::Serving(served) => (served.pids.len(), served.sequences),
            _ => (0, 0),
        };
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        let fault = match &self.state {
            ModelState::Faulted { code, reason, .. } => Some((*code, reason.clone())),
            _ => None,
        };
        ModelReport {
            configured: self.configured.clone(),
            model: offer.map(|offer| offer.model.clone()),
            digest: offer.map(|offer| offer.digest),
            base: known.and_then(|known| known.base),
            state: self.state.as_str(),
            progress,
            is_pinned: known.is_some_and(|known| known.is_pinned),
            memory_bytes: known.map(Known::memory_bytes),
            device: known.map(|known| known.device),
            shields: match &self.state {
                ModelState::Serving(served) => served.shields.clone(),
                _ => Vec::new(),
            },
            processes: known.map(|known| (running, known.processes)),
            sequences,
            load_ms: known.and_then(|known| known.load_ms),
            fault,
            process_faults: match &self.state {
                ModelState::Serving(served) => ProcessFault::of(&served.fallen),
                _ => Vec::new(),
            },
        }
    }
}

impl ProcessFault {
    fn of(fallen: &[Fallen]) -> Vec<Self> {
        let mut faults: Vec<Self> = Vec::new();
        for Fallen { code, reason } in fallen {
            let same = |it: &&mut Self| it.code == *code && it.reason == *reason;
            match faults.iter_mut().find(same) {
                Some(fault) => fault.processes += 1,
                None => faults.push(Self {
                    processes: 1,
                    code,
                    reason: reason.clone(),
                    next: reasons::mending_process(code),
                }),
            }
        }
        faults
    }
}

/// What became of a model.
#[derive(Clone, Debug)]
pub enum ModelState {
    /// Its files come from a source.
    Fetching {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Its files are read and compared with the manifest.
    Verifying {
        /// Bytes that were read.
        done: u64,
        /// Bytes in all; 0 before that is known.
        total: u64,
    },
    /// It is loaded when somebody asks for it.
    Cold,
    /// Its engine starts.
    Loading {
        /// Name and version.
        model: ModelRef,
        /// Digest of its manifest.
        digest: Digest,
    },
    /// It is served.
    Serving(Box<Served>),
    /// It is not served.
    Faulted {
        /// Its digest, where it was served before.
        digest: Option<Digest>,
        /// A stable code: `ArtifactError::code`, or `engine-…`.
        code: &'static str,
        /// For people.
        reason: String,
    },
}

impl ModelState {
    /// Its name for programs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Fetching { .. } => "fetching",
            Self::Verifying { .. } => "verifying",
            Self::Cold => "cold",
            Self::Loading { .. } => "loading",
            Self::Serving(_) => "warm",
            Self::Faulted { .. } => "faulted",
        }
    }
}

/// A model that answers.
#[derive(Clone, Debug)]
pub struct Served {
    /// What the worker's card says of it.
    pub offer: ModelOffer,
    /// Of an adapter: the digest of its base.
    pub base: Option<Digest>,
    /// Engine and version.
    pub engine_version: String,
    /// Most answers that the engine gives at once, by those of its processes that answer.
    pub sequences: u32,
    /// What keeps the engine's processes in.
    pub shields: Vec<Shield>,
    /// Most bytes of text that one of its tokens stands for, where the engine knows.
    pub max_token_bytes: Option<u32>,
    /// The engine's processes that answer, where they are ours.
    pub pids: Vec<u32>,
    /// Why others of them do not.
    pub fallen: Vec<Fallen>,
    /// The engine.
    pub engine: Engine,
}

impl Served {
    /// Digests of the adapters that are part of it. [T-RCP-1]
    pub(crate) fn adapters(&self) -> Vec<Digest> {
        self.base.map(|_| self.offer.digest).into_iter().collect()
    }
}

/// Whether an order for a digest can be run.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Yes.
    Served(Served),
    /// Yes, by whoever holds a lease on the model of this number.
    Held(usize, Known),
    /// Not now, and why.
    NotNow(String),
    /// This worker has no such model.
    Unknown,
}

/// The models of a worker. Dropping it ends their engines.
#[derive(Debug)]
pub(crate) struct Models {
    /// Held here too, so that it outlives the keepers of models that are given up.
    status: Arc<watch::Sender<Vec<ModelStatus>>>,
    leases: Leases,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Models {
    /// Starts to verify and load every configured model.
    pub(crate) fn start(
        config: &WorkerConfig,
        data_dir: &Path,
        command: &EngineCommand,
        gpus: &[GpuReading],
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let configured = config.models.iter().map(ModelConfig::to_string);
        let servers = config.servers.iter();
        let servers = servers.map(|server| format!("{} at {}", server.model, server.url));
        let initial = configured.chain(servers).map(ModelStatus::new).collect();
        let status = Arc::new(watch::Sender::new(initial));
        let limits = Limits {
            memory: memory::budgets(config, gpus),
            accelerators: config
                .accelerators()
                .iter()
                .map(Device::to_string)
                .collect(),
            adapters: config.max_warm_adapters,
            idle_ms: config.idle_unload_s.saturating_mul(1_000),
        };
        let pool = Pool::new(limits, config.models.len());
        let leases = Leases::new(pool, config.models.len());
        let memory = Memory::open(data_dir);
        let locator = Locator::new(config, data_dir);
        // One after the other: hashing is bound by the disk, or by one core.
        let turns = Arc::new(Semaphore::new(1));
        let mut tasks: Vec<_> = config
            .models
            .iter()
            .enumerate()
            .map(|(index, model)| {
                let keeper = Keeper {
                    entry: Entry::new(index, status.clone(), metrics.clone()),
                    config: config.clone(),
                    compute: compute(config, model, gpus),
                    command: command.clone(),
                    metrics: metrics.clone(),
                    views: data_dir.join("engine-views"),
                    leases: leases.clone(),
                    memory: memory.clone(),
                    locator: locator.clone(),
                };
                AbortOnDropHandle::new(tokio::spawn(keeper.run(model.clone(), turns.clone())))
            })
            .chain(config.servers.iter().enumerate().map(|(nth, server)| {
                let index = config.models.len() + nth;
                let keeper = ServerKeeper {
                    entry: Entry::new(index, status.clone(), metrics.clone()),
                    config: config.clone(),
                    metrics: metrics.clone(),
                };
                AbortOnDropHandle::new(tokio::spawn(keeper.run(server.clone())))
            }))
            .collect();
        tasks.push(AbortOnDropHandle::new(tokio::spawn(leases.clone().run())));
        Self {
            status,
            leases,
            tasks,
        }
    }

    /// All models, as they change.
    pub(crate) fn watch(&self) -> watch::Receiver<Vec<ModelStatus>> {
        self.status.subscribe()
    }

    pub(crate) fn find(&self, digest: &Digest) -> Found {
        find(&self.status.borrow(), digest)
    }

    /// Holds a model that was [`Found::Held`].
    ///
    /// # Errors
    /// Why it is not loaded for now.
    pub(crate) fn hold(&self, model: usize) -> Result<Lease, String> {
        self.leases.ask(model)
    }

    /// A model that is held and ready.
    pub(crate) fn served(&self, model: usize) -> Option<Served> {
        match &self.status.borrow()[model].state {
            ModelState::Serving(served) => Some(*served.clone()),
            _ => None,
        }
    }

    /// Ends every engine and waits until their processes are gone.
    pub(crate) async fn stop(&self) {
        let engines: Vec<Engine> = self
            .status
            .borrow()
            .iter()
            .filter_map(|status| match &status.state {
                ModelState::Serving(served) => Some(served.engine.clone()),
                _ => None,
            })
            .collect();
        // First, since who keeps a model starts an engine again that ended.
        self.tasks.iter().for_each(|task| task.abort());
        for engine in engines {
            engine.stop().await;
        }
    }
}

/// Where and how a model is computed.
fn compute(config: &WorkerConfig, model: &ModelConfig, gpus: &[GpuReading]) -> Compute {
    let device = config.device_of(model);
    let gpu = match device {
        Device::Cuda(ordinal) => usize::try_from(ordinal).ok().and_then(|it| gpus.get(it)),
        Device::Cpu | Device::Metal => None,
    };
    Compute {
        device,
        class: gpu.map_or_else(|| config.gpu_class.clone(), GpuReading::class),
        sequences: config.engine.sequences,
    }
}

fn find(models: &[ModelStatus], digest: &Digest) -> Found {
    for (index, model) in models.iter().enumerate() {
        let is_known = |known: &&Known| known.offer.digest == *digest;
        match (&model.state, model.known.as_ref().filter(is_known)) {
            (
                ModelState::Faulted {
                    digest: Some(found),
                    reason,
                    ..
                },
                _,
            ) if found == digest => return Found::NotNow(reason.clone()),
            (ModelState::Faulted { .. }, _) => {}
            (_, Some(known)) => return Found::Held(index, known.clone()),
            (ModelState::Serving(served), None) if served.offer.digest == *digest => {
                return Found::Served(*served.clone());
            }
            (ModelState::Loading { digest: found, .. }, None) if found == digest => {
                return Found::NotNow("the model is being loaded".to_owned());
            }
            _ => {}
        }
    }
    Found::Unknown
}

/// How many models are loaded.
fn loaded(models: &[ModelStatus]) -> usize {
    let is_loaded = |model: &&ModelStatus| matches!(model.state, ModelState::Serving(_));
    models.iter().filter(is_loaded).count()
}
