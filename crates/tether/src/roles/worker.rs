//! `tether worker`: serves models. Also what `tether up` starts as its children.

use super::CommonArgs;
use crate::commands;
use crate::config;
use crate::logging::LoggingArgs;
use crate::signals::Signals;
use anyhow::Context;
use clap::Args;
use rustix::process::Signal;
use serde_json::json;
use std::io::Read;
use std::time::Duration;
use tether_telemetry::metrics::{NetMetrics, Registry, WorkerMetrics};
use tether_wire::Role;
use tether_worker::EngineCommand;
use tracing::{info, warn};

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether worker --config worker.toml")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Die with the parent, whose end of our standard input must stay open
    #[arg(long, hide = true)]
    supervised: bool,
}

impl WorkerArgs {
    pub(crate) fn run(self, logging: &LoggingArgs) -> anyhow::Result<()> {
        if self.supervised {
            die_with_parent().context("cannot tie this process to its parent")?;
        }
        let checked = config::worker(&self.common.config)?;
        let config::WorkerFile {
            node,
            telemetry,
            worker: section,
        } = checked.file;
        let id = checked.identity.key.id();
        let drain_timeout = Duration::from_millis(section.drain_timeout_ms);
        let engine = EngineCommand {
            program: std::env::current_exe().context("cannot find this program's own file")?,
            args: vec!["engine".into()],
        };
        commands::runtime()?.block_on(async {
            let guard = super::telemetry(telemetry, logging, &id.to_hex())?;
            let mut signals = Signals::listen()?;
            crate::files::private_dir(&node.data_dir)
                .with_context(|| format!("cannot use node.data_dir {}", node.data_dir.display()))?;
            let registry = Registry::new();
            let node_config = node.node_config(
                &checked.identity,
                Role::Worker,
                NetMetrics::register(&registry),
            );
            let metrics = WorkerMetrics::register(&registry);
            let worker =
                tether_worker::start(section, &node.data_dir, node_config, engine, metrics).await?;
            info!(%id, "worker runs");
            let ready = json!({"event": "ready", "id": id, "pid": std::process::id()});
            super::announce_ready(self.common.json, &ready)?;
            let signal = signals.next().await;
            let drain = async {
                if !worker.drain(drain_timeout).await {
                    warn!("stopped before every request had ended: they are tried elsewhere");
                }
            };
            signals.drain(signal, drain).await;
            guard.shutdown();
            Ok(())
        })
    }
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
