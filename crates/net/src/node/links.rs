//! The links of a node: at most one per key, and what happens to them.

use crate::link::quiet::Turn;
use crate::link::rivals::{Origin, Verdict, decide};
use crate::link::{Link, LinkEvent};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_telemetry::metrics::NetMetrics;
use tether_wire::{NodeId, Role};
use tokio::sync::broadcast;

/// Events that a slow receiver may be behind.
const EVENTS: usize = 1_024;

/// What became of a link that was offered.
pub(super) enum Installed {
    /// It is the link to its peer now.
    Kept,
    /// It is, and another lives on until its calls had time to end.
    KeptAndRetired(Link),
    /// Another link to the same peer stays.
    Superfluous(Link),
}

pub(super) struct Links {
    own: NodeId,
    metrics: Arc<NetMetrics>,
    by_peer: Mutex<HashMap<NodeId, Link>>,
    events: broadcast::Sender<LinkEvent>,
}

impl Links {
    pub(super) fn new(own: NodeId, metrics: Arc<NetMetrics>) -> Self {
        let events = broadcast::channel(EVENTS).0;
        Self {
            own,
            metrics,
            by_peer: Mutex::default(),
            events,
        }
    }

    /// Counts those that go through a relay now.
    pub(super) fn count_relayed(&self, links: &[Link]) {
        for role in [Role::Gateway, Role::Orchestrator, Role::Worker] {
            let of_role = links.iter().filter(|link| link.peer().role == role);
            let count = of_role.filter(|link| link.is_relayed()).count();
            self.metrics.links_relayed(role_name(role), count);
        }
    }

    pub(super) fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.events.subscribe()
    }

    /// The link to a peer that can be used.
    pub(super) fn get(&self, peer: &NodeId) -> Option<Link> {
        self.by_peer()
            .get(peer)
            .filter(|link| link.is_up())
            .cloned()
    }

    pub(super) fn all(&self) -> Vec<Link> {
        self.by_peer().values().cloned().collect()
    }

    /// Whether a link of this origin would be superfluous; the one that stays.
    pub(super) fn rival(&self, peer: &NodeId, new: Origin) -> Option<Link> {
        let old = self.get(peer).filter(|old| !old.is_quiet())?;
        (decide(self.own, *peer, old.origin(), new) == Verdict::NewGoes).then_some(old)
    }

    /// Makes it the link to its peer, unless another is to be kept. Events go out in the order of
    /// what happened: they are sent under the lock.
    pub(super) fn install(&self, link: &Link) -> Installed {
        let peer = link.peer().id;
        let mut by_peer = self.by_peer();
        let old = by_peer.get(&peer).cloned();
        let verdict = match &old {
            // A quiet one is no rival: who dials anew has waited for it to come back.
            Some(old) if old.is_up() && !old.is_quiet() => {
                decide(self.own, peer, old.origin(), link.origin())
            }
            _ => Verdict::OldIsDead,
        };
        match (verdict, old) {
            (Verdict::NewGoes, Some(old)) => return Installed::Superfluous(old),
            (Verdict::OldRetires, Some(old)) => {
                // The peer was up and stays up: there is nothing to tell.
                by_peer.insert(peer, link.clone());
                return Installed::KeptAndRetired(old);
            }
            (_, Some(old)) => {
                old.close("a newer link to this peer took its place");
                by_peer.remove(&peer);
                let reason = old.mark_down(String::new());
                self.tell_down(&old, reason, false);
            }
            (_, None) => {}
        }
        by_peer.insert(peer, link.clone());
        self.metrics.link_up(role_name(link.peer().role));
        self.tell(LinkEvent::Up(link.peer().clone()));
        Installed::Kept
    }

    /// The link is down, for this reason.
    pub(super) fn remove(&self, link: &Link, reason: String, is_surplus: bool) {
        let mut by_peer = self.by_peer();
        let peer = link.peer().id;
        if by_peer.get(&peer).is_some_and(|known| known.is_same(link)) {
            by_peer.remove(&peer);
            self.tell_down(link, reason, is_surplus);
        }
    }

    /// The link has become quiet, or lively again.
    pub(super) fn turned(&self, link: &Link, turn: Turn) {
        let by_peer = self.by_peer();
        let peer = link.peer();
        if !by_peer.get(&peer.id).is_some_and(|it| it.is_same(link)) || !link.is_up() {
            return;
        }
        link.turn(turn);
        let quiet = turn == Turn::Quiet;
        self.metrics.link_quiet(role_name(peer.role), quiet);
        self.tell(if quiet {
            LinkEvent::Quiet(peer.clone())
        } else {
            LinkEvent::Lively(peer.clone())
        });
    }

    fn tell_down(&self, link: &Link, reason: String, is_surplus: bool) {
        let role = role_name(link.peer().role);
        if link.is_quiet() {
            self.metrics.link_quiet(role, false);
        }
        self.metrics.link_down(role);
        let peer = link.peer().clone();
        self.tell(LinkEvent::Down {
            peer,
            reason,
            is_surplus,
        });
    }

    fn tell(&self, event: LinkEvent) {
        match &event {
            LinkEvent::Up(peer) => {
                tracing::info!(peer = %peer.id, role = %peer.role, region = %peer.region, "link up");
            }
            LinkEvent::Quiet(peer) => {
                tracing::info!(peer = %peer.id, role = %peer.role, "nothing is heard on a link");
            }
            LinkEvent::Lively(peer) => {
                tracing::info!(peer = %peer.id, role = %peer.role, "a quiet link is heard again");
            }
            LinkEvent::Down { peer, reason, .. } => {
                tracing::info!(peer = %peer.id, role = %peer.role, reason, "link down");
            }
        }
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    fn by_peer(&self) -> MutexGuard<'_, HashMap<NodeId, Link>> {
        self.by_peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A role's name, for metrics.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Gateway => "gateway",
        Role::Orchestrator => "orchestrator",
        Role::Worker => "worker",
        Role::Publisher => "publisher",
        Role::Operator => "operator",
    }
}
