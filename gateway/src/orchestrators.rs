//! Links to orchestrators: found on the region's control topic, kept, and chosen from.
//!
//! Reconnects back off with jitter and never stop for good. (NET-7)

use crate::candidates::{BACKOFF_BASE, BACKOFF_CAP, Candidates, backoff};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tether_net::{Link, LinkError, LinkEvent, Lonely, Node};
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::{CorrelationId, Digest, NodeId, Role, Topic};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often the topic is looked up while there is a link.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(30);

/// The orchestrators of the gateway's region.
pub(crate) struct Orchestrators {
    node: Node,
    changes: watch::Sender<()>,
    metrics: Arc<GatewayMetrics>,
}

impl Orchestrators {
    pub(crate) fn new(node: Node, metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        Arc::new(Self {
            node,
            changes: watch::channel(()).0,
            metrics,
        })
    }

    /// Links that can be used. One that is quiet is not asked: its orchestrator may be dead.
    fn linked(&self) -> Vec<Link> {
        let mut links = self.node.links();
        links.retain(|link| {
            link.is_up() && !link.is_quiet() && link.peer().role == Role::Orchestrator
        });
        links
    }

    /// Any of them.
    pub(crate) fn any(&self) -> Option<Link> {
        self.linked().into_iter().next()
    }

    /// All of them, in the order in which a request asks them: by rendezvous hashing, so that a
    /// request which comes again comes to the same one.
    pub(crate) fn ranked(&self, correlation: &CorrelationId) -> Vec<Link> {
        let mut links = self.linked();
        links.sort_by_key(|link| rank(correlation, &link.peer().id));
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
            let _ = tokio::time::timeout(BACKOFF_CAP, changes.changed()).await;
        }
    }

    /// Looks for orchestrators and keeps links to them, without end.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut keeper = Keeper {
            topic: Topic::Control(self.node.region().clone()),
            events: self.node.events(),
            known: Candidates::default(),
            dials: JoinSet::new(),
            lookup_at: Instant::now(),
            failed_lookups: 0,
            lonely: Lonely::default(),
            orchestrators: self,
        };
        loop {
            keeper.step().await;
        }
    }
}

/// Whether there is a link that need not be dialled.
fn is_heard(node: &Node, id: &NodeId) -> bool {
    node.linked(id).is_some_and(|link| !link.is_quiet())
}

/// Rank of an orchestrator for a request; the lowest is asked first.
fn rank(correlation: &CorrelationId, orchestrator: &NodeId) -> Digest {
    Digest::of(&[correlation.0.as_slice(), orchestrator.0.as_slice()].concat())
}

struct Keeper {
    orchestrators: Arc<Orchestrators>,
    topic: Topic,
    events: broadcast::Receiver<LinkEvent>,
    known: Candidates,
    dials: JoinSet<(NodeId, Result<(), LinkError>)>,
    lookup_at: Instant,
    failed_lookups: u32,
    lonely: Lonely,
}

impl Keeper {
    async fn step(&mut self) {
        if Instant::now() >= self.lookup_at {
            self.look_up().await;
        }
        self.dial();
        let next = self
            .known
            .next_dial(|id| is_heard(self.node(), id))
            .map_or(self.lookup_at, |dial_at| dial_at.min(self.lookup_at));
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            event = self.events.recv() => match event {
                Ok(LinkEvent::Down { peer, reason }) if peer.role == Role::Orchestrator => {
                    tracing::warn!(peer = %peer.id, reason, "the link to an orchestrator is gone");
                    self.lookup_at = self.lookup_at.min(Instant::now() + BACKOFF_BASE);
                    self.count();
                }
                Ok(LinkEvent::Quiet(peer)) if peer.role == Role::Orchestrator => {
                    tracing::warn!(peer = %peer.id, "nothing is heard of an orchestrator");
                    self.lookup_at = self.lookup_at.min(Instant::now() + BACKOFF_BASE);
                    self.count();
                }
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                _ => self.count(),
            },
            Some(Ok((id, result))) = self.dials.join_next() => self.dialled(id, result),
        }
    }

    fn node(&self) -> &Node {
        &self.orchestrators.node
    }

    fn count(&self) {
        let linked = self.orchestrators.linked().len();
        self.orchestrators.metrics.set_orchestrators(linked);
        self.orchestrators.notify();
    }

    async fn look_up(&mut self) {
        match self.node().lookup(&self.topic).await {
            Ok(ids) => self.known.found(ids, Instant::now(), &mut rand::rng()),
            Err(error) => tracing::debug!(%error, "orchestrators cannot be looked up"),
        }
        let alone = self.orchestrators.any().is_none();
        if self.lonely.is_due(alone, std::time::Instant::now()) {
            let (region, mesh) = (self.node().region(), self.node().mesh().id);
            tracing::warn!(
                "no orchestrator of region {region} is found in mesh {mesh}: check node.mesh, node.region and node.bootstrap, and that an orchestrator runs there"
            );
        }
        let jitter = rand::rng().random::<f64>();
        let pause = if self.orchestrators.any().is_some() {
            self.failed_lookups = 0;
            LOOKUP_INTERVAL.mul_f64(0.75 + jitter / 2.0)
        } else {
            self.failed_lookups = self.failed_lookups.saturating_add(1);
            // While a dial is under way there is no hurry, and without one there is.
            backoff(self.failed_lookups.min(4), jitter)
        };
        self.lookup_at = Instant::now() + pause;
    }

    fn dial(&mut self) {
        let node = self.orchestrators.node.clone();
        let linked = |id: &NodeId| is_heard(&node, id);
        for id in self.known.take_due(Instant::now(), linked) {
            let node = node.clone();
            self.dials.spawn(async move {
                let result = node.link(id, Role::Orchestrator).await;
                (id, result.map(drop))
            });
        }
    }

    fn dialled(&mut self, id: NodeId, result: Result<(), LinkError>) {
        match result {
            Ok(()) => {
                tracing::info!(peer = %id, "linked with an orchestrator");
                self.known.linked(&id, Instant::now());
            }
            Err(error) => {
                let jitter = rand::rng().random::<f64>();
                let failures = self.known.failed(&id, Instant::now(), jitter);
                if failures == 1 {
                    tracing::warn!(peer = %id, %error, "an orchestrator cannot be linked with");
                } else {
                    tracing::debug!(peer = %id, %error, failures, "an orchestrator cannot be linked with");
                }
            }
        }
        self.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_comes_again_asks_in_the_same_order() {
        let nodes: Vec<NodeId> = (0..5).map(|n| NodeId([n; 32])).collect();
        let order = |request: u8| {
            let mut nodes = nodes.clone();
            nodes.sort_by_key(|node| rank(&CorrelationId([request; 16]), node));
            nodes
        };
        assert_eq!(order(1), order(1));
        assert!((2..20).any(|request| order(request)[0] != order(1)[0]));
    }
}
