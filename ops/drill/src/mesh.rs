//! A mesh of real processes: its authority, its folders, its nodes.
//!
//! # Layout
//!
//! * `seat` – a node's key, grant and configuration file
//! * `process` – a running `tether`
//! * `admin` – the admin pages of an orchestrator
//! * `server` – a PostgreSQL of its own
//!
//! The DHT runs in this process; everything else is a `tether` of its own, at free ports of
//! loopback.

mod admin;
mod process;
mod seat;
#[path = "../../../tests/support/postgres.rs"]
mod server;

pub(crate) use admin::{Admin, Metrics, Row};
pub(crate) use process::{Process, send};
pub(crate) use seat::{EngineSettings, Seat, WorkerSettings};

use crate::SiteArgs;
use crate::report::progress;
use crate::views::Views;
use anyhow::{Context, ensure};
use serde_json::Value;
use server::Server;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tether_net::testing::LocalMesh;
use tether_wire::Role;
use tether_wire::grant::Access;

/// The model of all workers, by the name that requests have; of several it is the first, and the
/// others are named after it.
pub(crate) const MODEL: &str = "tether-tiny";
/// A hang guard for what nothing is measured of.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Processes that start at once: more only wait for each other.
const STARTS_AT_ONCE: usize = 8;

/// Who gives grants, and where everything lies.
pub(crate) struct Site {
    pub(crate) local: LocalMesh,
    tether: PathBuf,
    dir: PathBuf,
    publisher: String,
    /// The names of the models that all workers serve.
    pub(crate) models: Vec<String>,
    api_key: String,
    /// The database that all orchestrators share, and its server.
    database: Option<(String, Server)>,
    _temporary: Option<TempDir>,
}

