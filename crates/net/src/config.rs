//! What a node is told when it starts, and every bound of its links.

use crate::members::Members;
use crate::uplinks::UplinkConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::NetMetrics;
use tether_wire::{NodeKey, Region, Role};

/// A node: who it is, whom it links with, where it listens.
#[derive(Clone)]
pub struct NodeConfig {
    /// Its key: identity on the DHT, of the transport and of signatures. (NET-1)
    pub key: NodeKey,
    /// The mesh it belongs to, and who else does. (NET-8)
    pub members: Members,
    /// The role in which it links.
    pub role: Role,
    /// Where it stands.
    pub region: Region,
    /// Its sealed grant; only workers of an open mesh go without.
    pub grant: Option<Vec<u8>>,
    /// The sealed invite of a worker that has no grant yet: with it the node can only join.
    pub invite: Option<Vec<u8>>,
    /// Roles that it links with.
    pub accept: Vec<Role>,
    /// UDP address of the QUIC endpoint; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Addresses to publish; when empty, those that are bound.
    pub advertise: Vec<SocketAddr>,
    /// UDP address of the DHT client; port 0 takes a free one.
    pub dht_listen: SocketAddr,
    /// HyperDHT bootstrap nodes. (NET-2)
    pub bootstrap: Vec<SocketAddr>,
    /// URLs of the mesh's relays, the same on all its nodes; see [`crate::relay`]. (NET-4)
    pub relays: Vec<String>,
    /// Where its orchestrators are known from, beside the control topic.
    pub uplinks: UplinkConfig,
    /// Bounds of links.
    pub limits: LinkLimits,
    /// What is counted.
    pub metrics: Arc<NetMetrics>,
}

/// Bounds of links and calls. Each has its reason; none is without a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkLimits {
    /// Links in total. A link costs about 94 kB (measured).
    pub max_links: usize,
    /// Handshakes and greetings under way at once: what strangers can hold before they are known.
    pub max_greeting: usize,
    /// Links and handshakes from one block of addresses (IPv4 /24, IPv6 /56). Loopback is exempt:
    /// a whole mesh may live on one machine.
    pub max_per_address_block: usize,
    /// Calls that a peer may have open at once on one link.
    pub max_calls_per_link: u32,
    /// Time for a dial, from resolving to the end of the greeting.
    pub dial_timeout: Duration,
    /// Time for a greeting, after which a silent peer is dropped. [T-LNK-2]
    pub greeting_timeout: Duration,
    /// Time for the first frame of a call after its stream was opened.
    pub head_timeout: Duration,
    /// Silence after which a link is quiet: nothing new is asked of its peer, which may be dead, and
    /// what is open on it lives on. A peer that was killed is known after this time. [T-LNK-5]
    pub quiet_after: Duration,
    /// Silence after which a link is down, and with it everything on it: as long as a node may be
    /// silent before it is gone, so that one that is starved of CPU loses nothing before.
    pub idle_timeout: Duration,
    /// Interval of keep-alives on a silent link; a fraction of `quiet_after`, so that two may be lost.
    pub keep_alive: Duration,
    /// Bytes in flight towards us on one stream.
    pub stream_window_bytes: u32,
    /// Bytes in flight towards us on one link; the transport's default is no bound at all.
    pub link_window_bytes: u32,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            max_links: 4_096,
            max_greeting: 256,
            max_per_address_block: 64,
            max_calls_per_link: 1_024,
            dial_timeout: Duration::from_secs(10),
            greeting_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(5),
            quiet_after: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_millis(500),
            stream_window_bytes: 1_250_000,
            link_window_bytes: 16 * 1024 * 1024,
        }
    }
}
