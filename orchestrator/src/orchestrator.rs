//! Start and stop: wires the parts together, and takes them apart in order.

use crate::admin::{self, Admin};
use crate::catalogue::{self, Catalogue};
use crate::clock;
use crate::config::{ConfigError, OrchestratorConfig};
use crate::desk::Desk;
use crate::directory::serve::Directory;
use crate::discovery::{self, Intake, Joins, Own, Spreading};
use crate::dispatch::Dispatcher;
use crate::dispatch::breaking::Breaking;
use crate::dispatch::open::OpenJobs;
use crate::dispatch::paces::Paces;
use crate::dispatch::retries::Retries;
use crate::dispatch::running::Running;
use crate::dispatch::waiting::Waiting;
use crate::explained::Explanations;
use crate::fleet::Snapshot;
use crate::fleet::keeper::{Fleet, FleetSettings};
use crate::lease::Life;
use crate::placement::{InForce, PlacementError, PlacementFile};
use crate::policy::file::Follower;
use crate::policy::{Policy, PolicyError, PolicyFile};
use crate::releases::{self, ReleaseError};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{MetadataStore, Opening, Released, StoreError, patiently};
use crate::tenants::{Parsed, TenantsError, TenantsFile};
use crate::upkeep::{MAX_UNRECORDED, Upkeep};
use arc_swap::ArcSwap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tether_net::{NetError, Node, NodeConfig, Uplinks, epoch};
use tether_telemetry::metrics::{OrchestratorMetrics, Registry};
use tether_wire::{Digest, NodeId, Topic};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Name of the store's file in the data folder.
pub const STORE_FILE: &str = "orchestrator.sqlite";
/// Orchestrators that this one links with by itself; more may link with it. Beats reach those that
/// are not linked through those that are.
const PEERS: usize = 16;
/// Time for requests that were ended to be recorded.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the last frames of ended calls before their links close.
const LAST_FRAMES: Duration = Duration::from_millis(100);

