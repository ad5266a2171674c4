//! `tether bootstrap`: DHT nodes, where the other nodes of a mesh find each other, and a relay for
//! those that cannot reach each other directly. (NET-2, NET-4, NET-5)

use crate::commands;
use crate::config;
use crate::exit::Usage;
use crate::logging::LoggingArgs;
use crate::signals::Signals;
use clap::Args;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use tether_net::relay;
use tracing::info;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether bootstrap --config bootstrap.toml
  tether bootstrap --listen 0.0.0.0:49737 --bootstrap 192.0.2.8:49737

A mesh wants at least ten DHT nodes in all before lookups are reliable; one process can run many.
With a section [relay] in the file it also runs a relay for nodes that cannot reach each other.")]
pub(crate) struct BootstrapArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// UDP address of a DHT node; may be given several times, instead of those in the file
    #[arg(long, value_name = "ADDR")]
    listen: Vec<SocketAddr>,
    /// A DHT node elsewhere to join; may be given several times, added to those in the file
    #[arg(long, value_name = "ADDR")]
    bootstrap: Vec<SocketAddr>,
    /// When ready, print one JSON object with the addresses on stdout
    #[arg(long)]
    json: bool,
}

impl BootstrapArgs {
    pub(crate) fn run(self, logging: &LoggingArgs) -> anyhow::Result<()> {
        let mut file = match &self.config {
            Some(path) => config::bootstrap(path)?,
            None if self.listen.is_empty() => return Err(Usage("give --config or --listen").into()),
            None => config::bootstrap_from_environment()?,
        };
        if !self.listen.is_empty() {
            file.bootstrap.listen.clone_from(&self.listen);
        }
        file.bootstrap.bootstrap.extend(&self.bootstrap);
        if file.relay.is_some() {
            let filter = &mut file.telemetry.log_filter;
            *filter = format!("{filter},{}", relay::LOG_FILTER);
        }
        commands::serve(async {
            let guard = super::telemetry(file.telemetry, logging, "bootstrap")?;
            let mut signals = Signals::listen()?;
            let nodes =
                tether_net::bootstrap::run(file.bootstrap.listen, file.bootstrap.bootstrap).await?;
            let addresses = nodes.addresses().to_vec();
            info!(?addresses, "bootstrap nodes answer");
            let mut ready =
                json!({"event": "ready", "bootstrap": addresses, "pid": std::process::id()});
            let relay = match &file.relay {
                Some(section) => Some(relay::run(section.relay_config()).await?),
                None => None,
            };
            if let Some(relay) = &relay {
                let address = relay.address();
                info!(%address, "relay listens");
                ready["relay"] = json!(format!("http://{address}/"));
            }
            super::announce_ready(self.json, &ready)?;
            let signal = signals.next().await;
            let over = async {
                if let Some(relay) = relay {
                    relay.shutdown().await;
                }
                nodes.shutdown().await;
            };
            signals.drain(signal, over).await.end(guard);
            Ok(())
        })
    }
}
