//! What orchestrators take from nodes and from each other: decoded, sifted, verified, and given to
//! the state machines of `tether-presence`, whose promises are checked after every step.
//!
//! * [`push`], [`batch`] – one message, as bytes
//! * [`story`] – bytes as a row of things that happen: right and wrong messages in any order, links
//!   that come and go, clocks that are set, keys that are revoked

mod cast;
mod machine;

use crate::Verdict;
use crate::choices::Choices;
use crate::seeds::Seed;
use cast::{NODES, Remembering, id, open_rules, sealed_beat, sealed_card};
use machine::Machine;
use serde_bytes::ByteBuf;
use tether_presence::{Event, Input};
use tether_wire::beat::MAX_SKEW_MS;
use tether_wire::spread::{
    BUCKETS, Batch, Holding, MAX_BATCH_BYTES, MAX_BATCH_ENTRIES, MAX_LINKED, MAX_PUSH_BYTES, Push,
    RelayedBeat, Suspicion,
};
use tether_wire::{Digest, Signed, codec};

/// Things that happen in one story.
const MAX_STEPS: usize = 64;

/// A push, as it comes over a node's link.
pub(crate) fn push(bytes: &[u8]) -> Verdict {
    let Ok(push) = Push::decode(bytes) else {
        return Verdict::Refused;
    };
    assert!(bytes.len() <= MAX_PUSH_BYTES);
    assert_eq!(Push::decode(&codec::encode(&push)).ok(), Some(push.clone()));
    let peer = Signed::<tether_wire::Beat>::from_bytes(push.beat.clone()).claimed_signer();
    let mut machine = Machine::new();
    let verifier = open_rules();
    let wrong = machine.push(push.clone(), id(0), &verifier);
    assert!(!wrong, "of another node than its link's");
    let taken = peer.is_some_and(|peer| machine.push(push, peer, &verifier));
    machine.silence();
    Verdict::of(taken)
}

/// A batch, as it comes over the link of another orchestrator.
pub(crate) fn batch(bytes: &[u8]) -> Verdict {
    let Ok(batch) = Batch::decode(bytes) else {
        return Verdict::Refused;
    };
    assert!(bytes.len() <= MAX_BATCH_BYTES);
    for len in [
        batch.cards.len(),
        batch.beats.len(),
        batch.suspicions.len(),
        batch.holdings.len(),
        batch.wants.len(),
        batch.controls.len(),
    ] {
        assert!(len <= MAX_BATCH_ENTRIES);
    }
    assert!(batch.linked.as_ref().map_or(0, Vec::len) <= MAX_LINKED);
    for hashes in [&batch.summary, &batch.control_summary] {
        assert!(hashes.is_empty() || hashes.len() == BUCKETS);
    }
    let ahead = (batch.beats.iter()).map(|it| u64::from(it.ahead_ms.unsigned_abs()));
    assert!(ahead.max().unwrap_or(0) <= MAX_SKEW_MS);
    assert_eq!(Batch::decode(&codec::encode(&batch)), Ok(batch.clone()));
    // Each beat and card costs real arithmetic here.
    if batch.cards.len() + batch.beats.len() > 16 {
        return Verdict::Refused;
    }
    let mut machine = Machine::new();
    let (peer, near) = (id(NODES - 1), true);
    machine.handle(Input::PeerUp { peer, near });
    let verifier = open_rules();
    let good = machine.batch(batch, peer, &verifier);
    machine.silence();
    Verdict::of(good)
}

/// A row of things that happen.
pub(crate) fn story(bytes: &[u8]) -> Verdict {
    let mut choices = Choices::new(bytes);
    let mut machine = Machine::new();
    let mut taken = false;
    for _ in 0..MAX_STEPS {
        if choices.is_over() {
            break;
        }
        taken |= step(&mut machine, &mut choices);
    }
    machine.silence();
    Verdict::of(taken)
}

/// One thing happens; whether something that was sent was found good.
fn step(machine: &mut Machine, choices: &mut Choices<'_>) -> bool {
    let kind = choices.byte() % 16;
    let n = choices.byte() % NODES;
    match kind {
        0..4 => {
            let push = made_push(machine, n, choices);
            // Now and then over the link of another node.
            let peer = if choices.byte() == 255 {
                id(n + 1)
            } else {
                id(n)
            };
            return machine.push(push, peer, &Remembering);
        }
        4..7 => {
            let batch = made_batch(machine, choices);
            return machine.batch(batch, id(n), &Remembering);
        }
        7 => machine.pass(u64::from(choices.byte()) * 20, 100),
        8 => machine.pass(u64::from(choices.byte()) * 200, 900),
        // It is not run for a while, or its clock is set.
        9 => match choices.byte() {
            back @ 0..64 => {
                let back_ms = u64::from(back) * 1_000;
                machine.now.unix_ms = machine.now.unix_ms.saturating_sub(back_ms);
            }
            forth @ 64..128 => machine.now.unix_ms += u64::from(forth) * 500,
            gap => machine.now.mono_ms += u64::from(gap) * 300,
        },
        10 => machine.handle(Input::PeerUp {
            peer: id(n),
            near: choices.flag(),
        }),
        11 => machine.handle(Input::PeerDown(id(n))),
        12 => machine.handle(Input::Written(id(n))),
        13 => {
            let event = choices.of(&[
                Event::LinkLost,
                Event::LinkClosed,
                Event::LinkQuiet,
                Event::LinkLively,
                Event::GrantRevoked,
            ]);
            machine.handle(Input::Own(event(id(n))));
        }
        14 if choices.byte().is_multiple_of(4) => machine.revoke(id(n)),
        _ => {
            let sealed = choices.bytes().to_vec();
            let id = Digest::of(&sealed);
            if choices.flag() {
                machine.handle(Input::ControlGone(id));
            } else {
                let urgent = choices.flag();
                machine.handle(Input::Control { id, sealed, urgent });
            }
        }
    }
    false
}

