//! What goes wrong between nodes, in the words of this crate.

use std::net::SocketAddr;
use std::time::Duration;
use tether_wire::link::Refusal;
use tether_wire::{NodeId, Role};

/// A node, its rendezvous or its endpoint cannot work.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// An address that cannot be bound.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address as configured.
        address: SocketAddr,
        /// The system's words.
        why: String,
    },
    /// The configuration contradicts itself.
    #[error("the configuration of the node is wrong: {0}")]
    Config(String),
    /// The DHT did not do what was asked.
    #[error("the DHT cannot {what}: {why}")]
    Dht {
        /// What was asked.
        what: &'static str,
        /// Why it cannot.
        why: String,
    },
    /// No answer from a DHT node.
    #[error("no answer from {address} within {} ms", .timeout.as_millis())]
    NoAnswer {
        /// Who was asked.
        address: SocketAddr,
        /// How long we waited.
        timeout: Duration,
    },
    /// The node was shut down.
    #[error("the node is shut down")]
    Shutdown,
}

/// A link cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The key has no record on the DHT: it is not running, or not in this network.
    #[error("node {0} has no address on the DHT: it is not running, or uses other bootstrap nodes")]
    NotFound(NodeId),
    /// There is a record, but nobody answers at its addresses.
    #[error("node {peer} cannot be reached: {why}")]
    Unreachable {
        /// Who was dialled.
        peer: NodeId,
        /// The transport's words.
        why: String,
    },
    /// The other side speaks no version of the protocol that we speak.
    #[error("node {peer} does not speak tether/1: {why}")]
    Version {
        /// Who was dialled.
        peer: NodeId,
        /// The transport's words.
        why: String,
    },
    /// The other side refused us, for its own reason.
    #[error("the other side refused the link ({code}): {0}", code = .0.code.as_str())]
    Refused(Refusal),
    /// We refused the other side after it had answered our greeting.
    #[error("this node refuses the other side ({code}): {0}", code = .0.code.as_str())]
    Rejected(Refusal),
    /// The other side is admitted, but is not what the caller wants.
    #[error("node {peer} is a {found}, not a {expected}")]
    WrongRole {
        /// Who was dialled.
        peer: NodeId,
        /// What it should be.
        expected: Role,
        /// What it is.
        found: Role,
    },
    /// It took too long.
    #[error("node {peer} did not answer within {} ms", .timeout.as_millis())]
    Timeout {
        /// Who was dialled.
        peer: NodeId,
        /// How long we waited.
        timeout: Duration,
    },
    /// A node does not link to itself.
    #[error("a node does not link to itself")]
    Oneself,
    /// The node was shut down.
    #[error("the node is shut down")]
    Shutdown,
}
