//! What runs in the process of `up`: bootstrap nodes, orchestrator, gateway. Each is a node of its
//! own with its own key; they meet only on the wire.

use super::identities::NodeFiles;
use super::worker_files::Plan;
use super::workers::{View, Workers};
use crate::config::LOCAL_BOOTSTRAP_NODES;
use crate::config::node::loopback;
use anyhow::Context;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tether_gateway::{Gateway, GatewayConfig};
use tether_net::bootstrap::BootstrapNodes;
use tether_orchestrator::{Orchestrator, OrchestratorConfig};
use tether_telemetry::metrics::{GatewayMetrics, OrchestratorMetrics, Registry};
use tether_wire::Role;
use tracing::warn;

/// The roles of this process.
pub(crate) struct Core {
    bootstrap: BootstrapNodes,
    pub(crate) orchestrator: Orchestrator,
    pub(crate) gateway: Gateway,
}

impl Core {
    /// Starts them, in the order in which they need each other.
    pub(crate) async fn start(plan: &Plan) -> anyhow::Result<Self> {
        // Each role its own, as in processes of their own: links and lookups of one are not
        // counted with the other's.
        let (orchestrator_registry, gateway_registry) = (Registry::new(), Registry::new());
        let bootstrap =
            tether_net::bootstrap::run(vec![loopback(); LOCAL_BOOTSTRAP_NODES], Vec::new())
                .await
                .context("cannot start the bootstrap nodes")?;
        let node = |files: &NodeFiles, role, data_dir: PathBuf, registry| {
            let section = plan.node_section(files, data_dir, bootstrap.addresses().to_vec());
            // It has no list of keys to follow.
            let (config, _) = section.member_config(&files.identity, role, registry)?;
            anyhow::Ok(config)
        };
        let orchestrator = tether_orchestrator::start(
            OrchestratorConfig {
                tenants: plan.tenants.clone(),
                admin: plan.admin,
                releases: plan.released.clone(),
                trusted_publishers: plan.publishers.clone(),
                ..OrchestratorConfig::default()
            },
            &plan.orchestrator_dir,
            node(
                &plan.orchestrator,
                Role::Orchestrator,
                plan.orchestrator_dir.clone(),
                &orchestrator_registry,
            )?,
            OrchestratorMetrics::register(&orchestrator_registry),
            orchestrator_registry.clone(),
        )
        .await
        .context("cannot start the orchestrator")?;
        let gateway = tether_gateway::start(
            GatewayConfig {
                listen: plan.gateway_listen,
                ..GatewayConfig::default()
            },
            None,
            node(
                &plan.gateway,
                Role::Gateway,
                plan.gateway_dir.clone(),
                &gateway_registry,
            )?,
            GatewayMetrics::register(&gateway_registry),
            gateway_registry.clone(),
        )
        .await
        .context("cannot start the gateway")?;
        Ok(Self {
            bootstrap,
            orchestrator,
            gateway,
        })
    }

    pub(crate) fn bootstrap_addresses(&self) -> Vec<SocketAddr> {
        self.bootstrap.addresses().to_vec()
    }

    pub(crate) fn gateway_url(&self) -> String {
        format!("http://{}", self.gateway.addr())
    }

    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.orchestrator.admin_addr())
    }

    /// What those who watch the workers' processes and the orchestrator know of each other.
    pub(crate) fn view(&self) -> View {
        let node = self.orchestrator.node().clone();
        let fleet = self.orchestrator.fleet().clone();
        View {
            // It would notice by itself when the link has been silent for two seconds: until then
            // `tether fleet` would show the dead.
            died: Arc::new(move |worker| {
                if let Some(link) = node.linked(&worker) {
                    link.close("its process ended");
                }
            }),
            epoch: Arc::new(move |worker| Some(fleet.snapshot().worker(&worker)?.epoch())),
        }
    }

    /// Stops everything and the workers, each before those it needs: from the gateway's end on no
    /// new request comes in.
    pub(crate) async fn drain(self, workers: &Workers) {
        self.gateway.shutdown().await;
        workers.drain().await;
        if let Err(error) = self.orchestrator.shutdown().await {
            warn!("the orchestrator stopped, but not well: {error}");
        }
        self.bootstrap.shutdown().await;
    }
}
