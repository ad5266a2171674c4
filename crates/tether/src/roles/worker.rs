//! `tether worker`: serves models. Also what `tether up` starts as its children.

pub(crate) mod home;
pub(crate) mod join;
mod progress;
pub(crate) mod status_socket;

use crate::commands;
use crate::commands::doctor::DoctorArgs;
use crate::commands::worker_init::InitArgs;
use crate::commands::worker_status::StatusArgs;
use crate::config::{self, Checked, WorkerFile};
use crate::engine_program;
use crate::exit::Usage;
use crate::logging::LoggingArgs;
use crate::signals::{Drained, Signals};
use anyhow::Context;
use clap::{Args, Subcommand};
use home::Home;
use join::{Joining, Prepared};
use rustix::process::Signal;
use serde_json::json;
use status_socket::StatusSocket;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::{Registry, WorkerMetrics};
use tether_wire::{NodeId, Role};
use tracing::{info, warn};

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_long_help = format!("\
Examples:
  tether worker --config worker.toml
  tether worker --join-file token --data-dir ./tether-worker --model ./tiny --publisher ID
  pass show tether/token | tether worker --join-file - --data-dir ./tether-worker
  tether worker --data-dir ./tether-worker            again, when it has joined
  tether worker init                                  asks, and writes a configuration
  tether worker status --data-dir ./tether-worker     what it does, and why it gets no work
  tether worker doctor                                what can engines be kept from here?

{}", join::HELP))]
pub(crate) struct WorkerArgs {
    #[command(subcommand)]
    command: Option<WorkerCommand>,
    /// The configuration file
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present_any = ["data_dir", "join", "join_file"],
        conflicts_with_all = ["data_dir", "join_file"]
    )]
    config: Option<PathBuf>,
    /// When ready, print one JSON object with ids and addresses on stdout
    #[arg(long)]
    json: bool,
    /// Join a mesh by the token of an invite; better given as the variable or by --join-file, which
    /// other users of the machine cannot read
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TETHER_JOIN",
        hide_env_values = true
    )]
    join: Option<String>,
    /// The same, with the token in a file; `-` reads it from standard input
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
    /// Folder of a worker that joins, or has joined: its key, grant and configuration (worker.toml)
    /// [default with a token: ./tether-worker]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Join anew, also where this folder has a grant: one that the mesh revoked, say
    #[arg(long)]
    rejoin: bool,
    /// A packed model, for the configuration of a worker that joins; may be given several times
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// A publisher whose signed models are trusted, for the same; may be given several times
    #[arg(long, value_name = "ID")]
    publisher: Vec<NodeId>,
    /// Die with the parent, whose end of our standard input must stay open
    #[arg(long, hide = true)]
    supervised: bool,
}

/// What is asked of a worker's machine rather than run on it.
#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Write a worker's configuration, by questions or by options
    Init(Box<InitArgs>),
    /// Show what a running worker does, earned, and why it gets no work
    Status(StatusArgs),
    /// Find out what engines are kept from on this machine, by trying to escape
    Doctor(DoctorArgs),
}

/// How a worker starts.
enum Start {
    /// With all that it needs.
    Ready(Box<Checked<WorkerFile>>),
    /// It has yet to join.
    Joining(Box<Joining>),
}

impl WorkerArgs {
    pub(crate) fn run(mut self, logging: &LoggingArgs) -> anyhow::Result<ExitCode> {
        match self.command.take() {
            Some(WorkerCommand::Init(args)) => args.run().map(|()| ExitCode::SUCCESS),
            Some(WorkerCommand::Status(args)) => args.run(),
            Some(WorkerCommand::Doctor(args)) => args.run(),
            None => self.serve(logging).map(|()| ExitCode::SUCCESS),
        }
    }

