//! Links to orchestrators: found on the region's control topic, kept, and chosen from.
//!
//! Reconnects back off with jitter and never stop for good. (NET-7)

use std::sync::Arc;
use std::time::Duration;
use tether_net::{Link, Node, Uplinks};
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::CorrelationId;
use tokio::sync::watch;

/// Orchestrators that a gateway keeps links with at most; a region has a handful, and a request
/// may go to any of them.
const MAX_LINKS: usize = 16;
/// Longest wait for a change.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The orchestrators of the gateway's region.
pub(crate) struct Orchestrators {
    uplinks: Uplinks,
    changes: watch::Sender<()>,
    metrics: Arc<GatewayMetrics>,
}

impl Orchestrators {
    /// Looks for orchestrators and keeps links to them, as long as this lives.
    pub(crate) fn new(node: &Node, metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        Arc::new(Self {
            uplinks: Uplinks::start(node, MAX_LINKS),
            changes: watch::channel(()).0,
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
    /// request which comes again comes to the same one.
    pub(crate) fn ranked(&self, correlation: &CorrelationId) -> Vec<Link> {
        let mut links = self.linked();
        links.sort_by_key(|link| correlation.rank(&link.peer().id));
        links
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
