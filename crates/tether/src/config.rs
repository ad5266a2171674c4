//! Configuration: one TOML file per process, read and validated in full before a port is bound.
//!
//! A file has `[node]` (who and where), `[telemetry]`, and the section of its role, whose fields
//! are those of the role's own config struct. `TETHER_SECTION__KEY` in the environment overrides
//! `key` of `[section]`, in capitals or not. Unknown keys are refused. Paths are relative to the file.
//!
//! * [`source`](mod@source) – file and environment become a struct; the only knower of figment
//! * [`variables`] – what a variable's name means
//! * [`node`] – `[node]`, and the key and grant that it names
//! * [`allow`] – the file of keys that `[node]` may name
//! * [`relay`] – `[relay]`, which a file with `[bootstrap]` may have

pub(crate) mod allow;
pub(crate) mod node;
pub(crate) mod relay;
pub(crate) mod source;
pub(crate) mod variables;

pub(crate) use node::{Identity, NodeSection};
pub(crate) use relay::RelaySection;
pub(crate) use source::Process;

use crate::commands::http;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tether_gateway::GatewayConfig;
use tether_orchestrator::OrchestratorConfig;
use tether_orchestrator::placement::PlacementFile;
use tether_orchestrator::policy::PolicyFile;
use tether_orchestrator::tenants::TenantsFile;
use tether_telemetry::TelemetryConfig;
use tether_wire::Role;
use tether_worker::WorkerConfig;

/// Most DHT nodes of one bootstrap process. A routing bucket holds 20.
const MAX_BOOTSTRAP_NODES: usize = 64;

/// Why a configuration is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", file.display())]
    Read {
        file: PathBuf,
        source: std::io::Error,
    },
    /// It is not TOML.
    #[error("{} is not valid TOML: {why}", file.display())]
    Syntax { file: PathBuf, why: String },
    /// A key that nothing reads: a typing error is not passed over in silence.
    #[error("{place}: unknown key `{key}`; known here: {known}")]
    UnknownKey {
        place: String,
        key: String,
        known: String,
    },
    /// A value that cannot be.
    #[error("{}: `{key}` {why}", file.display())]
    Invalid {
        file: PathBuf,
        key: String,
        why: String,
    },
    /// A model that was given on the command line.
    #[error("--model {} {why}", dir.display())]
    Model { dir: PathBuf, why: String },
    /// A variable that nothing reads: the same for the environment. The name is quoted, since
    /// blanks may be part of it.
    #[error("environment variable {name:?} {why}")]
    Variable { name: String, why: String },
    /// Which role the file is for cannot be told.
    #[error(
        "{}: {found}: it needs exactly one of the sections [bootstrap], [gateway], [orchestrator] and [worker], which say what the process is",
        file.display()
    )]
    Role { file: PathBuf, found: String },
}

/// What `up` says of settings that it would pass over.
const UP_TAKES: &str = "is not for `tether up`, which makes the settings of its roles itself: use its options (--workers, --gateway, --admin, --region, --model, --publisher) and TETHER_TELEMETRY__KEY, or run each role with a file of its own (`tether worker --config FILE` and so on), where such a variable holds";

/// A process of DHT bootstrap nodes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootstrapFile {
    #[serde(default)]
    pub(crate) telemetry: TelemetryConfig,
    #[serde(default)]
    pub(crate) bootstrap: BootstrapSection,
    /// The relay that it runs besides, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relay: Option<RelaySection>,
}

/// `[bootstrap]`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BootstrapSection {
    /// UDP addresses, one for each DHT node of this process. A mesh wants at least 10 nodes
    /// together before lookups are reliable, so the default is ten on loopback at free ports.
    pub(crate) listen: Vec<SocketAddr>,
    /// Bootstrap nodes elsewhere to join.
    pub(crate) bootstrap: Vec<SocketAddr>,
}

/// DHT nodes of a mesh on one machine. Fewer answer unreliably.
pub(crate) const LOCAL_BOOTSTRAP_NODES: usize = 10;

impl Default for BootstrapSection {
    fn default() -> Self {
        Self {
            listen: vec![node::loopback(); LOCAL_BOOTSTRAP_NODES],
            bootstrap: Vec::new(),
        }
    }
}

/// A gateway's process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayFile {
    pub(crate) node: NodeSection,
    #[serde(default)]
    pub(crate) telemetry: TelemetryConfig,
    #[serde(default)]
    pub(crate) gateway: GatewayConfig,
}

/// An orchestrator's process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrchestratorFile {
    pub(crate) node: NodeSection,
    #[serde(default)]
    pub(crate) telemetry: TelemetryConfig,
    #[serde(default)]
    pub(crate) orchestrator: OrchestratorConfig,
}