    fn serve(self, logging: &LoggingArgs) -> anyhow::Result<()> {
        if self.supervised {
            die_with_parent().context("cannot tie this process to its parent")?;
        }
        let start = self.start()?;
        let (id, telemetry) = match &start {
            Start::Ready(checked) => (checked.identity.key.id(), &checked.file.telemetry),
            Start::Joining(joining) => (joining.id(), joining.telemetry()),
        };
        let telemetry = telemetry.clone();
        commands::serve(async {
            let guard = super::telemetry(telemetry, logging, &id.to_hex())?;
            let mut signals = Signals::listen()?;
            let checked = match start {
                Start::Ready(checked) => *checked,
                Start::Joining(joining) => tokio::select! {
                    joined = joining.join() => joined?,
                    _ = signals.next() => {
                        info!("stopped before this worker had joined: start it again the same way");
                        guard.shutdown();
                        return Ok(());
                    }
                },
            };
            serve(checked, self.json, signals).await?.end(guard);
            Ok(())
        })
    }

    /// Reads what there is to read before anything is started.
    fn start(&self) -> anyhow::Result<Start> {
        let token = join::token(self.join.as_deref(), self.join_file.as_deref())?;
        let is_for_joining = self.rejoin || !(self.model.is_empty() && self.publisher.is_empty());
        if token.is_none() && is_for_joining {
            return Err(Usage(
                "--rejoin needs a token, and --model and --publisher are for a worker that joins: write them into the configuration",
            )
            .into());
        }
        let ready = |config: PathBuf| -> anyhow::Result<Start> {
            Ok(Start::Ready(Box::new(config::worker(&config)?)))
        };
        match (&self.config, token) {
            (Some(config), None) => ready(config.clone()),
            (Some(_), Some(_)) => Err(Usage(
                "a token is not for --config: give --data-dir, in which the configuration is written",
            )
            .into()),
            (None, None) => {
                let dir = self.data_dir.clone();
                ready(Home::new(dir.ok_or(Usage("give --config or --data-dir"))?).config())
            }
            (None, Some(token)) => {
                let dir = self.data_dir.clone();
                let options = join::Options {
                    models: &self.model,
                    publishers: &self.publisher,
                    rejoin: self.rejoin,
                };
                let home = Home::new(dir.unwrap_or_else(|| PathBuf::from("tether-worker")));
                match join::prepare(home, token, &options)? {
                    Prepared::Joined(config) => ready(config),
                    Prepared::Joining(joining) => Ok(Start::Joining(joining)),
                }
            }
        }
    }
}

/// Runs until a signal comes.
async fn serve(
    checked: Checked<WorkerFile>,
    json: bool,
    mut signals: Signals,
) -> anyhow::Result<Drained> {
    let WorkerFile {
        node,
        worker: section,
        ..
    } = checked.file;
    let id = checked.identity.key.id();
    let drain_timeout = Duration::from_millis(section.drain_timeout_ms);
    let engine = engine_program::command().context("cannot find this program's own file")?;
    node.open_data_dir()?;
    let registry = Registry::new();
    let (node_config, _following) =
        node.member_config(&checked.identity, Role::Worker, &registry)?;
    let metrics = WorkerMetrics::register(&registry);
    let data_dir = &node.data_dir;
    let worker =
        tether_worker::start(section, data_dir, node_config, engine, metrics, registry).await?;
    let worker = Arc::new(worker);
    let answering = StatusSocket::open(&node.data_dir, worker.clone());
    if let Err(error) = &answering {
        warn!("`tether worker status` will find nothing here: {error:#}");
    }
    let _bars = progress::show(worker.models(), json);
    info!(%id, "worker runs");
    let mut ready = json!({"event": "ready", "id": id, "pid": std::process::id()});
    if let Some(address) = worker.metrics_addr() {
        let url = format!("http://{address}/metrics");
        info!(url, "its metrics are read there");
        ready["metrics"] = url.into();
    }
    super::announce_ready(json, &ready)?;
    let signal = signals.next().await;
    let drain = async {
        if !worker.drain(drain_timeout).await {
            warn!("stopped before every request had ended: they are tried elsewhere");
        }
    };
    Ok(signals.drain(signal, drain).await)
}

/// Ends this process when its parent ends, however that happens: the kernel sends a signal, and
/// where it cannot (the parent was gone before we asked) the closed pipe tells.
fn die_with_parent() -> std::io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    std::thread::Builder::new()
        .name("parent-watch".to_owned())
        .spawn(|| {
            let mut byte = [0];
            // The parent never writes: this returns when it is gone.
            let _ = std::io::stdin().read(&mut byte);
            tracing::warn!("the parent process is gone: so is this worker");
            std::process::exit(1);
        })?;
    Ok(())
}
