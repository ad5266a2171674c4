//! A worker from start to goodbye.

use crate::admission::{Load, Slots};
use crate::clock::now_ms;
use crate::config::{ConfigError, WorkerConfig};
use crate::engine::EngineCommand;
use crate::health::strain::Strain;
use crate::health::{Health, Machine, Reading};
use crate::metrics_page::MetricsPage;
use crate::models::{self, ModelStatus, Models};
use crate::presence::{Presence, Profile};
use crate::quota::{Limits, Rates};
use crate::receipts::Signer;
use crate::serve::{self, Shared, WorkerService};
use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_net::{NetError, Node, NodeConfig, UplinkView, epoch};
use tether_telemetry::metrics::{Registry, WorkerMetrics, WorkerTotals};
use tether_wire::beat::NodeState;
use tether_wire::{NodeId, Role, Signed, Tier};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A setting that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's role is not that of a worker.
    #[error("the node is a {0}, not a worker")]
    Role(Role),
    /// The data folder cannot be used.
    #[error("the data folder {}: {error}", .path.display())]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Another worker has the data folder.
    #[error(
        "another worker uses the data folder {}: stop it, or give this one a key and a folder of its own (`data_dir` in [node])", .0.display()
    )]
    InUse(PathBuf),
    /// The address of the metrics cannot be had.
    #[error(
        "cannot listen on {address}, which is `metrics` in [worker]: {error}; another process may have it"
    )]
    Metrics {
        /// As configured.
        address: SocketAddr,
        /// The system's words.
        error: io::Error,
    },
    /// The node cannot start.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Taken for as long as a worker runs. Two in one folder would show one key twice, and each other's
/// weights to their engines.
const LOCK: &str = "worker.lock";
/// How long answers that are handed over may take to say so, after everything of them was sent.
const HAND_OVER: Duration = Duration::from_secs(2);

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    node: NodeHandle,
    shared: Arc<Shared>,
    presence: Presence,
    terms: Terms,
    metrics_page: Option<MetricsPage>,
    _lock: File,
    _following: AbortOnDropHandle<()>,
}

/// What of its configuration its provider is told.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) started: Instant,
    pub(crate) slots: u32,
    pub(crate) queue_limit: u32,
    pub(crate) price_per_1k_micro: u64,
}

/// What a worker is doing now.
#[derive(Clone, Debug)]
pub struct WorkerStatus {
    /// Its key.
    pub id: NodeId,
    /// What it is doing.
    pub state: NodeState,
    /// Its models.
    pub models: Vec<ModelStatus>,
    /// Requests that run and wait.
    pub load: Load,
    /// Orchestrators that hear its heartbeats.
    pub orchestrators: usize,
    /// Its machine, as it was seen last.
    pub machine: Reading,
    /// Why nothing new is taken, when the machine has too much to do.
    pub strain: Option<Strain>,
}

/// Starts a worker. It is up when this returns; models are verified and loaded behind it, and one
/// that is refused is reported in heartbeats and by [`Worker::status`] while the worker stays up. What
/// `registry` holds is served where a `metrics` address is configured.
///
/// # Errors
/// When a setting cannot be, the data folder cannot be used or is another worker's, the address of the
/// metrics cannot be had, or the node cannot start.
pub async fn start(
    config: WorkerConfig,
    data_dir: &Path,
    node_config: NodeConfig,
    engine_command: EngineCommand,
    metrics: Arc<WorkerMetrics>,
    registry: Registry,
) -> Result<Worker, WorkerError> {
    config.validate()?;
    if node_config.role != Role::Worker {
        return Err(WorkerError::Role(node_config.role));
    }
    let at_data_dir = |error| WorkerError::DataDir {
        path: data_dir.to_owned(),
        error,
    };
    std::fs::create_dir_all(data_dir).map_err(at_data_dir)?;
    let lock = File::create(data_dir.join(LOCK)).map_err(at_data_dir)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(WorkerError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => return Err(at_data_dir(error)),
    }
    let metrics_page = match config.metrics {
        Some(address) => {
            let opened = MetricsPage::open(address, registry).await;
            Some(opened.map_err(|error| WorkerError::Metrics { address, error })?)
        }
        None => None,
    };
    let epoch = epoch::next(data_dir, now_ms()).map_err(at_data_dir)?;
    let health = Health::start(config.shed, metrics.clone()).await;
    let gpus = health.reading().gpus;
    let profile = Profile {
        machine: Machine::of(&config, &health.reading()),
        tier: granted_tier(&node_config),
        price_per_1k_micro: config.price_per_1k_micro,
    };
    let limits = Limits {
        slots: config.slots,
        queue: config.queue_limit,
        per_tenant: config.per_tenant_slots,
    };
    let slots = Slots::new(limits, metrics.clone());
    let signer = Signer {
        key: node_config.key.clone(),
        mesh: node_config.members.mesh().id,
        grant: node_config.grant.clone(),
    };
    let queue_timeout = Duration::from_millis(config.queue_timeout_ms);
    let rates = Rates::new(config.quota, now_ms());
    let shared = Shared::new(
        signer,
        config.slots,
        queue_timeout,
        slots,
        rates,
        health,
        metrics.clone(),
    );
    let shared = Arc::new(shared);
    let service = Arc::new(WorkerService {
        shared: shared.clone(),
    });
    let node = Node::start(node_config, service).await?;
    // Models are verified and loaded only now that nothing else can fail any more.
    let models = shared
        .models
        .get_or_init(|| Models::start(&config, data_dir, &engine_command, &gpus, &metrics));
    let following = tokio::spawn(serve::follow(shared.clone(), models.watch()));
    let links = config.orchestrators;
    let presence = Presence::start(&node, epoch, links, profile, &shared, models);
    Ok(Worker {
        node: NodeHandle(node),
        shared,
        presence,
        terms: Terms {
            started: Instant::now(),
            slots: config.slots,
            queue_limit: config.queue_limit,
            price_per_1k_micro: config.price_per_1k_micro,
        },
        metrics_page,
        _lock: lock,
        _following: AbortOnDropHandle::new(following),
    })
}

