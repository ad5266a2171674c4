//! What is known costs no verification. [T-PUS-3], [T-SPR-4]

use crate::support::*;
use serde_bytes::ByteBuf;
use std::cell::Cell;
use tether_presence::check::{self, Nothing};
use tether_presence::{AdmittedCard, Event, Rejected, Signatures, Verifier};
use tether_wire::spread::{Batch, Push, RelayedBeat};
use tether_wire::{Beat, Card, Role, Signable, Signed, Verified};

/// Counts what it verifies.
struct Counting(Signatures, Cell<usize>);

impl Counting {
    fn new() -> Self {
        Self(signatures(), Cell::new(0))
    }
}

impl Verifier for Counting {
    fn beat(&self, sealed: &Signed<Beat>) -> Result<Verified<Beat>, Rejected> {
        self.1.set(self.1.get() + 1);
        self.0.beat(sealed)
    }
    fn card(&self, sealed: &Signed<Card>, now_unix_ms: u64) -> Result<AdmittedCard, Rejected> {
        self.1.set(self.1.get() + 1);
        self.0.card(sealed, now_unix_ms)
    }
}

fn relay(beat: &Verified<Beat>) -> RelayedBeat {
    RelayedBeat {
        epoch: beat.epoch,
        seq: beat.seq,
        ahead_ms: 0,
        beat: beat.bytes().to_vec(),
    }
}

fn batch(beats: Vec<RelayedBeat>) -> Batch {
    Batch {
        beats,
        ..Batch::default()
    }
}

#[test]
fn a_beat_that_is_held_or_is_said_to_be_older_is_not_verified() {
    let mut machine = Machine::new();
    let held = beat(1, 1, 5, 0);
    machine.with_card(&held, card(1, 1));
    let counting = Counting::new();
    let mut all = batch(vec![
        relay(&held),
        relay(&beat(1, 1, 4, 0)),
        relay(&beat(1, 1, 6, 0)),
    ]);
    let card = sealed_card(1, 1, Role::Worker);
    all.cards = vec![ByteBuf::from(card.as_bytes().to_vec())];
    let checked = check::batch(all, &counting, &machine.presence, START);
    assert_eq!(counting.1.get(), 1);
    assert_eq!((checked.skipped(), checked.accepted()), (3, 1));
}

#[test]
fn a_sender_that_says_another_order_is_found_out() {
    let counting = Counting::new();
    let liar = RelayedBeat {
        seq: 99,
        ..relay(&beat(1, 1, 1, 0))
    };
    let checked = check::batch(batch(vec![liar]), &counting, &Nothing, START);
    assert_eq!(checked.rejected(), [(Some(id(1)), Rejected::Misstated)]);
}

#[test]
fn what_is_forged_oversized_or_of_a_revoked_key_is_dropped_by_its_reason() {
    let mut machine = Machine::new();
    machine.handle(Event::Revoked(id(3)));
    let mut forged = relay(&beat(1, 1, 1, 0));
    forged.beat[50] ^= 1;
    let oversized = RelayedBeat {
        beat: vec![1; Beat::MAX_BYTES + 1],
        ..forged.clone()
    };
    let short = RelayedBeat {
        beat: vec![1; 20],
        ..forged.clone()
    };
    let revoked = relay(&beat(3, 1, 1, 0));
    let counting = Counting::new();
    let mut all = batch(vec![forged, oversized, short, revoked]);
    let card = sealed_card(3, 1, Role::Worker);
    all.cards = vec![
        ByteBuf::from(card.as_bytes().to_vec()),
        ByteBuf::from(vec![1; Card::MAX_BYTES + 1]),
    ];
    let checked = check::batch(all, &counting, &machine.presence, START);
    let reasons: Vec<_> = checked
        .rejected()
        .iter()
        .map(|(_, reason)| *reason)
        .collect();
    use Rejected::{Forged, Oversized, Revoked};
    assert_eq!(
        reasons,
        [Oversized, Forged, Revoked, Revoked, Oversized, Forged]
    );
    assert_eq!(counting.1.get(), 1, "only what might have been good");
}

#[test]
fn a_push_counts_only_over_its_own_nodes_link() {
    let counting = Counting::new();
    let push = |beat: &Verified<Beat>| Push {
        beat: beat.bytes().to_vec(),
        card: None,
    };
    let other = check::push(push(&beat(1, 1, 1, 0)), id(2), &counting, &Nothing, START);
    assert_eq!(other.err(), Some(Rejected::WrongNode));
    let foreign_card = Push {
        card: Some(sealed_card(2, 1, Role::Worker).as_bytes().to_vec()),
        ..push(&beat(1, 1, 1, 0))
    };
    let (event, wrong) =
        check::push(foreign_card, id(1), &counting, &Nothing, START).expect("the beat is good");
    assert_eq!(wrong, Some(Rejected::WrongNode));
    assert!(matches!(event, Event::Beat { card: None, .. }));
}

#[test]
fn a_push_that_a_peer_passed_on_first_is_heard_without_a_verification() {
    let mut machine = Machine::new();
    let first = beat(1, 1, 1, 1);
    machine.relayed(&first);
    let counting = Counting::new();
    let push = Push {
        beat: first.bytes().to_vec(),
        card: None,
    };
    let (event, _) = check::push(push, id(1), &counting, &machine.presence, START).expect("good");
    assert!(matches!(event, Event::Again(node) if node == id(1)));
    assert_eq!(counting.1.get(), 0);
}
