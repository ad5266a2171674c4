//! `[relay]`: the relay of a bootstrap process. (NET-4, NET-5)

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use tether_net::relay::RelayConfig;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{MeshId, NodeId};

/// Most clients of one relay, each of which is a connection of this process.
const MAX_CLIENTS: usize = 65_536;
/// A client that may say less can hold no link.
const MIN_CLIENT_BYTES_PER_SECOND: u32 = 16_384;

/// `[relay]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RelaySection {
    /// TCP address; nodes are told of it by `relays` of their `[node]`.
    pub(crate) listen: SocketAddr,
    /// The mesh whose nodes may use it: those that show a grant of it.
    pub(crate) mesh: MeshId,
    /// The operator's second key, as in `[node]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recovery: Option<NodeId>,
    /// `open` lets everybody use it, as an open mesh needs, whose workers have no grant.
    #[serde(default)]
    pub(crate) access: Access,
    /// Clients at once.
    #[serde(default = "max_clients")]
    pub(crate) max_clients: usize,
    /// Bytes in a second that it takes from one client. Answers need a few thousand.
    #[serde(default = "client_bytes_per_second")]
    pub(crate) client_bytes_per_second: NonZeroU32,
}

fn max_clients() -> usize {
    1_024
}

fn client_bytes_per_second() -> NonZeroU32 {
    const { NonZeroU32::new(4 * 1024 * 1024).expect("not zero") }
}

impl RelaySection {
    /// The first setting that cannot be, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=MAX_CLIENTS).contains(&self.max_clients) {
            let why = format!("must be between 1 and {MAX_CLIENTS}");
            return Err(("relay.max_clients", why));
        }
        if self.client_bytes_per_second.get() < MIN_CLIENT_BYTES_PER_SECOND {
            let why = format!("must be at least {MIN_CLIENT_BYTES_PER_SECOND}");
            return Err(("relay.client_bytes_per_second", why));
        }
        Ok(())
    }

    /// What the relay is started with.
    pub(crate) fn relay_config(&self) -> RelayConfig {
        RelayConfig {
            listen: self.listen,
            mesh: Mesh {
                id: self.mesh,
                recovery: self.recovery,
                access: self.access,
            },
            max_clients: self.max_clients,
            client_bytes_per_second: self.client_bytes_per_second,
        }
    }
}
