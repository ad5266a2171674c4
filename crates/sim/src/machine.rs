//! What is simulated: the state machine of an orchestrator, and what it says and hears.
//!
//! The simulator drives anything that is a [`Machine`]; [`crate::tether`] makes the one that
//! orchestrators run of it. Another one, which is wrong on purpose, shows that the simulator sees.

use crate::verifier::Verifier;
use std::sync::Arc;
use tether_presence::Now;
use tether_wire::spread::Batch;
use tether_wire::{Beat, Card, MeshId, NodeId, Verified};

/// What an orchestrator hears.
#[derive(Debug)]
pub enum Input {
    /// A link with another orchestrator is up.
    PeerUp(NodeId),
    /// It is down.
    PeerDown(NodeId),
    /// What a peer sent.
    Batch {
        /// Which peer.
        from: NodeId,
        /// As it came.
        batch: Box<Batch>,
    },
    /// What a node pushed over its own link, or the orchestrator's own beat.
    Pushed {
        /// The beat.
        beat: Arc<Verified<Beat>>,
        /// The card, where it came along.
        card: Option<Arc<Verified<Card>>>,
    },
    /// The link of a node broke.
    LinkLost(NodeId),
    /// The link of a node was closed in good order.
    LinkClosed(NodeId),
    /// The link of a node, or of a peer, is silent where it should speak.
    LinkQuiet(NodeId),
    /// It speaks again.
    LinkLively(NodeId),
    /// The operator revokes a key, here.
    Revoke(NodeId),
    /// Time has passed.
    Tick,
}

/// How a node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It said goodbye.
    Departed,
    /// It was silent.
    Expired,
    /// Its key was revoked, or its grant ended.
    Refused,
}

/// What an orchestrator says.
#[derive(Debug)]
pub enum Output {
    /// To a peer.
    Send {
        /// Which peer.
        to: NodeId,
        /// What it is sent.
        batch: Box<Batch>,
    },
    /// The node is live in its view; may be said at each beat.
    Live {
        /// Which one.
        node: NodeId,
        /// Whether its card is there, so that it has a role.
        carded: bool,
    },
    /// The card of a live node has come.
    Carded(NodeId),
    /// The node is to be chosen last.
    Suspect(NodeId),
    /// It is well again.
    Well(NodeId),
    /// The node is no longer live in its view.
    Gone(NodeId, How),
    /// The card of the node's last beat is missing.
    WantCard(NodeId),
    /// Two hosts run under the node's key.
    Clone(NodeId),
    /// Something was dropped, for this reason.
    Rejected(&'static str),
}

/// The state machine of an orchestrator.
pub trait Machine {
    /// An orchestrator starts.
    fn start(own: NodeId, mesh: MeshId, now: Now, seed: u64) -> Self;
    /// Something happens to it. What is not verified it has verified by the `verifier`.
    fn handle(&mut self, input: Input, now: Now, verifier: &Verifier, outputs: &mut Vec<Output>);
    /// Whether the node is live in its view and has a card; must agree with what was said.
    fn shows(&self, node: &NodeId) -> bool;
}
