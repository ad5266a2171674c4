//! `tether gateway`: the tenants' HTTP edge.

use super::CommonArgs;
use crate::commands;
use crate::config;
use crate::logging::LoggingArgs;
use crate::signals::Signals;
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use tether_telemetry::metrics::{GatewayMetrics, Registry};
use tether_wire::Role;
use tracing::{info, warn};

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether gateway --config gateway.toml
  tether gateway --config gateway.toml --listen 127.0.0.1:0 --json")]
pub(crate) struct GatewayArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// HTTP address, instead of that in the file
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

impl GatewayArgs {
    pub(crate) fn run(self, logging: &LoggingArgs) -> anyhow::Result<()> {
        let mut checked = config::gateway(&self.common.config)?;
        if let Some(listen) = self.listen {
            checked.file.gateway.listen = listen;
        }
        let config::GatewayFile {
            mut node,
            telemetry,
            gateway: section,
        } = checked.file;
        let id = checked.identity.key.id();
        commands::serve(async {
            let guard = super::telemetry(telemetry, logging, &id.to_hex())?;
            let mut signals = Signals::listen()?;
            if let Err(error) = crate::files::private_dir(&node.data_dir) {
                let folder = node.data_dir.display();
                warn!(%folder, error = format!("{error:#}"), "orchestrators and revocations are not remembered");
                node.data_dir = PathBuf::new();
            }
            let registry = Registry::new();
            let (node_config, _following) =
                node.member_config(&checked.identity, Role::Gateway, &registry)?;
            let metrics = GatewayMetrics::register(&registry);
            let data_dir = Some(node.data_dir.as_path()).filter(|it| !it.as_os_str().is_empty());
            let gateway =
                tether_gateway::start(section, data_dir, node_config, metrics, registry).await?;
            let url = format!("http://{}", gateway.addr());
            info!(%id, url, "gateway listens");
            let ready =
                json!({"event": "ready", "id": id, "gateway": url, "pid": std::process::id()});
            super::announce_ready(self.common.json, &ready)?;
            let signal = signals.next().await;
            signals.drain(signal, gateway.shutdown()).await.end(guard);
            Ok(())
        })
    }
}