/// What this worker may claim; what counts is that verifiers read the same from its grant.
fn granted_tier(config: &NodeConfig) -> Tier {
    config
        .grant
        .as_ref()
        .and_then(|grant| {
            (config.members.current())
                .verify_grant(&Signed::from_bytes(grant.as_slice()), now_ms())
                .ok()
        })
        .map_or(Tier::Untrusted, |grant| grant.tier)
}

impl Worker {
    /// Its key.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// Its node, for what is not of the worker: addresses, links.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node.0
    }

    /// Where its metrics are read, where that is configured.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_page.as_ref().map(MetricsPage::address)
    }

    /// What it is doing now.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        let models = self.models().borrow().clone();
        WorkerStatus {
            id: self.id(),
            state: models::worker_state(&models, self.shared.draining.is_cancelled()),
            models,
            load: self.shared.slots.load(),
            orchestrators: *self.presence.linked().borrow(),
            machine: self.shared.health.reading(),
            strain: self.shared.health.strain().borrow().clone(),
        }
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(crate) fn grant(&self) -> Option<&[u8]> {
        self.shared.grant()
    }

    pub(crate) fn totals(&self) -> WorkerTotals {
        self.shared.metrics.totals()
    }

    /// Tokens in a second and milliseconds to the first token, of late.
    pub(crate) fn pace_of_late(&self) -> (f32, u64) {
        let pace = self.shared.pace();
        (pace.tokens_per_s(), pace.first_token_ms())
    }

    pub(crate) async fn known_orchestrators(&self) -> Vec<UplinkView> {
        self.presence.look().views().await
    }

    /// Its models, as they change.
    ///
    /// # Panics
    /// Never: a worker that was started has models, if only none.
    #[must_use]
    pub fn models(&self) -> watch::Receiver<Vec<ModelStatus>> {
        self.shared
            .models
            .get()
            .expect("models were started before the worker was returned")
            .watch()
    }

    /// How many orchestrators hear its heartbeats, as it changes.
    #[must_use]
    pub fn orchestrators(&self) -> watch::Receiver<usize> {
        self.presence.linked()
    }

    /// Stops: says that it drains, takes nothing new, waits at most `deadline` for what runs, says
    /// goodbye, ends the engines and the node. What still runs after the deadline is handed over:
    /// everything that the engine had given of it is sent, and then it fails with `Unavailable`, so
    /// that it is tried elsewhere. Returns whether everything came to its end.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.shared.draining.cancel();
        self.shared.calls.close();
        let all_ended = tokio::time::timeout(deadline, self.shared.calls.wait())
            .await
            .is_ok();
        self.shared.stopping.cancel();
        if !all_ended
            && tokio::time::timeout(HAND_OVER, self.shared.calls.wait())
                .await
                .is_err()
        {
            tracing::warn!("some answers could not be handed over: nobody reads them");
        }
        self.presence.goodbye().await;
        if let Some(models) = self.shared.models.get() {
            models.stop().await;
        }
        self.node.0.shutdown().await;
        all_ended
    }
}

/// A node that shows its id only.
struct NodeHandle(Node);

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({})", self.0.id().short())
    }
}
