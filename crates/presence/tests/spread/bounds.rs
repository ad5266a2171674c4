//! Every bound of the spread, and one step beyond it. [T-SPR-2], [T-SPR-8], [T-SPR-9]

use crate::support::*;
use crate::world::{Admitting, World, control};
use serde_bytes::ByteBuf;
use tether_presence::spread::{MAX_CONTROLS, MAX_PEERS, ROOM};
use tether_presence::{Effect, Input, Output, Rejected, Settings, Spread, check};
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::spread::{BUCKETS, Batch, Holding, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, Suspicion};
use tether_wire::{Digest, NodeId, codec};

fn stranger(n: usize) -> NodeId {
    Digest::of(&n.to_be_bytes()).0.into_node()
}

trait IntoNode {
    fn into_node(self) -> NodeId;
}
impl IntoNode for [u8; 32] {
    fn into_node(self) -> NodeId {
        NodeId(self)
    }
}

fn lone() -> Spread {
    Spread::new(id(101), Settings::default(), at(0), 1)
}

fn handle(spread: &mut Spread, input: Input, ms: u64) -> Vec<Output> {
    let mut outputs = Vec::new();
    spread.handle(input, at(ms), &mut outputs);
    outputs
}

fn checked(batch: Batch) -> check::CheckedBatch {
    let verifier = Admitting(signatures());
    check::batch(batch, &verifier, &check::Nothing, START)
}

#[test]
fn one_peer_too_many_is_refused_and_itself_is_none() {
    let mut spread = lone();
    for n in 0..MAX_PEERS {
        assert!(
            handle(
                &mut spread,
                Input::PeerUp {
                    peer: stranger(n),
                    near: true
                },
                0
            )
            .is_empty()
        );
    }
    let outputs = handle(
        &mut spread,
        Input::PeerUp {
            peer: stranger(MAX_PEERS),
            near: true,
        },
        0,
    );
    let full = |it: &Output| {
        matches!(
            it,
            Output::Effect(Effect::Rejected {
                reason: Rejected::Full,
                ..
            })
        )
    };
    assert!(outputs.iter().any(full));
    handle(
        &mut spread,
        Input::PeerUp {
            peer: id(101),
            near: true,
        },
        0,
    );
    assert_eq!(spread.peers().count(), MAX_PEERS);
}

#[test]
fn nothing_more_is_sent_to_a_peer_whose_link_takes_nothing() {
    let mut spread = lone();
    let peer = stranger(1);
    handle(&mut spread, Input::PeerUp { peer, near: true }, 0);
    let mut sent = 0;
    for n in 0..200u64 {
        handle(&mut spread, control(&n.to_be_bytes()), n * 100);
        let outputs = handle(&mut spread, Input::Tick, n * 100);
        sent += outputs
            .iter()
            .filter(|it| matches!(it, Output::Send { .. }))
            .count();
    }
    assert_eq!(sent, ROOM);
    handle(&mut spread, Input::Written(peer), 30_000);
    let outputs = handle(&mut spread, Input::Tick, 30_000);
    assert_eq!(
        outputs
            .iter()
            .filter(|it| matches!(it, Output::Send { .. }))
            .count(),
        1
    );
}

#[test]
fn one_control_message_too_many_or_too_large_is_refused() {
    let mut spread = lone();
    let refused = |outputs: &[Output]| !outputs.is_empty();
    let large = handle(&mut spread, control(&vec![0; MAX_CONTROL_BYTES + 1]), 0);
    assert!(refused(&large));
    for n in 0..MAX_CONTROLS {
        assert!(!refused(&handle(&mut spread, control(&n.to_be_bytes()), 0)));
    }
    assert!(refused(&handle(&mut spread, control(b"one more"), 0)));
}

#[test]
fn a_peer_that_reads_nothing_makes_nothing_wait_that_no_longer_matters() {
    let mut spread = lone();
    let peer = id(102);
    handle(&mut spread, Input::PeerUp { peer, near: true }, 0);
    for n in 0..2_000u64 {
        handle(&mut spread, control(&n.to_be_bytes()), n);
        handle(&mut spread, Input::Tick, n);
        assert!(spread.waiting_controls(&peer) <= 2, "{n}");
        let gone = Digest::of(&n.to_be_bytes());
        handle(&mut spread, Input::ControlGone(gone), n);
    }
    // Its hashes are looked at once while it was not told what they ask for.
    for n in 0..500u64 {
        handle(&mut spread, control(&n.to_be_bytes()), 3_000);
    }
    for n in 0..100u64 {
        let batch = checked(Batch {
            control_summary: vec![n; BUCKETS],
            ..Batch::default()
        });
        handle(&mut spread, Input::Batch { from: peer, batch }, 4_000 + n);
        assert_eq!(spread.waiting_controls(&peer), 500);
    }
}

/// The most that a peer may put into one batch, all of it nonsense.
fn nonsense(round: usize) -> Batch {
    let many = |from: usize| (from..from + MAX_BATCH_ENTRIES).map(stranger);
    let from = round * MAX_BATCH_ENTRIES;
    Batch {
        linked: Some((0..256).map(stranger).collect()),
        summary: vec![round as u64; BUCKETS],
        control_summary: vec![round as u64; BUCKETS],
        suspicions: many(from)
            .map(|node| Suspicion {
                node,
                epoch: 1,
                seq: 1,
            })
            .collect(),
        wants: many(from).collect(),
        holdings: many(from)
            .map(|node| Holding {
                node,
                epoch: 1,
                seq: 1,
                card: None,
            })
            .collect(),
        cards: vec![ByteBuf::from(vec![1; 100]); 16],
        ..Batch::default()
    }
}

#[test]
fn a_peer_that_sends_nonsense_is_counted_and_grows_no_memory() {
    let mut spread = lone();
    let from = stranger(1);
    handle(
        &mut spread,
        Input::PeerUp {
            peer: from,
            near: true,
        },
        0,
    );
    let mut counted = 0;
    for round in 0..30 {
        let batch = checked(nonsense(round));
        let outputs = handle(&mut spread, Input::Batch { from, batch }, 0);
        counted += outputs
            .iter()
            .filter(|it| matches!(it, Output::Effect(Effect::Rejected { .. })))
            .count();
    }
    assert_eq!(counted, 30 * 16, "the cards are no envelopes");
    assert_eq!(spread.presence().remembered(), 0);
    assert_eq!(spread.waiting(&from), 0);
    // What it made us want is bounded, and asked of it alone.
    let mut asked = 0;
    for n in 0..200 {
        handle(&mut spread, Input::Written(from), n * 50);
        for output in handle(&mut spread, Input::Tick, n * 50) {
            if let Output::Send { batch, .. } = output {
                assert!(codec::encode(&batch).len() <= MAX_BATCH_BYTES);
                asked += batch.wants.len();
            }
        }
    }
    assert!(asked <= tether_presence::spread::MAX_WANTS, "{asked}");
    let stranger_batch = checked(nonsense(0));
    let nobody = handle(
        &mut spread,
        Input::Batch {
            from: stranger(2),
            batch: stranger_batch,
        },
        0,
    );
    assert!(nobody.is_empty(), "who is no peer is not heard");
}

#[test]
fn batches_stay_within_the_limits_of_the_wire_however_large_the_fleet() {
    let mut world = World::full_mesh(2);
    for n in 1..=90 {
        world.worker(n, &[101]);
    }
    // `World::send` decodes each batch with its limits.
    world.run(6_000);
    world.start(103);
    world.link(101, 103);
    world.run(6_000);
    assert_eq!(world.routable(103).len(), 93);
}
