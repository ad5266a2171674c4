//! Cards and beats from nodes' links into the fleet. (PRE-2, PRE-3) [T-PUS-1] to [T-PUS-4]
//!
//! Each link is served by its own task and verified there, so that a flood from one node slows
//! that node.

use crate::clock;
use crate::fleet::keeper::{Fleet, Outgoing, reject};
use crate::rate::TokenBucket;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tether_net::{Incoming, LinkEvent, Node};
use tether_presence::check::{self, Nothing};
use tether_presence::{Event, Input, Rejected, Signatures, Verifier};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::codec::{self, CodecError};
use tether_wire::grant::Mesh;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::spread::{MAX_PUSH_BYTES, Push, PushReply};
use tether_wire::{NodeId, Role};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What is read at most, so that something a little too long is counted and not fatal.
const READ_LIMIT: usize = 2 * MAX_PUSH_BYTES;
/// Beats in a second that one node may push: one in five seconds is the rule, and a state that
/// changes is told at once.
pub(crate) const MAX_BEATS_PER_SECOND: u32 = 10;
/// Beats that it may push at once.
pub(crate) const MAX_BEATS_BURST: u32 = 20;

/// Serves `presence` calls.
pub(crate) struct Discovery {
    verifier: Signatures,
    fleet: Fleet,
    metrics: Arc<OrchestratorMetrics>,
    /// The latest call of each node that pushes. As many as there are links.
    calls: Mutex<HashMap<NodeId, Weak<Notify>>>,
}

impl Discovery {
    pub(crate) fn new(mesh: Mesh, fleet: Fleet, metrics: Arc<OrchestratorMetrics>) -> Self {
        Self {
            verifier: Signatures { mesh },
            fleet,
            metrics,
            calls: Mutex::default(),
        }
    }

    /// Takes beats until the node ends the call.
    pub(crate) async fn serve(&self, mut call: Incoming) -> Result<(), RpcError> {
        let peer = call.peer().clone();
        if !matches!(peer.role, Role::Worker | Role::Gateway) {
            return Err(RpcError::new(
                Code::Forbidden,
                format!("a {} has no presence to push", peer.role),
            ));
        }
        let wish = Arc::new(Notify::new());
        self.calls().insert(peer.id, Arc::downgrade(&wish));
        let result = self.take(&mut call, peer.id, &wish).await;
        drop(wish);
        self.calls().retain(|_, call| call.strong_count() > 0);
        result
    }

    async fn take(&self, call: &mut Incoming, peer: NodeId, wish: &Notify) -> Result<(), RpcError> {
        let now_ms = clock::now().mono_ms;
        let mut bucket = TokenBucket::new(MAX_BEATS_PER_SECOND, MAX_BEATS_BURST, now_ms);
        loop {
            let item = tokio::select! {
                item = call.recv(READ_LIMIT) => item,
                () = wish.notified() => {
                    let wants_card = true;
                    call.send(&codec::encode(&PushReply { wants_card })).await?;
                    continue;
                }
            };
            let item = match item {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(error) => {
                    if error.code == Code::Invalid {
                        reject(&self.metrics, Some(peer), Rejected::Oversized);
                    }
                    return Err(error);
                }
            };
            // Before the signature is looked at: verification is what a flood would spend.
            if !bucket.take(clock::now().mono_ms) {
                reject(&self.metrics, Some(peer), Rejected::Flood);
                continue;
            }
            match judge(&item, peer, &self.verifier, clock::now().unix_ms) {
                Ok((event, wrong)) => {
                    if let Some(reason) = wrong {
                        reject(&self.metrics, Some(peer), reason);
                    }
                    self.fleet.tell(Input::Own(event)).await;
                }
                Err(reason) => reject(&self.metrics, Some(peer), reason),
            }
        }
    }

    /// Asks nodes for the cards that are missing, until `stop`.
    pub(crate) async fn ask(
        self: Arc<Self>,
        mut outgoing: mpsc::Receiver<Outgoing>,
        stop: CancellationToken,
    ) {
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = outgoing.recv() => next,
            };
            match next {
                None => return,
                Some(Outgoing::WantCard(node)) => {
                    let call = self.calls().get(&node).and_then(Weak::upgrade);
                    if let Some(call) = call {
                        call.notify_one();
                    }
                }
                // Without calls among orchestrators there are no peers.
                Some(Outgoing::Send { .. } | Outgoing::Control { .. }) => {}
            }
        }
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn calls(&self) -> MutexGuard<'_, HashMap<NodeId, Weak<Notify>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that can be said about a push without knowing the ones before it. The second value
/// is what was wrong with its card.
///
/// # Errors
/// The first reason against it.
pub fn judge(
    item: &[u8],
    peer: NodeId,
    verifier: &impl Verifier,
    now_unix_ms: u64,
) -> Result<(Event, Option<Rejected>), Rejected> {
    let push = Push::decode(item).map_err(|error| match error {
        CodecError::TooLarge { .. } => Rejected::Oversized,
        _ => Rejected::Malformed,
    })?;
    check::push(push, peer, verifier, &Nothing, now_unix_ms)
}

/// Tells of nodes whose link broke, is silent or speaks again, until `stop`. [T-LIV-2]
pub(crate) async fn watch_links(node: Node, fleet: Fleet, stop: CancellationToken) {
    let mut events = node.events();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
        };
        let doubtful: Vec<NodeId> = match event {
            Ok(LinkEvent::Down { peer, .. } | LinkEvent::Quiet(peer))
                if peer.role != Role::Orchestrator =>
            {
                vec![peer.id]
            }
            Ok(LinkEvent::Lively(peer)) if peer.role != Role::Orchestrator => {
                fleet.tell(Input::Own(Event::LinkLively(peer.id))).await;
                continue;
            }
            Ok(_) => continue,
            // Some events were missed: look at everybody.
            Err(RecvError::Lagged(_)) => fleet
                .snapshot()
                .workers()
                .map(|worker| worker.id())
                .collect(),
            Err(RecvError::Closed) => return,
        };
        for worker in doubtful {
            // The newest link of a key replaces the one before, whose end then means nothing.
            match node.linked(&worker) {
                None => fleet.unreachable(worker, "its link broke").await,
                Some(link) if link.is_quiet() => fleet.suspect(worker, "its link is silent").await,
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
#[path = "discovery/tests.rs"]
mod tests;
