//! A node's folder: its key, its grant and its configuration file, for as many starts as it has.

use super::{Admin, Process, Site, text};
use anyhow::Context;
use std::fs::{OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tether_net::testing;
use tether_wire::{NodeId, NodeKey, Role};

/// What an orchestrator logs beside what matters: doubts, and each attempt with its worker.
const ORCHESTRATOR_LOG: &str = "info,tether_orchestrator::dispatch=debug,\
    tether_orchestrator::fleet::keeper=debug,iroh=warn,peeroxide=warn,libudx=warn";
const LOG: &str = "info,iroh=warn,peeroxide=warn,libudx=warn";

/// What workers are told beside their identity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerSettings {
    pub(crate) slots: u32,
    pub(crate) engine: EngineSettings,
}

/// Which engine workers have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EngineSettings {
    /// The echo engine, with milliseconds that it takes for each token.
    Echo { token_ms: u64 },
    /// The real one, with processes for each model, threads of each (0: by itself) and its deadlines
    /// in milliseconds.
    Real {
        processes: u16,
        threads: u16,
        hang_ms: u64,
        step_ms: u64,
    },
}

impl EngineSettings {
    fn configuration(self) -> String {
        match self {
            Self::Echo { token_ms } => {
                format!("kind = \"echo\"\necho_delay_ms = {token_ms}\n")
            }
            Self::Real {
                processes,
                threads,
                hang_ms,
                step_ms,
            } => {
                format!(
                    "replicas = {processes}\nthreads = {threads}\nhang_timeout_ms = {hang_ms}\nstep_timeout_ms = {step_ms}\n"
                )
            }
        }
    }
}

/// Where a node sits.
pub(crate) struct Seat {
    pub(crate) name: String,
    pub(crate) id: NodeId,
    role: Role,
    dir: PathBuf,
}

impl Seat {
    /// Makes key, grant and configuration.
    pub(super) fn new(
        site: &Site,
        role: Role,
        name: &str,
        worker: &WorkerSettings,
    ) -> anyhow::Result<Self> {
        let dir = site.path(name);
        std::fs::create_dir(&dir)?;
        std::fs::set_permissions(&dir, Permissions::from_mode(0o700))?;
        let key = testing::key();
        secret(&dir.join("node.key"), &key)?;
        let grant = site.local.grant(key.id(), role, |_| ());
        std::fs::write(dir.join("node.grant"), hex::encode(grant) + "\n")?;
        let seat = Self {
            name: name.to_owned(),
            id: key.id(),
            role,
            dir,
        };
        std::fs::write(seat.config(), seat.configuration(site, worker)?)?;
        Ok(seat)
    }

    /// Its configuration file.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// Further settings of its role.
    pub(super) fn configure(&self, settings: &str) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.config())?;
        Ok(file.write_all(settings.as_bytes())?)
    }

    fn configuration(&self, site: &Site, worker: &WorkerSettings) -> anyhow::Result<String> {
        // What a hostile node is told holds for honest ones, too.
        let (node, _) = site.local.config(testing::key(), self.role);
        let bootstrap: Vec<String> = node.bootstrap.iter().map(ToString::to_string).collect();
        let log = match self.role {
            Role::Orchestrator => ORCHESTRATOR_LOG,
            _ => LOG,
        };
        let common = format!(
            "[node]\nkey = \"node.key\"\ngrant = \"node.grant\"\nmesh = \"{}\"\nregion = \"{}\"\n\
             listen = \"127.0.0.1:0\"\ndht_listen = \"127.0.0.1:0\"\nbootstrap = {bootstrap:?}\n\
             data_dir = \"data\"\n\n[telemetry]\nlog_format = \"json\"\nlog_filter = \"{log}\"\n\n",
            node.members.mesh().id.operator().to_hex(),
            node.region,
        );
        let own = match self.role {
            Role::Orchestrator => format!(
                "[orchestrator]\ntenants = {:?}\nadmin = \"127.0.0.1:0\"\n{}",
                text(&site.path("tenants.toml"))?,
                match &site.database {
                    None => String::new(),
                    Some((url, _)) => format!(
                        "\n[orchestrator.store]\nkind = \"postgres\"\nurl = {url:?}\nkey_file = {:?}\n",
                        text(&site.path("store.key"))?
                    ),
                },
            ),
            Role::Worker => {
                let models = site.models.iter().map(|model| {
                    let path = site.path(model);
                    Ok(format!("\n[[worker.models]]\npath = {:?}\n", text(&path)?))
                });
                format!(
                    "[worker]\ntrusted_publishers = [\"{}\"]\nslots = {}\n\n[worker.engine]\n{}{}",
                    site.publisher,
                    worker.slots,
                    worker.engine.configuration(),
                    models.collect::<anyhow::Result<String>>()?,
                )
            }
            _ => "[gateway]\nlisten = \"127.0.0.1:0\"\n".to_owned(),
        };
        Ok(common + &own)
    }

    /// Starts its process, and waits until it says that it is ready.
    pub(super) async fn start(&self, site: &Site) -> anyhow::Result<Process> {
        let role = self.role.to_string();
        let config = self.config();
        let arguments = [role.as_str(), "--json", "--config", text(&config)?];
        Process::start(&site.tether, &arguments, &self.log())
            .await
            .with_context(|| self.name.clone())
    }

    /// Where its process logs, over all its runs.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The admin pages of an orchestrator.
    pub(crate) fn admin(&self, process: &Process) -> anyhow::Result<Admin> {
        let token = std::fs::read_to_string(self.dir.join("data/admin.token"))?;
        Admin::new(process.said("admin")?, token.trim())
    }
}

/// A node's key file, which only its owner may read.
fn secret(path: &Path, key: &NodeKey) -> anyhow::Result<()> {
    let mut file = OpenOptions::new();
    let mut file = file.write(true).create_new(true).mode(0o600).open(path)?;
    Ok(writeln!(file, "{}", hex::encode(key.seed()))?)
}
