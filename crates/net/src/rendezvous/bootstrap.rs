//! HyperDHT nodes that serve others: what a mesh is joined through. (NET-2, NET-5)
//!
//! A network of its own wants about ten of them: below that, both Node's implementation and ours
//! find unreliably, since a record lives on the nodes nearest to its key and there must be some.

use super::client::{config, require_ipv4, spawn};
use crate::error::NetError;
use peeroxide_dht::hyperdht::HyperDhtHandle;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Longest time for a node to find the others.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How many of a new network's nodes the others start from.
const SEEDS: usize = 3;

/// Running DHT nodes. They run until [`BootstrapNodes::shutdown`] or the end of the process.
pub struct BootstrapNodes {
    handles: Vec<HyperDhtHandle>,
    addresses: Vec<SocketAddr>,
}

impl BootstrapNodes {
    /// Their addresses, in the order of `listen`.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops them.
    pub async fn shutdown(self) {
        for handle in self.handles {
            // A node that is already gone is stopped.
            let _ = handle.destroy().await;
        }
    }
}

/// Runs one DHT node per address of `listen` (port 0 takes a free one). Without `join` they are a
/// network of their own, in which the first are the bootstrap nodes of the others; with it they
/// join the network of those nodes. They are reachable by definition, so they never ask whether
/// they are behind a NAT.
///
/// # Errors
/// When an address cannot be bound.
pub async fn run(
    listen: Vec<SocketAddr>,
    join: Vec<SocketAddr>,
) -> Result<BootstrapNodes, NetError> {
    require_ipv4(&listen)?;
    require_ipv4(&join)?;
    let mut nodes = BootstrapNodes {
        handles: Vec::with_capacity(listen.len()),
        addresses: Vec::with_capacity(listen.len()),
    };
    for address in listen {
        let mut known = join.clone();
        known.extend(nodes.addresses.iter().take(SEEDS));
        let mut config = config(address, &known);
        config.dht.ephemeral = Some(false);
        config.dht.firewalled = false;
        let handle = spawn(address, config).await?;
        let port = handle
            .local_port()
            .await
            .map_err(|error| NetError::Listen {
                address,
                why: error.to_string(),
            })?;
        // Others on this machine reach a node that listens everywhere through loopback.
        let ip = if address.ip().is_unspecified() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            address.ip()
        };
        nodes.addresses.push(SocketAddr::new(ip, port));
        nodes.handles.push(handle);
    }
    for handle in &nodes.handles {
        if !matches!(
            tokio::time::timeout(JOIN_TIMEOUT, handle.bootstrapped()).await,
            Ok(Ok(()))
        ) {
            tracing::warn!("a DHT node has not found the others yet; it goes on trying");
        }
    }
    Ok(nodes)
}