impl Site {
    /// Makes keys, signed models and a tenant.
    pub(crate) async fn new(args: &SiteArgs, shape: &Shape) -> anyhow::Result<Self> {
        let tether = match &args.tether {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("tether"),
        };
        ensure!(
            tether.is_file(),
            "there is no {}: build it by `cargo build --release -p tether`, or name it by --tether",
            tether.display()
        );
        let tether = tether.canonicalize()?;
        let (dir, temporary) = match &args.keep {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                let names = TempDir::with_prefix_in("mesh-", dir)?;
                (names.keep(), None)
            }
            None => {
                let temporary = tempfile::tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let mut site = Self {
            local: LocalMesh::new(Access::Invite),
            tether,
            dir: dir.canonicalize()?,
            publisher: String::new(),
            models: (0..shape.models)
                .map(|n| match n {
                    0 => MODEL.to_owned(),
                    n => format!("{MODEL}-{n}"),
                })
                .collect(),
            api_key: String::new(),
            database: None,
            _temporary: temporary,
        };
        if shape.shared_store {
            let server = Server::start().map_err(anyhow::Error::msg)?;
            site.database = Some((server.database("drill"), server));
        }
        let key = site.path("publisher.key");
        site.publisher = site.command(&["keys", "new", text(&key)?]).await?;
        for name in &site.models {
            site.pack(name, &key).await?;
        }
        let tenants = site.path("tenants.toml");
        site.api_key = site
            .command(&["tenant", "new", "--file", text(&tenants)?, "--id", "drill"])
            .await?;
        Ok(site)
    }

    /// A copy of the small model, signed under a name of its own.
    async fn pack(&self, name: &str, key: &Path) -> anyhow::Result<()> {
        let model = self.path(name);
        copy_dir(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/tiny-model/model"),
            &model,
        )
        .context("cannot copy the small model")?;
        let named = format!("{name}@1.0");
        let (model, key) = (text(&model)?, text(key)?);
        self.command(&["artifact", "pack", model, "--model", &named, "--key", key])
            .await?;
        Ok(())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A further tenant, with its part of the work; its key. Orchestrators read the file again.
    pub(crate) async fn tenant(&self, id: &str, weight: u32) -> anyhow::Result<String> {
        let (tenants, next) = (self.path("tenants.toml"), self.path("tenants.next"));
        std::fs::copy(&tenants, &next)?;
        let key = ["tenant", "new", "--file", text(&next)?, "--id", id];
        let key = self.command(&key).await?;
        let line = format!("id = {id:?}\n");
        let written = std::fs::read_to_string(&next)?;
        ensure!(
            written.contains(&line),
            "`tether tenant new` writes no {line}"
        );
        let weighed = written.replace(&line, &format!("{line}weight = {weight}\n"));
        std::fs::write(&next, weighed)?;
        std::fs::rename(&next, &tenants)?;
        Ok(key)
    }

    /// Runs `tether` to its end; what it prints.
    async fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(&self.tether)
            .args(arguments)
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(
            output.status.success(),
            "tether {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}

/// What a mesh is made of.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) orchestrators: usize,
    /// Whether they share a PostgreSQL database; else each has a file of its own.
    pub(crate) shared_store: bool,
    pub(crate) workers: usize,
    /// Models that every worker serves; at least one.
    pub(crate) models: usize,
    pub(crate) worker: WorkerSettings,
}

/// A node and, while it runs, its process.
pub(crate) struct Member {
    pub(crate) seat: Seat,
    pub(crate) process: Option<Process>,
}

impl Member {
    /// Its running process.
    pub(crate) fn process(&self) -> anyhow::Result<&Process> {
        (self.process.as_ref()).with_context(|| format!("{} does not run", self.seat.name))
    }

    /// Starts it, and waits until it says that it is ready.
    pub(crate) async fn start(&mut self, site: &Site) -> anyhow::Result<()> {
        self.process = Some(self.seat.start(site).await?);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }
}

/// A running mesh.
pub(crate) struct Mesh {
    pub(crate) site: Site,
    pub(crate) orchestrators: Vec<Member>,
    pub(crate) gateway: Member,
    pub(crate) workers: Vec<Member>,
}

impl Mesh {
    /// Starts one and waits until all workers are routable in all views, and the gateway is ready.
    pub(crate) async fn start(args: &SiteArgs, shape: &Shape) -> anyhow::Result<Self> {
        let began = Instant::now();
        let site = Site::new(args, shape).await?;
        let member = |seat| Member {
            seat,
            process: None,
        };
        let mut mesh = Self {
            gateway: member(Seat::new(&site, Role::Gateway, "gateway", &shape.worker)?),
            orchestrators: (0..shape.orchestrators)
                .map(|n| {
                    Seat::new(
                        &site,
                        Role::Orchestrator,
                        &format!("orchestrator-{n}"),
                        &shape.worker,
                    )
                })
                .map(|seat| seat.map(member))
                .collect::<anyhow::Result<_>>()?,
            workers: (0..shape.workers)
                .map(|n| Seat::new(&site, Role::Worker, &format!("worker-{n}"), &shape.worker))
                .map(|seat| seat.map(member))
                .collect::<anyhow::Result<_>>()?,
            site,
        };
        for orchestrator in &mut mesh.orchestrators {
            orchestrator.start(&mesh.site).await?;
        }
        mesh.gateway.start(&mesh.site).await?;
        let site = &mesh.site;
        for some in mesh.workers.chunks_mut(STARTS_AT_ONCE) {
            let starts = some.iter_mut().map(|worker| worker.start(site));
            futures_util::future::try_join_all(starts).await?;
        }
        let views = mesh.views()?;
        let all = mesh.workers.len();
        views
            .until(
                PATIENCE,
                "all workers are routable with all models",
                |fleet| {
                    let is_whole =
                        |row: &&Row| row.is_routable() && row.models.len() == shape.models;
                    fleet.values().filter(is_whole).count() == all
                },
            )
            .await?;
        mesh.until_ready(&mesh.gateway).await?;
        progress(format!(
            "{} orchestrators, a gateway and {all} workers run after {:.1} s",
            mesh.orchestrators.len(),
            began.elapsed().as_secs_f64()
        ));
        Ok(mesh)
    }

    /// What the orchestrators say of their fleets.
    pub(crate) fn views(&self) -> anyhow::Result<Views> {
        let admins = self
            .orchestrators
            .iter()
            .map(|it| it.seat.admin(it.process()?));
        Ok(Views::new(admins.collect::<anyhow::Result<_>>()?))
    }

    /// URL of the gateway.
    pub(crate) fn gateway_url(&self) -> anyhow::Result<String> {
        self.gateway.process()?.said("gateway")
    }

    /// What `tether store check` says of an orchestrator's store.
    pub(crate) async fn store(&self, orchestrator: usize) -> anyhow::Result<Value> {
        let config = self.orchestrators[orchestrator].seat.config();
        let arguments = ["store", "check", "--json", "--config", text(&config)?];
        let said = self.site.command(&arguments).await?;
        serde_json::from_str(&said).context("tether store check --json")
    }

    /// The tenant's key.
    pub(crate) fn api_key(&self) -> &str {
        &self.site.api_key
    }

    /// A gateway of other settings, which has an orchestrator.
    pub(crate) async fn further_gateway(
        &self,
        name: &str,
        worker: &WorkerSettings,
        settings: &str,
    ) -> anyhow::Result<Member> {
        let seat = Seat::new(&self.site, Role::Gateway, name, worker)?;
        seat.configure(settings)?;
        let process = Some(seat.start(&self.site).await?);
        let gateway = Member { seat, process };
        self.until_ready(&gateway).await?;
        Ok(gateway)
    }

    /// Waits until a gateway has an orchestrator.
    pub(crate) async fn until_ready(&self, gateway: &Member) -> anyhow::Result<()> {
        let url = format!("{}/readyz", gateway.process()?.said("gateway")?);
        let client = client()?;
        let begin = Instant::now();
        while !(client.get(&url).send().await).is_ok_and(|it| it.status().is_success()) {
            ensure!(
                begin.elapsed() < PATIENCE,
                "the gateway does not become ready"
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }
}

/// A client for loopback.
pub(crate) fn client() -> anyhow::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .timeout(PATIENCE)
        .build()
        .context("cannot make an HTTP client")
}

pub(crate) fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
