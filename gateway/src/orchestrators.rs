//! Links to orchestrators: found on the region's control topic, kept, and chosen from.
//!
//! Reconnects back off with jitter and never stop for good. (NET-7)

mod way;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tether_net::{Link, Node, Uplinks};
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::NodeId;
use tokio::sync::watch;
pub(crate) use way::Way;

/// Orchestrators that a gateway keeps links with at most; a region has a handful, and a request
/// may go to any of them.
const MAX_LINKS: usize = 16;
/// Longest wait for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The orchestrators of the gateway's region.
pub(crate) struct Orchestrators {
    uplinks: Uplinks,
    changes: watch::Sender<()>,
    /// Requests of this gateway that each of them has.
    under_way: Mutex<HashMap<NodeId, usize>>,
    metrics: Arc<GatewayMetrics>,
}

/// A request that an orchestrator has, until this is dropped.
pub(crate) struct UnderWay {
    orchestrators: Arc<Orchestrators>,
    at: NodeId,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut under_way = self.orchestrators.under_way();
        if let Some(count) = under_way.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.at);
            }
        }
    }
}

impl Orchestrators {
    /// Looks for orchestrators and keeps links to them, as long as this lives.
    pub(crate) fn new(node: &Node, metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        Arc::new(Self {
            uplinks: Uplinks::start(node, MAX_LINKS),
            changes: watch::channel(()).0,
            under_way: Mutex::default(),
            metrics,
        })
    }

    /// Links that can be used. One that is quiet is not asked: its orchestrator may be dead.
    fn linked(&self) -> Vec<Link> {
        self.uplinks.links()
    }

    /// The links as they come and go, the best for this gateway first.
    pub(crate) fn links(&self) -> watch::Receiver<Vec<Link>> {
        self.uplinks.watch()
    }

    /// Any of them.
    pub(crate) fn any(&self) -> Option<Link> {
        self.linked().into_iter().next()
    }

    /// All of them, in the order in which a request asks them: by rendezvous hashing, so that a
    /// request which comes again, or a conversation that goes on, comes to the same one. [T-INF-13]
    pub(crate) fn ranked(&self, way: &Way) -> Vec<Link> {
        let mut links = self.linked();
        links.sort_by_cached_key(|link| way.rank(&link.peer().id));
        if way.is_shared() {
            let under_way = self.under_way();
            let count = |link: &Link| under_way.get(&link.peer().id).copied().unwrap_or(0);
            let most = way::most(links.iter().map(count).sum(), links.len());
            links.sort_by_key(|link| count(link) >= most);
        }
        links
    }

    /// Counts a request that goes to one of them.
    pub(crate) fn occupy(self: &Arc<Self>, at: NodeId) -> UnderWay {
        *self.under_way().entry(at).or_default() += 1;
        UnderWay {
            orchestrators: self.clone(),
            at,
        }
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn under_way(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        (self.under_way.lock()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that something changed: a link, the directory.
    pub(crate) fn notify(&self) {
        self.changes.send_replace(());
    }

    /// Sees changes from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Waits for a link where there is none; returns after a while in any case.
    pub(crate) async fn changed(&self) {
        let mut changes = self.watch();
        if self.any().is_none() {
            let _ = tokio::time::timeout(LONGEST_WAIT, changes.changed()).await;
        }
    }

    /// Counts the links and tells of each change, without end.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut links = self.uplinks.watch();
        loop {
            links.borrow_and_update();
            self.metrics.set_orchestrators(self.linked().len());
            self.notify();
            if links.changed().await.is_err() {
                return;
            }
        }
    }
}