/// A worker's process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkerFile {
    pub(crate) node: NodeSection,
    #[serde(default)]
    pub(crate) telemetry: TelemetryConfig,
    #[serde(default)]
    pub(crate) worker: WorkerConfig,
}

/// A configuration that was validated, with what it names.
#[derive(Debug)]
pub(crate) struct Checked<F> {
    /// The configuration itself, with absolute paths.
    pub(crate) file: F,
    /// Key and grant of the node.
    pub(crate) identity: Identity,
}

impl<F: Serialize> Checked<F> {
    /// The effective configuration; secrets are only paths in it.
    pub(crate) fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(&self.file)?)
    }
}

impl BootstrapFile {
    /// The effective configuration.
    pub(crate) fn to_toml(&self) -> anyhow::Result<String> {
        Ok(toml::to_string(self)?)
    }
}

/// Telemetry of `tether up`, which has no file. Settings of the roles are refused.
pub(crate) fn up_telemetry() -> Result<TelemetryConfig, ConfigError> {
    #[derive(Deserialize)]
    struct Section {
        #[serde(default)]
        telemetry: TelemetryConfig,
    }
    let Section { telemetry } = source::from_environment(&["telemetry"])?;
    source::refuse_besides(&["telemetry"], UP_TAKES)?;
    check_telemetry(&telemetry, &refusal(Path::new("the environment")))?;
    Ok(telemetry)
}

/// A bootstrap process that has no file.
pub(crate) fn bootstrap_from_environment() -> Result<BootstrapFile, ConfigError> {
    let file = source::from_environment(&["telemetry", "bootstrap", "relay"])?;
    check_bootstrap(file, Path::new("the environment"))
}

/// Variables whose names begin as our settings do, and which nothing reads.
pub(crate) fn unread_variables() -> Vec<String> {
    source::unread()
}

/// `[node]` of any role's file, with absolute paths; key and grant are not read.
pub(crate) fn node_of(path: &Path) -> Result<NodeSection, ConfigError> {
    let mut node = match source::role_of(path)? {
        Process::Gateway => source::load::<GatewayFile>(path, Process::Gateway)?.node,
        Process::Orchestrator => {
            source::load::<OrchestratorFile>(path, Process::Orchestrator)?.node
        }
        Process::Worker => source::load::<WorkerFile>(path, Process::Worker)?.node,
        Process::Bootstrap => {
            return Err(refusal(path)(
                "bootstrap",
                "is a section of a process that has no key of its own".to_owned(),
            ));
        }
    };
    node.check_place(path)?;
    Ok(node)
}

/// The data folder that a file names, or the one that is meant where it names none, whatever else is
/// wrong with the file.
pub(crate) fn data_dir_of(path: &Path) -> PathBuf {
    let mut folder = source::stray_data_dir(path).unwrap_or_else(node::data_dir);
    node::absolute(path, &mut folder);
    folder
}

/// Which role a file is for.
pub(crate) fn role_of(file: &Path) -> Result<Process, ConfigError> {
    source::role_of(file)
}

/// Reads and validates a bootstrap process's file.
pub(crate) fn bootstrap(path: &Path) -> Result<BootstrapFile, ConfigError> {
    check_bootstrap(source::load(path, Process::Bootstrap)?, path)
}

fn check_bootstrap(file: BootstrapFile, path: &Path) -> Result<BootstrapFile, ConfigError> {
    let refuse = refusal(path);
    check_telemetry(&file.telemetry, &refuse)?;
    let count = file.bootstrap.listen.len();
    if count == 0 || count > MAX_BOOTSTRAP_NODES {
        return Err(refuse(
            "bootstrap.listen",
            format!("has {count} addresses: give 1 to {MAX_BOOTSTRAP_NODES}"),
        ));
    }
    node::require_ipv4(&file.bootstrap.listen).map_err(|why| refuse("bootstrap.listen", why))?;
    node::require_ipv4(&file.bootstrap.bootstrap)
        .map_err(|why| refuse("bootstrap.bootstrap", why))?;
    if let Some(relay) = &file.relay {
        relay.check().map_err(|(key, why)| refuse(key, why))?;
    }
    Ok(file)
}

/// Reads and validates a gateway's file.
pub(crate) fn gateway(path: &Path) -> Result<Checked<GatewayFile>, ConfigError> {
    let mut file: GatewayFile = source::load(path, Process::Gateway)?;
    let refuse = refusal(path);
    check_telemetry(&file.telemetry, &refuse)?;
    let identity = file.node.check(path, Role::Gateway)?;
    file.gateway
        .check()
        .map_err(|error| section_refusal(path, "gateway", &error.to_string()))?;
    Ok(Checked { file, identity })
}

