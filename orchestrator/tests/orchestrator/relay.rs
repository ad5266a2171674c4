//! A peer that holds a grant and lies: it plays recordings back and forges what it passes on.
//! (PRE-3, PRE-5)

use crate::fleets::{Fleets, Member};
use crate::mesh::{key, within};
use std::sync::{Arc, Mutex};
use tether_net::{BoxFuture, Call, Incoming, Node, Service};
use tether_wire::beat::Order;
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::spread::{Batch, MAX_BATCH_BYTES, RelayedBeat};
use tether_wire::{Beat, Role, Signed, codec};
use tokio::sync::mpsc;

/// Writes down every batch that it is sent.
struct Recorder(mpsc::UnboundedSender<Batch>);

impl Service for Recorder {
    fn serve(&self, mut call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let batches = self.0.clone();
        Box::pin(async move {
            if call.method() != method::SPREAD {
                return Err(RpcError::new(Code::Unimplemented, "a recorder"));
            }
            while let Some(item) = call.recv(MAX_BATCH_BYTES).await? {
                let batch = Batch::decode(&item).expect("a batch");
                let _ = batches.send(batch);
            }
            Ok(())
        })
    }
}

/// A node with the grant of an orchestrator.
struct Liar {
    node: Node,
    batches: mpsc::UnboundedReceiver<Batch>,
    recorded: Mutex<Vec<Batch>>,
}

impl Liar {
    async fn start(fleets: &Fleets) -> Self {
        let (sender, batches) = mpsc::unbounded_channel();
        let key = key(&fleets.local, 200);
        let (config, _) = fleets.local.config(key, Role::Orchestrator);
        let node = Node::start(config, Arc::new(Recorder(sender))).await;
        Self {
            node: node.expect("a node"),
            batches,
            recorded: Mutex::default(),
        }
    }

    /// Becomes a peer.
    async fn peer_of(&self, member: &Member) -> Call {
        let link = within("a link", self.node.link(member.id(), Role::Orchestrator)).await;
        let link = link.expect("linked");
        link.call(method::SPREAD, None, &[]).await.expect("called")
    }

    /// Records until a beat is as wished.
    async fn hears(&mut self, wish: impl Fn(&RelayedBeat) -> bool) -> RelayedBeat {
        loop {
            let batch = within("a batch", self.batches.recv()).await;
            let batch = batch.expect("it is sent");
            let found = batch.beats.iter().find(|it| wish(it)).cloned();
            (self.recorded.lock().expect("unpoisoned")).push(batch);
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// Plays everything that it recorded, and after it something forged, which tells by being
    /// counted that the rest was looked at.
    async fn play(&self, call: &mut Call, to: &Member, forged: &RelayedBeat) {
        let before = to.count_rejected("forged");
        let recorded = self.recorded.lock().expect("unpoisoned").clone();
        for batch in recorded {
            let batch = Batch {
                cards: batch.cards,
                beats: batch.beats,
                ..Batch::default()
            };
            let sent = call.send(&codec::encode(&batch)).await;
            sent.expect("sent");
        }
        let batch = Batch {
            beats: vec![forge(forged)],
            ..Batch::default()
        };
        call.send(&codec::encode(&batch)).await.expect("sent");
        to.rejected("forged", before + 1).await;
    }
}

/// A later beat of the node, signed by nobody.
fn forge(beat: &RelayedBeat) -> RelayedBeat {
    let mut forged = beat.clone();
    forged.seq += 1_000;
    *forged.beat.last_mut().expect("bytes") ^= 1;
    forged
}

fn is_of(beat: &RelayedBeat, worker: &crate::mesh::Worker, seq: u64) -> bool {
    let order = Order { epoch: 1, seq };
    let signed = Signed::<Beat>::from_bytes(beat.beat.clone());
    signed.claimed_signer() == Some(worker.id()) && beat.order() == order
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_beat_that_a_peer_passes_on_is_counted_and_changes_nothing() {
    let fleets = Fleets::start(1).await;
    let mut liar = Liar::start(&fleets).await;
    let member = &fleets.members[0];
    let mut call = liar.peer_of(member).await;
    let worker = fleets.serving(10, 0).await;
    let heard = liar.hears(|beat| is_of(beat, &worker, 1)).await;
    let before = member.count_rejected("forged");
    let mut goodbye = worker.seal(&worker.goodbye(9));
    *goodbye.beat.last_mut().expect("bytes") ^= 1;
    let relayed = RelayedBeat {
        epoch: 1,
        seq: 9,
        ahead_ms: 0,
        beat: goodbye.beat,
    };
    let batch = Batch {
        beats: vec![relayed, forge(&heard)],
        ..Batch::default()
    };
    call.send(&codec::encode(&batch)).await.expect("sent");
    member.rejected("forged", before + 2).await;
    let fleet = member.orchestrator.fleet_snapshot();
    let view = fleet.worker(&worker.id()).expect("there as before");
    assert!(!view.is_suspect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_revives_nobody_neither_where_the_dead_are_known_nor_after_a_restart() {
    let mut fleets = Fleets::start(1).await;
    let mut liar = Liar::start(&fleets).await;
    let mut call = liar.peer_of(&fleets.members[0]).await;
    let mut worker = fleets.serving(10, 0).await;
    let heard = liar.hears(|beat| is_of(beat, &worker, 1)).await;
    let goodbye = worker.goodbye(2);
    worker.send(&goodbye).await;
    fleets.everywhere("gone", |fleet| fleet.is_empty()).await;

    liar.play(&mut call, &fleets.members[0], &heard).await;
    assert!(fleets.members[0].orchestrator.fleet_snapshot().is_empty());

    worker.node.shutdown().await;
    fleets.restart(0).await;
    let member = &fleets.members[0];
    let mut call = liar.peer_of(member).await;
    liar.play(&mut call, member, &heard).await;
    assert!(member.count_rejected("unproven") > 0, "it was looked at");
    assert!(member.orchestrator.fleet_snapshot().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_orchestrators_spread() {
    let fleets = Fleets::start(1).await;
    let worker = fleets.worker(10, 0).await;
    let link = worker.node.link(fleets.members[0].id(), Role::Orchestrator);
    let link = link.await.expect("linked");
    let call = link.call(method::SPREAD, None, &[]).await;
    let refused = within("the answer", call.expect("called").next()).await;
    assert_eq!(refused.expect_err("refused").code, Code::Forbidden);
}
