//! A node's links to orchestrators: found, kept, and replaced when they are lost. (NET-7)
//!
//! # Layout
//!
//! * [`tether_presence::uplinks`] – whom to link with and when to dial: pure, also in the simulator
//! * `keeper` – looks up, dials, watches
//! * `memory` – those that were linked with, kept on disk for the next start
//!
//! Three sources stand beside each other: orchestrators that are configured, those that were linked
//! with before, and those found on the region's control topic. Whoever uses the links sees only the
//! ones that are up and heard.

mod keeper;
pub(crate) mod memory;

use crate::link::Link;
use crate::node::Node;
use keeper::Keeper;
use memory::Memory;
use std::path::PathBuf;
use std::time::Duration;
use tether_presence::plan;
use tether_wire::NodeId;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Where a node's orchestrators are known from, beside the control topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Keys of orchestrators that are always tried; [`MAX_CONFIGURED`] at most. None are needed:
    /// they are found. (NET-2)
    pub orchestrators: Vec<NodeId>,
    /// Folder in which those that were linked with are remembered; nothing remembers none.
    pub memory: Option<PathBuf>,
}

/// Most orchestrators that may be configured.
pub const MAX_CONFIGURED: usize = 64;

/// How long to wait before something is tried again on a link after so many failures in a row: it
/// grows, with jitter, and never without end.
#[must_use]
pub fn redial_pause(failures: u32) -> Duration {
    Duration::from_millis(plan::redial_ms(failures, rand::random()))
}

/// The links of a node to orchestrators. They are looked after until this is dropped.
#[derive(Debug)]
pub struct Uplinks {
    links: watch::Receiver<Vec<Link>>,
    _keeper: AbortOnDropHandle<()>,
}

impl Uplinks {
    /// Keeps links with up to `k` orchestrators of the node's region.
    #[must_use]
    pub fn start(node: &Node, k: usize) -> Self {
        let config = &node.config().uplinks;
        let memory = Memory::new(config.memory.clone());
        let (sender, links) = watch::channel(Vec::new());
        let keeper = Keeper::new(
            node.clone(),
            k,
            config.orchestrators.clone(),
            memory,
            sender,
        );
        Self {
            links,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
        }
    }

    /// Those that can be used now, the best for this node first.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        let mut links = self.links.borrow().clone();
        links.retain(|link| link.is_up() && !link.is_quiet());
        links
    }

    /// The links as they come and go.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Vec<Link>> {
        self.links.clone()
    }
}
