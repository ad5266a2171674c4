//! `tether up`: a whole mesh on one machine, with nothing else installed. (OPS-1)
//!
//! Bootstrap nodes, orchestrator and gateway live in this process, each a node with its own key;
//! they meet only on the wire. Each worker is a process of its own, so that it can be killed.
//!
//! * [`layout`] – the data folder
//! * [`identities`] – keys, grants, the tenant's API key
//! * [`models`] – the small model, unpacked and signed; other models
//! * [`core`] – what runs in this process
//! * [`workers`], [`backoff`], [`silence`] – the children, when one is started again, and when one that
//!   lives and says nothing is ended
//! * [`worker_log`] – how much of their logs is kept
//! * [`ready`] – every worker announced, loaded and routable; the first prompt
//! * [`report`] – `run.json`, the ready line, what a person is shown

mod backoff;
mod core;
mod identities;
mod layout;
mod models;
mod ready;
mod report;
mod silence;
mod worker_files;
mod worker_log;
mod workers;

use crate::commands::{self, http, run_file};
use crate::config;
use crate::exit;
use crate::logging::LoggingArgs;
use crate::roles;
use crate::signals::Signals;
use anyhow::Context;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;
use tether_telemetry::TelemetryConfig;
use tether_wire::{NodeId, Region};

/// Most workers on one machine; beyond this they only wait for each other.
const MAX_WORKERS: u16 = 64;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = format!("\
Examples:
  tether up
  tether up --workers 2 --gateway 127.0.0.1:0
  tether up --data-dir ./mesh --json > ready.json
  tether artifact pack ./my-model --model my-model@1.0 --key DATA_DIR/publisher.key
  tether up --model ./my-model

Ready means: every worker is announced, has loaded its models and gets work. Before that a prompt
is sent through the gateway. Ctrl-C drains; a second one stops at once.

{}", exit::HELP))]
pub(crate) struct UpArgs {
    /// Number of workers, each a process of its own
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WORKERS)))]
    workers: u16,
    /// Where keys, models and state are kept, made if it is not there; the platform's data folder
    /// if not given
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// HTTP address of the gateway; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    gateway: SocketAddr,
    /// HTTP address of the orchestrator's admin endpoint; loopback only
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR", value_parser = parse_loopback)]
    admin: SocketAddr,
    /// Region of all nodes
    #[arg(long, default_value = "local")]
    region: Region,
    /// Directory of a further model, packed by `tether artifact pack`; may be given several times
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// Public id of a publisher whose models are served, besides those packed with this data
    /// folder's publisher.key; may be given several times
    #[arg(long, value_name = "ID")]
    publisher: Vec<NodeId>,
    /// Send traces to this OTLP collector (HTTP)
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = http::parse_url)]
    otlp_endpoint: Option<String>,
    /// The kind of engine
    #[arg(long, hide = true, default_value = "mistralrs")]
    engine: String,
    /// Requests that each worker runs at once
    #[arg(long, hide = true)]
    slots: Option<u32>,
    /// Processes of each model on each worker; 0 means as many as the machine has room for
    #[arg(long, hide = true, default_value_t = 0)]
    replicas: u32,
    /// When ready, print one line of JSON on stdout, and nothing else
    #[arg(long)]
    json: bool,
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(addr) if addr.ip().is_loopback() => Ok(addr),
        Ok(_) => {
            Err("it shows the fleet, and is for this machine alone: use 127.0.0.1:PORT".into())
        }
        Err(error) => Err(error.to_string()),
    }
}

impl UpArgs {
    pub(crate) fn run(self, logging: &LoggingArgs) -> anyhow::Result<()> {
        let begin = Instant::now();
        let telemetry = self.telemetry(logging)?;
        let settings = worker_files::settings(&self);
        config::check_worker_settings(&settings, "the command line")?;
        models::require_packed(&self.model)?;
        ready::check_port(self.gateway)?;
        commands::serve(Box::pin(self.run_until_stopped(logging, telemetry, begin)))
    }

    fn telemetry(&self, logging: &LoggingArgs) -> Result<TelemetryConfig, config::ConfigError> {
        let mut telemetry = config::up_telemetry()?;
        if let Some(endpoint) = &self.otlp_endpoint {
            telemetry.otlp_endpoint = Some(endpoint.clone());
        }
        logging.apply(&mut telemetry);
        Ok(telemetry)
    }

    async fn run_until_stopped(
        self,
        logging: &LoggingArgs,
        telemetry: TelemetryConfig,
        begin: Instant,
    ) -> anyhow::Result<()> {
        let mut signals = Signals::listen()?;
        let root = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => run_file::default_data_dir()?,
        };
        let layout = layout::Layout::create(&root)
            .with_context(|| format!("cannot use the data folder {}", root.display()))?;
        let _lock = layout.lock()?;
        // What an earlier run that was killed left behind says nothing about this one.
        let _ = std::fs::remove_file(layout.run_file());
        let guard = tether_telemetry::init(&report::quiet(telemetry.clone(), logging))?;
        roles::warn_of_unread_variables();

        let plan = worker_files::prepare(&self, &layout, telemetry)?;
        report::prepared(&layout, &plan);
        let core = tokio::select! {
            core = core::Core::start(&plan) => core?,
            signal = signals.next() => anyhow::bail!("{signal} while starting"),
        };
        report::core_started(&core);
        let workers = workers::Workers::start(&plan.write_workers(&core)?, core.view()).await?;
        let outcome = tokio::select! {
            outcome = self.serve(&layout, &plan, &core, &workers, begin) => outcome,
            signal = signals.next() => {
                report::draining(signal);
                Ok(())
            }
        };
        let drained = signals.drain("stopping", core.drain(&workers)).await;
        workers.kill().await;
        let _ = std::fs::remove_file(layout.run_file());
        drained.end(guard);
        outcome
    }

    /// Gets ready, says so, and keeps `run.json` true for ever.
    async fn serve(
        &self,
        layout: &layout::Layout,
        plan: &worker_files::Plan,
        core: &core::Core,
        workers: &workers::Workers,
        begin: Instant,
    ) -> anyhow::Result<()> {
        ready::all_routable(plan, core).await?;
        let first = ready::first_prompt(plan, core, begin).await?;
        let mut pids = workers.pids();
        let run = report::run_file(layout, plan, core, &first, &pids.borrow_and_update());
        // Who starts a mesh finds it by this file: without it there is none.
        report::write(layout, &run)?;
        report::ready(self.json, &run, &first)?;
        report::keep(layout, run, pids).await;
        std::future::pending().await
    }
}