/// Sealed bytes, sometimes damaged.
fn damaged(mut sealed: Vec<u8>, choices: &mut Choices<'_>) -> Vec<u8> {
    match choices.byte() {
        255 => choices.bytes().to_vec(),
        254 => {
            let at = usize::from(choices.byte()) % sealed.len();
            sealed[at] ^= choices.byte();
            sealed
        }
        _ => sealed,
    }
}

fn made_push(machine: &Machine, n: u8, choices: &mut Choices<'_>) -> Push {
    let (_, beat) = sealed_beat(n, choices, machine.now.unix_ms);
    let card = match choices.byte() {
        // Another node's card.
        255 => Some(sealed_card(n + 1, 0)),
        few => (few % 2 == 0).then(|| sealed_card(n, few / 2)),
    };
    Push {
        beat: damaged(beat.as_bytes().to_vec(), choices),
        card: card.map(|card| damaged(card.as_bytes().to_vec(), choices)),
    }
}

fn made_batch(machine: &Machine, choices: &mut Choices<'_>) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..choices.byte() % 8 {
        let kind = choices.byte() % 8;
        let n = choices.byte() % NODES;
        match kind {
            0..3 => {
                let (beat, sealed) = sealed_beat(n, choices, machine.now.unix_ms);
                let misstated = choices.byte() == 255;
                batch.beats.push(RelayedBeat {
                    epoch: beat.epoch,
                    seq: beat.seq.wrapping_add(u64::from(misstated)),
                    ahead_ms: choices.of(&[0, 4_999, -4_999, 5_000, -5_000, 1_000, -1_000]),
                    beat: damaged(sealed.as_bytes().to_vec(), choices),
                });
            }
            3 => {
                let card = sealed_card(n, choices.byte()).as_bytes().to_vec();
                batch.cards.push(ByteBuf::from(damaged(card, choices)));
            }
            4 => batch.suspicions.push(Suspicion {
                node: id(n),
                epoch: choices.of(&[1, 2, 3, 0, u64::MAX]),
                seq: u64::from(choices.byte()),
            }),
            5 => batch.holdings.push(Holding {
                node: id(n),
                epoch: choices.of(&[1, 2, 3, 0, u64::MAX]),
                seq: u64::from(choices.byte()),
                card: (choices.flag())
                    .then(|| Digest::of(sealed_card(n, choices.byte()).as_bytes())),
            }),
            6 => batch.wants.push(id(n)),
            _ => match choices.byte() % 3 {
                0 => batch.linked.get_or_insert_default().push(id(n)),
                1 => batch.controls.push(ByteBuf::from(choices.bytes().to_vec())),
                _ => {
                    let number = choices.number();
                    let hashes = (0..BUCKETS as u64).map(|it| it.wrapping_mul(number));
                    match choices.flag() {
                        true => batch.summary = hashes.collect(),
                        false => batch.control_summary = hashes.collect(),
                    }
                }
            },
        }
    }
    batch
}

/// Some stories to begin with: a push with a card and its silence, a peer with a batch, a clone, a
/// goodbye, a revocation.
pub(crate) fn stories() -> Vec<Seed> {
    let pushed = |n: u8, seq: u8, state: u8| vec![0, n, 0, seq, 0, state, 0, 0, 0, 0, 0];
    let batched = |n: u8, seq: u8| vec![4, 9, 1, 0, n, 0, seq, 0, 0, 0, 0, 0, 0];
    let passed = |tens: u8| vec![8, 0, tens];
    let peer = |n: u8| vec![10, n, 1];
    let stories: [(&str, Vec<Vec<u8>>); 7] = [
        ("lives-and-expires", vec![pushed(0, 1, 0), passed(80)]),
        (
            "says-goodbye",
            vec![pushed(1, 1, 0), pushed(1, 2, 3), pushed(1, 3, 0)],
        ),
        (
            "told-by-a-peer",
            vec![peer(9), batched(2, 1), passed(9), batched(2, 2)],
        ),
        (
            "passed-on",
            vec![
                peer(8),
                peer(9),
                pushed(0, 1, 0),
                passed(5),
                vec![12, 8, 12, 9],
            ],
        ),
        (
            "revoked",
            vec![pushed(3, 1, 0), vec![14, 3, 0], pushed(3, 2, 0)],
        ),
        (
            "suspected",
            vec![
                pushed(0, 1, 0),
                vec![13, 0, 0],
                vec![13, 0, 2],
                vec![13, 0, 3],
            ],
        ),
        ("crowd", (0..NODES).map(|n| pushed(n, 1, 0)).collect()),
    ];
    (stories.into_iter())
        .map(|(name, steps)| Seed::new(name, steps.concat()))
        .collect()
}
