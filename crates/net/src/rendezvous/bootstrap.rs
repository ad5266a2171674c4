//! HyperDHT nodes that serve others: what a mesh is joined through. (NET-2, NET-5)
//!
//! A network of its own wants about ten of them: below that, both Node's implementation and ours
//! find unreliably, since a record lives on the nodes nearest to its key and there must be some.

use super::client::{config, require_ipv4, spawn};
use crate::error::NetError;
use peeroxide_dht::hyperdht::HyperDhtHandle;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
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
/// A DHT node's id is made from the address at which others see it; one that is wrong about it
/// stores nothing. So a node of a new network that is told to listen everywhere listens on this
/// machine's own address; one that joins others learns from them how it is seen.
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
    // A node also speaks from a port that the system chooses, which must not be one that a later
    // node was promised: those are held until it is their turn.
    let held = listen.iter().map(|&address| hold(address));
    let held = held.collect::<Result<Vec<_>, _>>()?;
    for (wanted, held) in listen.into_iter().zip(held) {
        let everywhere = wanted.ip().is_unspecified();
        let learns = everywhere && !join.is_empty();
        let seen_at = if everywhere { own_ip() } else { wanted.ip() };
        let address = if learns {
            wanted
        } else {
            SocketAddr::new(seen_at, wanted.port())
        };
        let mut known = join.clone();
        if !learns {
            // Those would see it from this machine, and tell it the wrong address.
            known.extend(nodes.addresses.iter().take(SEEDS));
        }
        let mut config = config(address, &known);
        config.dht.ephemeral = Some(false);
        config.dht.firewalled = false;
        drop(held);
        let handle = spawn(address, config).await?;
        let port = handle
            .local_port()
            .await
            .map_err(|error| NetError::Listen {
                address,
                why: error.to_string(),
            })?;
        nodes.addresses.push(SocketAddr::new(seen_at, port));
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

/// Takes a port that was asked for, so that nobody else gets it; none for a free one.
fn hold(address: SocketAddr) -> Result<Option<UdpSocket>, NetError> {
    if address.port() == 0 {
        return Ok(None);
    }
    match UdpSocket::bind(address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => Err(NetError::Listen {
            address,
            why: error.to_string(),
        }),
    }
}

/// The address of this machine from which it would reach the internet; loopback where it has none.
/// Nothing is sent.
fn own_ip() -> IpAddr {
    // An address for documentation (RFC 5737): only the route to it is asked for.
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(203, 0, 113, 1), 9))?;
        socket.local_addr()
    };
    match ask() {
        Ok(address) if !address.ip().is_unspecified() => address.ip(),
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}