/// Why an orchestrator does not start.
#[derive(Debug, thiserror::Error)]
pub enum OrchestratorError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data folder or the admin port cannot be used.
    #[error("{what}: {why}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's words.
        why: std::io::Error,
    },
    /// The tenants' file is refused.
    #[error(transparent)]
    Tenants(#[from] TenantsError),
    /// The placement file is refused.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// The policy is refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A release is refused.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The admin token cannot be kept.
    #[error(transparent)]
    Token(#[from] admin::TokenError),
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node does not start.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// A running orchestrator.
pub struct Orchestrator {
    node: Node,
    fleet: Fleet,
    store: Arc<dyn MetadataStore>,
    dispatcher: Arc<Dispatcher>,
    directory: Arc<Directory>,
    admin: Arc<Admin>,
    admin_addr: SocketAddr,
    admin_token: PathBuf,
    drain: Duration,
    own: Own,
    uplinks: Uplinks,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Starts an orchestrator with the store that is configured. Everything is checked and opened
/// before the node can be found.
///
/// # Errors
/// The first thing that is wrong; nothing runs then.
pub async fn start(
    config: OrchestratorConfig,
    data_dir: &Path,
    node_config: NodeConfig,
    metrics: Arc<OrchestratorMetrics>,
    registry: Registry,
) -> Result<Orchestrator, OrchestratorError> {
    config.validate()?;
    std::fs::create_dir_all(data_dir).map_err(|why| OrchestratorError::Io {
        what: format!("cannot make {}", data_dir.display()),
        why,
    })?;
    let counted = metrics.clone();
    let opening = Opening {
        now_ms: clock::now().unix_ms,
        key_file: config.store.key_file(data_dir),
        retention: config.retention(),
        on_commit: Box::new(move |size, took| counted.committed(size, took)),
    };
    let store: Arc<dyn MetadataStore> = match config.store.place(data_dir)? {
        None => Arc::new(SqliteStore::open(&data_dir.join(STORE_FILE), opening)?),
        Some(place) => Arc::new(PostgresStore::connect(place, opening).await?),
    };
    start_with_store(config, data_dir, node_config, store, metrics, registry).await
}

/// Starts an orchestrator with a store of the caller's.
///
/// # Errors
/// The first thing that is wrong; nothing runs then.
pub async fn start_with_store(
    config: OrchestratorConfig,
    data_dir: &Path,
    node_config: NodeConfig,
    store: Arc<dyn MetadataStore>,
    metrics: Arc<OrchestratorMetrics>,
    registry: Registry,
) -> Result<Orchestrator, OrchestratorError> {
    config.validate()?;
    let io = |what: String| move |why| OrchestratorError::Io { what, why };
    let resolve = |path: &PathBuf| OrchestratorConfig::resolve(data_dir, path);
    let mut tenants_file = TenantsFile::new(resolve(&config.tenants));
    let Parsed { tenants, shares } = tenants_file.poll()?.unwrap_or_default();
    let shares = Arc::new(ArcSwap::from_pointee(shares));
    let mut policy_file = config
        .policy
        .file
        .as_ref()
        .map(|path| PolicyFile::new(resolve(path)));
    let policy = policy_file.as_mut().map_or(Ok(None), PolicyFile::poll)?;
    let policy: Arc<ArcSwap<Policy>> = Arc::new(ArcSwap::from_pointee(policy.unwrap_or_default()));
    let releases: Vec<PathBuf> = config.releases.iter().map(resolve).collect();
    let releases = releases::load(&releases, &config.trusted_publishers)?;
    let token = admin::load_or_create(data_dir)?;
    let listener = TcpListener::bind(config.admin)
        .await
        .map_err(io(format!("cannot listen on {}", config.admin)))?;
    let admin_addr = listener
        .local_addr()
        .map_err(io("the admin port has no address".to_owned()))?;

    let now_ms = clock::now().unix_ms;
    let id = node_config.key.id();
    let epoch = epoch::next(data_dir, now_ms).map_err(io(format!(
        "no epoch can be kept in {}",
        data_dir.display()
    )))?;
    // Its last run may have been cut off a moment ago, with rows that the database holds for it still.
    let store_ms = config.store_timeout_ms;
    let begin = || Life::begin(store.clone(), id, node_config.region.clone());
    let life = patiently(store_ms, begin).await?;
    patiently(store_ms, || release_open(&store, id, now_ms)).await?;
    let known = patiently(store_ms, || store.known_models()).await?;
    let on_disk = (known.iter())
        .map(|it| (it.model.clone(), it.last_offered_ms))
        .collect();
    let catalogue = Arc::new(ArcSwap::from_pointee(Catalogue::new(&releases, &known)));

    let (stop, draining, cut) = (
        CancellationToken::new(),
        CancellationToken::new(),
        CancellationToken::new(),
    );
    let (placement, placement_file) = placement_of(&config, data_dir)?;
    let explanations = Arc::<Explanations>::default();
    let (fleet, outgoing) = Fleet::start(FleetSettings {
        id,
        presence: config.presence(),
        placement: placement.clone(),
        seed: rand::random(),
        metrics: metrics.clone(),
        stop: stop.clone(),
    });
    let directory = Arc::new(Directory::new(
        tenants,
        policy.clone(),
        metrics.clone(),
        now_ms,
        draining.clone(),
    ));
    let (unrecorded, late) = mpsc::channel(MAX_UNRECORDED);
    let dispatcher = Arc::new(Dispatcher {
        id,
        region: node_config.region.clone(),
        began_ms: clock::now().mono_ms,
        node: OnceLock::new(),
        fleet: fleet.clone(),
        catalogue: catalogue.clone(),
        policy: policy.clone(),
        store: store.clone(),
        steady: life.steady(),
        metrics: metrics.clone(),
        permits: Arc::new(Semaphore::new(config.max_open)),
        running: Running::default(),
        paces: Paces::default(),
        breaking: Breaking::new(config.breakers, metrics.clone()),
        retries: Retries::new(config.retry),
        waiting: Waiting::new(config.queue, metrics.clone()),
        shares: shares.clone(),
        open: TaskTracker::new(),
        jobs: OpenJobs::default(),
        unrecorded,
        draining,
        stop: cut,
        placement: placement.clone(),
        warmth: Mutex::default(),
        explanations: explanations.clone(),
        config: config.clone(),
    });
    let members = node_config.members.clone();
    let intake = Arc::new(Intake::new(members.clone(), fleet.clone(), metrics.clone()));
    let (spreading, news) = Spreading::new(members.clone(), fleet.clone());
    let joins = Arc::new(Joins::new(&node_config));
    let desk = Arc::new(Desk {
        intake: intake.clone(),
        spreading: spreading.clone(),
        directory: directory.clone(),
        dispatcher: dispatcher.clone(),
        joins,
    });
    let region = node_config.region.clone();
    let node = Node::start(node_config, desk).await?;
    let _ = dispatcher.node.set(node.clone());

    let tasks = TaskTracker::new();
    let links = discovery::watch_links(node.clone(), fleet.clone(), stop.clone());
    tasks.spawn(links);
    tasks.spawn(intake.clone().run(stop.clone()));
    tasks.spawn(discovery::follow_controls(
        members.clone(),
        fleet.clone(),
        stop.clone(),
    ));
    let carry = discovery::carry(
        spreading,
        intake,
        node.clone(),
        outgoing,
        news,
        stop.clone(),
    );
    tasks.spawn(carry);
    tasks.spawn(dispatcher.clone().attend(stop.clone()));
    let own = Own::start(&node, epoch, fleet.clone(), dispatcher.jobs.clone());
    let uplinks = Uplinks::start(&node, PEERS);
    tasks.spawn(
        directory
            .clone()
            .follow_tenants(tenants_file, shares.clone()),
    );
    if let Some(file) = placement_file {
        tasks.spawn(file.follow(placement.clone(), stop.clone()));
    }
    if let Some(file) = policy_file {
        let follower = Follower {
            file,
            policy,
            directory: directory.clone(),
            metrics: metrics.clone(),
        };
        tasks.spawn(follower.run(stop.clone()));
    }
    let models = catalogue::keeper::Keeper {
        fleet: fleet.clone(),
        catalogue: catalogue.clone(),
        directory: directory.clone(),
        store: store.clone(),
        on_disk,
    };
    tasks.spawn(models.run(stop.clone()));
    let upkeep = Upkeep {
        store: store.clone(),
        steady: life.steady(),
        id,
        open: dispatcher.jobs.clone(),
        max_open: config.max_open,
        unrecorded: late,
        metrics: metrics.clone(),
    };
    tasks.spawn(upkeep.run(stop.clone()));
    tasks.spawn(life.run(stop.clone()));
    let admin = Arc::new(Admin {
        registry,
        metrics,
        store: store.clone(),
        fleet: fleet.clone(),
        catalogue,
        members,
        node: node.clone(),
        uplinks: uplinks.look(),
        placement: placement.clone(),
        explanations,
        dispatcher: dispatcher.clone(),
        ready: AtomicBool::new(false),
        token: Digest::of(token.as_bytes()),
    });
    let (serving, ending) = (admin.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = serving.serve(listener, ending).await {
            tracing::error!(%error, "the admin port ended");
        }
    });
    if let Err(error) = node.announce(&Topic::Control(region)).await {
        // The node retries by itself; meanwhile those who know us can still link.
        tracing::warn!(%error, "not announced yet");
    }
    admin.ready.store(true, Ordering::Release);
    tracing::debug!(%id, admin = %admin_addr, "orchestrator ready");
    Ok(Orchestrator {
        node,
        fleet,
        store,
        dispatcher,
        directory,
        admin,
        admin_addr,
        admin_token: data_dir.join(admin::TOKEN_FILE),
        drain: Duration::from_millis(config.drain_timeout_ms),
        own,
        uplinks,
        tasks,
        stop,
    })
}

/// How requests are placed from the start on, and the file to follow where there is one.
fn placement_of(
    config: &OrchestratorConfig,
    data_dir: &Path,
) -> Result<(InForce, Option<PlacementFile>), PlacementError> {
    let Some(path) = &config.placement_file else {
        return Ok((config.placement.clone().in_force(), None));
    };
    let mut file = PlacementFile::new(OrchestratorConfig::resolve(data_dir, path));
    let placement = file.poll()?.unwrap_or_default();
    Ok((placement.in_force(), Some(file)))
}

/// Accounts for what a crash left open. (RSV-4)
async fn release_open(
    store: &Arc<dyn MetadataStore>,
    id: NodeId,
    now_ms: u64,
) -> Result<(), StoreError> {
    let reason = "the orchestrator ended while the job was open".to_owned();
    let released = store.release_open(id, reason, now_ms).await?;
    if released != Released::default() {
        tracing::warn!(
            unanswered = released.unanswered,
            partly_answered = released.partly_answered,
            "jobs left open by the last run are released as failed"
        );
    }
    Ok(())
}

impl Orchestrator {
    /// Its key's public half.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node.id()
    }

    /// Where the admin pages are.
    #[must_use]
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The file of the admin token.
    #[must_use]
    pub fn admin_token_file(&self) -> &Path {
        &self.admin_token
    }

    /// The fleet as it is now.
    #[must_use]
    pub fn fleet_snapshot(&self) -> Arc<Snapshot> {
        self.fleet.snapshot()
    }

    /// The fleet, to follow its changes.
    #[must_use]
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// How many times the tenants' file was refused since the start, and the tenants kept as they
    /// were.
    #[must_use]
    pub fn tenants_refused(&self) -> tokio::sync::watch::Receiver<u64> {
        self.directory.refused()
    }

    /// The store, to look at its jobs.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn MetadataStore> {
        &self.store
    }

    /// Its node.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Stops: takes nothing new, lets what is open finish in time, records the rest as failed,
    /// closes links, then the store.
    ///
    /// # Errors
    /// When the store could not be closed well; everything it acknowledged is on the disk anyway.
    pub async fn shutdown(self) -> Result<(), OrchestratorError> {
        self.admin.ready.store(false, Ordering::Release);
        self.dispatcher.draining.cancel();
        self.own.draining();
        let region = self.node.region().clone();
        self.node.withdraw(&Topic::Control(region)).await;
        self.dispatcher.open.close();
        let busy = !self.dispatcher.open.is_empty();
        let drained = tokio::time::timeout(self.drain, self.dispatcher.open.wait()).await;
        if drained.is_err() {
            tracing::warn!(
                open = self.dispatcher.open.len(),
                "answers cut off by the shutdown"
            );
            self.dispatcher.stop.cancel();
            let _ = tokio::time::timeout(FINISH_TIMEOUT, self.dispatcher.open.wait()).await;
        }
        if busy {
            // The last frames of the calls are on their way; links close hard.
            tokio::time::sleep(LAST_FRAMES).await;
        }
        self.own.goodbye().await;
        drop(self.uplinks);
        self.node.shutdown().await;
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(FINISH_TIMEOUT, self.tasks.wait()).await;
        self.store.close().await?;
        Ok(())
    }
}
