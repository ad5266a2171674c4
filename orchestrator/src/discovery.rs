//! Heartbeats from workers' links into the fleet. (PRE-2, PRE-3) [T-PRE-7]
//!
//! Each link is served by its own task and verified there, so that a flood from one worker slows
//! that worker. A heartbeat counts only over the link of the worker that it is from: relaying
//! needs the worker's grant beside it, which comes with the gossip of orchestrators.

use crate::clock;
use crate::fleet::keeper::{Fleet, reject};
use crate::presence::Rejected;
use crate::rate::TokenBucket;
use std::sync::Arc;
use tether_net::{Incoming, LinkEvent, Node};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::codec::{self, CodecError};
use tether_wire::infer::Presence;
use tether_wire::link::Peer;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Heartbeat, MeshId, NodeId, Role, Signable, Signed, Verified, VerifyError};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Most bytes of one item of a `presence` call: a heartbeat and the names of its topics.
pub(crate) const MAX_PRESENCE_BYTES: usize = Heartbeat::MAX_BYTES + 16 * 1024;
/// What is read at most, so that something a little too long is counted and not fatal.
const READ_LIMIT: usize = 2 * MAX_PRESENCE_BYTES;
/// Heartbeats in a second that one worker may send: one in five seconds is the rule, and a state
/// that changes is told at once.
pub(crate) const MAX_BEATS_PER_SECOND: u32 = 10;
/// Heartbeats that it may send at once.
pub(crate) const MAX_BEATS_BURST: u32 = 20;

/// Serves `presence` calls.
pub(crate) struct Discovery {
    pub(crate) mesh: MeshId,
    pub(crate) fleet: Fleet,
    pub(crate) metrics: Arc<OrchestratorMetrics>,
}

impl Discovery {
    /// Takes heartbeats until the worker ends the call.
    pub(crate) async fn serve(&self, mut call: Incoming) -> Result<(), RpcError> {
        let peer = call.peer().clone();
        if peer.role != Role::Worker {
            return Err(RpcError::new(
                Code::Forbidden,
                format!("a {} has no presence to tell of", peer.role),
            ));
        }
        let now_ms = clock::now().mono_ms;
        let mut bucket = TokenBucket::new(MAX_BEATS_PER_SECOND, MAX_BEATS_BURST, now_ms);
        loop {
            let item = match call.recv(READ_LIMIT).await {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(error) => {
                    if error.code == Code::Invalid {
                        reject(&self.metrics, peer.id, Rejected::Oversized);
                    }
                    return Err(error);
                }
            };
            // Before the signature is looked at: verification is what a flood would spend.
            if !bucket.take(clock::now().mono_ms) {
                reject(&self.metrics, peer.id, Rejected::Flood);
                continue;
            }
            match judge(&item, &peer, &self.mesh) {
                Ok(beat) => self.fleet.heard(beat, peer.tier).await,
                Err(reason) => reject(&self.metrics, peer.id, reason),
            }
        }
    }
}

/// Everything that can be said about a heartbeat without knowing the ones before it.
fn judge(item: &[u8], peer: &Peer, mesh: &MeshId) -> Result<Verified<Heartbeat>, Rejected> {
    let presence: Presence = match codec::decode("presence", item, MAX_PRESENCE_BYTES) {
        Ok(presence) => presence,
        Err(CodecError::TooLarge { .. }) => return Err(Rejected::Oversized),
        Err(_) => return Err(Rejected::Malformed),
    };
    let signed = Signed::<Heartbeat>::from_bytes(presence.heartbeat);
    if signed.claimed_signer().is_some_and(|id| id != peer.id) {
        return Err(Rejected::WrongWorker);
    }
    let beat = signed.verify(mesh).map_err(|error| match error {
        VerifyError::TooLarge { .. } => Rejected::Oversized,
        VerifyError::NotAnEnvelope { .. } | VerifyError::BadSignature { .. } => Rejected::Forged,
        // Rightly signed, but in the name of somebody else.
        VerifyError::Body(CodecError::Field {
            field: "worker", ..
        }) => Rejected::Forged,
        VerifyError::Body(_) => Rejected::Malformed,
    })?;
    if beat.signer() != peer.id {
        return Err(Rejected::WrongWorker);
    }
    if beat.region != peer.region {
        return Err(Rejected::WrongRegion);
    }
    Ok(beat)
}

/// Tells of workers whose link broke or is silent, until `stop`. One that is heard again is well at its
/// next heartbeat. [T-PRE-8]
pub(crate) async fn watch_links(node: Node, fleet: Fleet, stop: CancellationToken) {
    let mut events = node.events();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
        };
        let doubtful: Vec<NodeId> = match event {
            Ok(LinkEvent::Down { peer, .. } | LinkEvent::Quiet(peer))
                if peer.role == Role::Worker =>
            {
                vec![peer.id]
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
mod tests {
    use super::*;
    use crate::testing::{NOW, beat, key, mesh};
    use tether_wire::{NodeKey, Region, Tier};

    fn peer(n: u8) -> Peer {
        Peer {
            id: key(n).id(),
            role: Role::Worker,
            region: Region::new("local").expect("valid"),
            tier: Tier::Trusted,
            grant_expires_ms: None,
            minor: 0,
            agent: String::new(),
        }
    }

    fn item(heartbeat: &[u8]) -> Vec<u8> {
        codec::encode(&Presence {
            heartbeat: heartbeat.to_vec(),
            topics: vec!["tether/presence/local".into()],
        })
    }

    fn sealed(key: &NodeKey, mesh: &MeshId, beat: &Heartbeat) -> Vec<u8> {
        let signed = Signed::seal(key, mesh, beat).expect("inside limits");
        signed.as_bytes().to_vec()
    }

    fn verdict(item: &[u8]) -> Option<Rejected> {
        judge(item, &peer(1), &mesh()).err()
    }

    #[test]
    fn a_workers_own_heartbeat_passes() {
        let good = sealed(&key(1), &mesh(), &beat(1, 1, 1, NOW));
        assert_eq!(verdict(&item(&good)), None);
    }

    #[test]
    fn everything_else_is_refused_by_its_own_reason() {
        let good = sealed(&key(1), &mesh(), &beat(1, 1, 1, NOW));
        let mut forged = good.clone();
        *forged.last_mut().expect("bytes") ^= 1;
        assert_eq!(verdict(&item(&forged)), Some(Rejected::Forged));
        let elsewhere = sealed(&key(1), &MeshId([9; 32]), &beat(1, 1, 1, NOW));
        assert_eq!(verdict(&item(&elsewhere)), Some(Rejected::Forged));
        assert_eq!(verdict(&item(b"")), Some(Rejected::Forged));
        let others = sealed(&key(2), &mesh(), &beat(2, 1, 1, NOW));
        assert_eq!(verdict(&item(&others)), Some(Rejected::WrongWorker));
        let mut away = beat(1, 1, 1, NOW);
        away.region = Region::new("away").expect("valid");
        let away = sealed(&key(1), &mesh(), &away);
        assert_eq!(verdict(&item(&away)), Some(Rejected::WrongRegion));
        assert_eq!(verdict(b"not cbor"), Some(Rejected::Malformed));
        let long = vec![0; Heartbeat::MAX_BYTES + 1];
        let mut claimed = long.clone();
        claimed[1..33].copy_from_slice(&key(1).id().0);
        assert_eq!(verdict(&item(&claimed)), Some(Rejected::Oversized));
        assert_eq!(
            verdict(&vec![0; MAX_PRESENCE_BYTES + 1]),
            Some(Rejected::Oversized)
        );
    }
}