/// Reads and validates an orchestrator's file.
pub(crate) fn orchestrator(path: &Path) -> Result<Checked<OrchestratorFile>, ConfigError> {
    let mut file: OrchestratorFile = source::load(path, Process::Orchestrator)?;
    let refuse = refusal(path);
    check_telemetry(&file.telemetry, &refuse)?;
    let identity = file.node.check(path, Role::Orchestrator)?;
    node::absolute(path, &mut file.orchestrator.tenants);
    if let Some(policy) = &mut file.orchestrator.policy.file {
        node::absolute(path, policy);
    }
    for release in &mut file.orchestrator.releases {
        node::absolute(path, release);
    }
    let store = &mut file.orchestrator.store;
    let secrets = [&mut store.key_file, &mut store.password_file];
    for file in secrets.into_iter().flatten() {
        node::absolute(path, file);
    }
    if let Some(placement) = &mut file.orchestrator.placement_file {
        node::absolute(path, placement);
    }
    let section = &file.orchestrator;
    section
        .validate()
        .map_err(|error| section_refusal(path, "orchestrator", &error.to_string()))?;
    // The files that a start reads, as it reads them.
    TenantsFile::new(section.tenants.clone())
        .poll()
        .map_err(|error| refuse("orchestrator.tenants", format!("cannot be used: {error}")))?;
    if let Some(placement) = &section.placement_file {
        (PlacementFile::new(placement.clone()).poll())
            .map_err(|error| refuse("orchestrator.placement_file", error.to_string()))?;
    }
    if let Some(policy) = &section.policy.file {
        PolicyFile::new(policy.clone()).poll().map_err(|error| {
            refuse(
                "orchestrator.policy.file",
                format!("cannot be used: {error}"),
            )
        })?;
    }
    tether_orchestrator::releases::load(&section.releases, &section.trusted_publishers)
        .map_err(|error| refuse("orchestrator.releases", format!("cannot be used: {error}")))?;
    Ok(Checked { file, identity })
}

/// Reads and validates a worker's file.
pub(crate) fn worker(path: &Path) -> Result<Checked<WorkerFile>, ConfigError> {
    let mut file: WorkerFile = source::load(path, Process::Worker)?;
    let identity = file.node.check(path, Role::Worker)?;
    check_worker(&mut file, path)?;
    Ok(Checked { file, identity })
}

/// The same of a worker that has yet to join: who it is is not looked at.
pub(crate) fn joining_worker(path: &Path) -> Result<WorkerFile, ConfigError> {
    check_joining(source::load(path, Process::Worker)?, path)
}

/// The same of a text that is to become that file.
pub(crate) fn joining_worker_of(text: &str, path: &Path) -> Result<WorkerFile, ConfigError> {
    check_joining(source::parse(text, path, Process::Worker)?, path)
}

fn check_joining(mut file: WorkerFile, path: &Path) -> Result<WorkerFile, ConfigError> {
    file.node.check_place(path)?;
    check_worker(&mut file, path)?;
    Ok(file)
}

/// Settings of a worker that come from elsewhere than a file, named by `place`.
pub(crate) fn check_worker_settings(
    settings: &WorkerConfig,
    place: &str,
) -> Result<(), ConfigError> {
    settings
        .validate()
        .map_err(|error| section_refusal(Path::new(place), "worker", &error.to_string()))
}

fn check_worker(file: &mut WorkerFile, path: &Path) -> Result<(), ConfigError> {
    check_telemetry(&file.telemetry, &refusal(path))?;
    let folders = file.worker.models.iter_mut();
    let folders = folders.filter_map(|model| model.path.as_mut());
    for folder in folders.chain(&mut file.worker.sources) {
        node::absolute(path, folder);
    }
    file.worker
        .validate()
        .map_err(|error| section_refusal(path, "worker", &error.to_string()))
}

fn refusal(path: &Path) -> impl Fn(&str, String) -> ConfigError {
    move |key, why| ConfigError::Invalid {
        file: path.to_owned(),
        key: key.to_owned(),
        why,
    }
}

/// A role's own error says `section.key why`.
fn section_refusal(path: &Path, section: &str, error: &str) -> ConfigError {
    let (key, why) = match error.split_once(' ') {
        Some((key, why)) if key.starts_with(section) => (key, why),
        _ => (section, error),
    };
    refusal(path)(key, why.to_owned())
}

fn check_telemetry(
    telemetry: &TelemetryConfig,
    refuse: &impl Fn(&str, String) -> ConfigError,
) -> Result<(), ConfigError> {
    telemetry
        .check()
        .map_err(|error| refuse("telemetry", error.to_string()))?;
    match &telemetry.otlp_endpoint {
        None => Ok(()),
        Some(url) => http::parse_url(url)
            .map(|_| ())
            .map_err(|why| refuse("telemetry.otlp_endpoint", format!("is `{url}`: {why}"))),
    }
}
