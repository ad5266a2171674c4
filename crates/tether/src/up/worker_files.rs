//! What will run, decided before anything does: nodes, models, and the workers' files.

use super::UpArgs;
use super::core::Core;
use super::identities::{self, Authority, NodeFiles};
use super::layout::Layout;
use super::models;
use super::workers::WorkerPlan;
use crate::config::{NodeSection, WorkerFile, node};
use crate::files;
use anyhow::Context;
use std::net::SocketAddr;
use std::path::PathBuf;
use tether_artifact_store::Trust;
use tether_telemetry::TelemetryConfig;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{ModelRef, NodeId, Region, Role};
use tether_worker::engine::protocol::EngineKind;
use tether_worker::{ModelConfig, WorkerConfig};

/// Requests that a worker runs at once, where nothing else is said. Two workers on two cores then
/// take a handful of tenants without either starving.
const SLOTS: u32 = 4;

/// A whole mesh on this machine.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) mesh: Mesh,
    pub(crate) region: Region,
    pub(crate) gateway: NodeFiles,
    pub(crate) gateway_dir: PathBuf,
    pub(crate) gateway_listen: SocketAddr,
    pub(crate) orchestrator: NodeFiles,
    pub(crate) orchestrator_dir: PathBuf,
    pub(crate) admin: SocketAddr,
    pub(crate) tenants: PathBuf,
    pub(crate) api_key: String,
    pub(crate) publishers: Vec<NodeId>,
    /// The small model: the one that is asked first.
    pub(crate) model: ModelRef,
    /// All directories, the small model's first.
    pub(crate) model_dirs: Vec<PathBuf>,
    /// Those of them that a trusted publisher signed: the releases of this mesh.
    pub(crate) released: Vec<PathBuf>,
    /// The models that should be served, by their manifests.
    pub(crate) models: Vec<ModelRef>,
    pub(crate) workers: Vec<PlannedWorker>,
    engine: EngineKind,
    cores: u32,
    settings: WorkerConfig,
    telemetry: TelemetryConfig,
}

/// A worker's folder and files.
#[derive(Debug)]
pub(crate) struct PlannedWorker {
    pub(crate) dir: PathBuf,
    pub(crate) node: NodeFiles,
}

/// What the command line says of each worker.
pub(crate) fn settings(args: &UpArgs) -> WorkerConfig {
    let mut config = WorkerConfig {
        slots: args.slots.unwrap_or(SLOTS),
        ..WorkerConfig::default()
    };
    config.engine.replicas = args.replicas;
    config
}

/// Makes keys, grants and the small model, and looks at the other models.
pub(crate) fn prepare(
    args: &UpArgs,
    layout: &Layout,
    telemetry: TelemetryConfig,
) -> anyhow::Result<Plan> {
    let authority = Authority::open(layout, args.region.clone())?;
    let publisher = identities::publisher(layout)?;
    let (model, dir) = models::small_model(layout, &publisher)?;
    let mut publishers = args.publisher.clone();
    publishers.insert(0, publisher.id());
    let trust = Trust::in_publishers(publishers.iter().copied());
    let (mut model_dirs, mut released) = (vec![dir.clone()], vec![dir]);
    let mut models = vec![model.clone()];
    for dir in &args.model {
        let dir = std::path::absolute(dir)
            .with_context(|| format!("cannot use --model {}", dir.display()))?;
        if let Some(model) = models::released(&dir, &trust) {
            models.push(model);
            released.push(dir.clone());
        }
        model_dirs.push(dir);
    }
    let workers = (1..=usize::from(args.workers))
        .map(|number| {
            let dir = layout.worker(number);
            let node = authority.node(&dir, Role::Worker)?;
            Ok(PlannedWorker { dir, node })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = u32::try_from(cores / workers.len()).unwrap_or(1).max(1);
    Ok(Plan {
        mesh: authority.mesh(),
        region: args.region.clone(),
        gateway: authority.node(&layout.gateway(), Role::Gateway)?,
        gateway_dir: layout.gateway(),
        gateway_listen: args.gateway,
        orchestrator: authority.node(&layout.orchestrator(), Role::Orchestrator)?,
        orchestrator_dir: layout.orchestrator(),
        admin: args.admin,
        api_key: identities::api_key(layout)?,
        tenants: layout.tenants(),
        publishers,
        model,
        model_dirs,
        released,
        models,
        workers,
        engine: engine_kind(&args.engine)?,
        cores,
        settings: settings(args),
        telemetry,
    })
}

fn engine_kind(name: &str) -> anyhow::Result<EngineKind> {
    serde_json::from_value(name.into()).with_context(|| format!("`{name}` is no kind of engine"))
}

impl Plan {
    /// `[node]` of a node of this mesh, with its bootstrap nodes known.
    pub(crate) fn node_section(
        &self,
        files: &NodeFiles,
        data_dir: PathBuf,
        bootstrap: Vec<SocketAddr>,
    ) -> NodeSection {
        NodeSection {
            key: files.key_file.clone(),
            grant: Some(files.grant_file.clone()),
            mesh: self.mesh.id,
            recovery: self.mesh.recovery,
            access: Access::Invite,
            allow: None,
            region: self.region.clone(),
            listen: node::loopback(),
            advertise: Vec::new(),
            dht_listen: node::loopback(),
            bootstrap,
            // On one machine everybody reaches everybody.
            relays: Vec::new(),
            orchestrators: Vec::new(),
            data_dir,
        }
    }

    /// Writes each worker's configuration: the same kind of file as on a machine of its own.
    pub(crate) fn write_workers(&self, core: &Core) -> anyhow::Result<Vec<WorkerPlan>> {
        self.workers
            .iter()
            .map(|worker| {
                let file = WorkerFile {
                    node: self.node_section(
                        &worker.node,
                        worker.dir.join("data"),
                        core.bootstrap_addresses(),
                    ),
                    telemetry: self.telemetry.clone(),
                    worker: self.worker_config(),
                };
                let config = worker.dir.join("worker.toml");
                let text = toml::to_string(&file).context("cannot encode a worker's settings")?;
                files::replace_private(&config, text.as_bytes())
                    .with_context(|| format!("cannot write {}", config.display()))?;
                Ok(WorkerPlan {
                    id: worker.node.identity.key.id(),
                    log: worker.dir.join("worker.log"),
                    config,
                })
            })
            .collect()
    }

    fn worker_config(&self) -> WorkerConfig {
        let mut config = WorkerConfig {
            models: self.model_dirs.iter().map(ModelConfig::at).collect(),
            trusted_publishers: self.publishers.clone(),
            ..self.settings.clone()
        };
        config.engine.kind = self.engine;
        // Workers share one machine.
        config.engine.cores = self.cores;
        config
    }
}
