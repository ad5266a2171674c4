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
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tether_presence::plan;
use tether_wire::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
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

/// Orchestrators with which a node was linked in earlier runs, by what its folder keeps of them: each
/// has proved to be one. The last seen comes first.
#[must_use]
pub fn remembered_orchestrators(folder: &Path) -> Vec<NodeId> {
    let entries = Memory::new(Some(folder.to_owned())).load();
    entries.into_iter().map(|entry| entry.key).collect()
}

/// Looks at the orchestrators that wait at most; more wait to be asked.
const MAX_ASKED: usize = 4;

/// How long to wait before something is tried again on a link after so many failures in a row: it
/// grows, with jitter, and never without end.
#[must_use]
pub fn redial_pause(failures: u32) -> Duration {
    Duration::from_millis(plan::redial_ms(failures, rand::random()))
}

/// Why there is no link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialFailure {
    /// In words.
    pub why: String,
    /// The code of a refusal; nothing where it was not a question of who may.
    pub refused: Option<&'static str>,
}

/// An orchestrator that a node knows of, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkView {
    /// Which one.
    pub id: NodeId,
    /// `configured`, `remembered`, or `found` on the control topic.
    pub source: &'static str,
    /// `in-use`, `spare`, `quiet`, `dialling`, or `not-linked`.
    pub state: &'static str,
    /// Failed dials since the last link.
    pub failures: u32,
    /// Why the last of them failed, and whether by a refusal of either side.
    pub last_failure: Option<DialFailure>,
    /// Look-ups in a row that did not give it.
    pub missed: u32,
    /// How long ago a link with it was seen; nothing is never in this run.
    pub linked_ago: Option<Duration>,
    /// How long until it is dialled, if it is to be.
    pub dial_in: Option<Duration>,
    /// Where its record said that it is.
    pub addresses: Vec<SocketAddr>,
}

/// Looks at the orchestrators that are known to [`Uplinks`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UplinkLook(mpsc::Sender<oneshot::Sender<Vec<UplinkView>>>);

impl UplinkLook {
    /// All that are known, the best for this node first: some hundreds at most. None once the
    /// links are looked after no more.
    pub async fn views(&self) -> Vec<UplinkView> {
        let (reply, views) = oneshot::channel();
        let _ = self.0.send(reply).await;
        views.await.unwrap_or_default()
    }
}

/// The links of a node to orchestrators. They are looked after until this is dropped.
#[derive(Debug)]
pub struct Uplinks {
    links: watch::Receiver<Vec<Link>>,
    views: UplinkLook,
    _keeper: AbortOnDropHandle<()>,
}

impl Uplinks {
    /// Keeps links with up to `k` orchestrators of the node's region.
    #[must_use]
    pub fn start(node: &Node, k: usize) -> Self {
        let config = &node.config().uplinks;
        let memory = Memory::new(config.memory.clone());
        let (sender, links) = watch::channel(Vec::new());
        let (views, asked) = mpsc::channel(MAX_ASKED);
        let keeper = Keeper::new(
            node.clone(),
            k,
            config.orchestrators.clone(),
            memory,
            sender,
        );
        Self {
            links,
            views: UplinkLook(views),
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run(asked))),
        }
    }

    /// Those that can be used now, the best for this node first.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        let mut links = self.links.borrow().clone();
        links.retain(|link| link.is_up() && !link.is_quiet());
        links
    }

    /// To look at all orchestrators that are known, for people.
    #[must_use]
    pub fn look(&self) -> UplinkLook {
        self.views.clone()
    }

    /// The links as they come and go.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Vec<Link>> {
        self.links.clone()
    }
}
