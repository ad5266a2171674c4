//! `tether orchestrator`: keeps the fleet, places requests, owns jobs.

use super::CommonArgs;
use crate::commands;
use crate::config;
use crate::logging::LoggingArgs;
use crate::signals::Signals;
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use tether_telemetry::metrics::{OrchestratorMetrics, Registry};
use tether_wire::Role;
use tracing::{error, info};

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether orchestrator --config orchestrator.toml
  tether orchestrator --config orchestrator.toml --admin 127.0.0.1:0 --json")]
pub(crate) struct OrchestratorArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// HTTP address of the admin endpoint, instead of that in the file
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
}

impl OrchestratorArgs {
    pub(crate) fn run(self, logging: &LoggingArgs) -> anyhow::Result<()> {
        let mut checked = config::orchestrator(&self.common.config)?;
        if let Some(admin) = self.admin {
            checked.file.orchestrator.admin = admin;
        }
        let config::OrchestratorFile {
            node,
            telemetry,
            orchestrator: section,
        } = checked.file;
        let id = checked.identity.key.id();
        commands::serve(async {
            let guard = super::telemetry(telemetry, logging, &id.to_hex())?;
            let mut signals = Signals::listen()?;
            node.open_data_dir()?;
            let registry = Registry::new();
            let (node_config, _following) =
                node.member_config(&checked.identity, Role::Orchestrator, &registry)?;
            let metrics = OrchestratorMetrics::register(&registry);
            let orchestrator =
                tether_orchestrator::start(section, &node.data_dir, node_config, metrics, registry)
                    .await?;
            let admin = format!("http://{}", orchestrator.admin_addr());
            info!(%id, admin, "orchestrator is ready");
            let ready =
                json!({"event": "ready", "id": id, "admin": admin, "pid": std::process::id()});
            super::announce_ready(self.common.json, &ready)?;
            let signal = signals.next().await;
            let drain = async {
                if let Err(error) = orchestrator.shutdown().await {
                    error!("stopped, but not well: {error}");
                }
            };
            signals.drain(signal, drain).await.end(guard);
            Ok(())
        })
    }
}
