//! A relay: the way between two nodes that cannot reach each other directly. (NET-4, NET-5) [T-REL-1] to [T-REL-3]
//!
//! It is a part of a stable entry point, so it runs in the process of the bootstrap nodes. What goes
//! through it are datagrams of links, which stay encrypted from node to node: a relay sees who
//! speaks with whom, when and how much, and can drop it, and nothing else. So it needs no TLS of its
//! own; one in front of it (`https://`) hides from the network on the way who speaks with whom.
//!
//! Bounds, since everybody reaches it: connections that have shown nothing yet are held to a number
//! in all and for each block of addresses, and to a time; clients have proved their key, and shown a
//! grant of the mesh where it is not open, and are held to a number in all and for each key; each
//! client's datagrams are held to a rate.

mod members;

use crate::config::LinkLimits;
use crate::error::NetError;
use crate::gate::Gate;
use hyper::{HeaderMap, Method};
use iroh_relay::KeyCache;
use iroh_relay::http::RELAY_PROBE_PATH;
use iroh_relay::server::http_server::{BytesBody, Handlers, RelayService};
use iroh_relay::server::{ClientRateLimit, Metrics};
use members::Members;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::grant::Mesh;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a process that runs a relay adds to its filter of log lines: what strangers do to a relay is
/// told at `debug` by this module, not as an error each time.
pub const LOG_FILTER: &str = "iroh_relay::server=off";
/// Connections that have not yet proved a key, in all.
const MAX_ARRIVING: usize = 512;
/// The same from one block of addresses.
const MAX_ARRIVING_PER_BLOCK: usize = 64;
/// How long one may take to prove its key.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the system has no room for one more connection.
const FULL_PAUSE: Duration = Duration::from_millis(100);
/// Longest time to tell clients that it stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a relay is told when it starts.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// TCP address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The mesh whose members may use it. In an open mesh everybody may.
    pub mesh: Mesh,
    /// Clients at once.
    pub max_clients: usize,
    /// Bytes in a second that it takes from one client.
    pub client_bytes_per_second: NonZeroU32,
}

/// A running relay. It runs until [`Relay::shutdown`] or the end of the process.
pub struct Relay {
    address: SocketAddr,
    members: Arc<Members>,
    service: RelayService,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Runs a relay.
///
/// # Errors
/// When its address cannot be bound.
pub async fn run(config: RelayConfig) -> Result<Relay, NetError> {
    let refused = |error: std::io::Error| NetError::Listen {
        address: config.listen,
        why: error.to_string(),
    };
    let listener = TcpListener::bind(config.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let members = Arc::new(Members::new(config.mesh, config.max_clients));
    let mut limit = ClientRateLimit::new(config.client_bytes_per_second);
    // A second's worth at once: what a node says in a while comes in bursts.
    limit.max_burst_bytes = Some(config.client_bytes_per_second);
    let service = RelayService::new(
        handlers(),
        HeaderMap::new(),
        Some(limit),
        KeyCache::new(config.max_clients),
        members.clone(),
        Arc::new(Metrics::default()),
    );
    let relay = Relay {
        address,
        members,
        service,
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let accept = accept(listener, relay.service.clone(), relay.tasks.clone());
    relay
        .tasks
        .spawn(relay.stop.clone().run_until_cancelled_owned(accept));
    Ok(relay)
}

impl Relay {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Clients that are connected now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.members.count()
    }

    /// Closes all connections.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let over = async {
            self.service.shutdown().await;
            self.tasks.close();
            self.tasks.wait().await;
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, over).await.is_err() {
            tracing::debug!("some clients of the relay did not go in time");
        }
    }
}

/// What a relay answers besides: nodes measure by it which relay is near.
fn handlers() -> Handlers {
    let mut handlers = Handlers::default();
    let nothing = |_, response: hyper::http::response::Builder| {
        let body: BytesBody = Box::<String>::default();
        Ok(response.body(body)?)
    };
    handlers.insert((Method::GET, RELAY_PROBE_PATH), Box::new(nothing));
    handlers.insert((Method::GET, "/healthz"), Box::new(nothing));
    handlers
}

async fn accept(listener: TcpListener, service: RelayService, tasks: TaskTracker) {
    let gate = Gate::new(Arc::new(LinkLimits {
        max_links: MAX_ARRIVING,
        max_greeting: MAX_ARRIVING,
        max_per_address_block: MAX_ARRIVING_PER_BLOCK,
        ..LinkLimits::default()
    }));
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(arriving) => arriving,
            Err(error) => {
                tracing::debug!(%error, "the relay cannot take a connection");
                tokio::time::sleep(FULL_PAUSE).await;
                continue;
            }
        };
        match gate.enter(Some(from.ip())) {
            Ok(place) => {
                let service = service.clone();
                // A small datagram must not wait for the next one.
                let _ = stream.set_nodelay(true);
                tasks.spawn(async move {
                    // It ends when the connection is a client's, which has a place of its own.
                    service
                        .handle_connection(stream, None, ARRIVAL_TIMEOUT)
                        .await;
                    drop(place);
                });
            }
            Err(full) => tracing::debug!(%from, %full, "the relay turns a connection away"),
        }
    }
}
