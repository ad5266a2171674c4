//! Rules 4 and 5: doubt, silence, goodbye, revocation. [T-LIV-2], [T-LIV-5]

use crate::support::*;
use tether_presence::{Effect, Event, Gone, Rejected};
use tether_wire::spread::Suspicion;

fn suspicion(n: u8, epoch: u64, seq: u64) -> Event {
    let node = id(n);
    Event::Suspected(Suspicion { node, epoch, seq })
}

#[test]
fn a_node_is_suspect_after_nine_seconds_of_silence_and_gone_after_fifteen() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    assert!(!suspected(&machine.go_to(8_950)));
    let effects = machine.go_to(9_150);
    assert!(suspected(&effects) && gone(&effects).is_none());
    assert!(gone(&machine.go_to(14_950)).is_none());
    assert_eq!(gone(&machine.go_to(15_150)), Some(Gone::Expired));
    assert_eq!(machine.presence.live(), 0);
}

#[test]
fn a_node_that_beats_is_never_in_doubt() {
    let mut machine = Machine::new();
    for n in 0..200 {
        let effects = machine.go_to(n * T);
        assert!(!suspected(&effects) && gone(&effects).is_none());
        machine.direct(&beat(1, 1, n, i64::try_from(n * T).expect("small")));
    }
}

#[test]
fn a_suspect_is_well_again_with_its_next_beat() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    machine.go_to(10_000);
    assert!(machine.is_suspect(1));
    assert!(refreshed(&machine.relayed(&beat(1, 1, 2, 10_000))));
    assert!(!machine.is_suspect(1));
}

#[test]
fn a_broken_link_makes_a_node_suspect_at_once_and_never_gone() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    assert!(suspected(&machine.handle(Event::LinkLost(id(1)))));
    assert!(machine.is_live(1));
    assert!(
        machine.handle(Event::LinkLost(id(1))).is_empty(),
        "told once"
    );
    assert_eq!(gone(&machine.go_to(15_150)), Some(Gone::Expired));
}

#[test]
fn a_starved_node_is_well_when_its_link_speaks_again() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    assert!(suspected(&machine.handle(Event::LinkQuiet(id(1)))));
    assert!(well(&machine.handle(Event::LinkLively(id(1)))));
    machine.go_to(10_000);
    assert!(machine.is_suspect(1));
    let speaks = machine.handle(Event::LinkLively(id(1)));
    assert!(!well(&speaks), "silent for too long: its beat will say");
}

#[test]
fn a_peers_suspicion_counts_unless_more_is_known_here() {
    let mut machine = Machine::new();
    machine.relayed(&beat(1, 1, 2, 1));
    assert!(
        machine.handle(suspicion(1, 1, 1)).is_empty(),
        "of an earlier beat"
    );
    assert!(suspected(&machine.handle(suspicion(1, 1, 2))));
    assert!(machine.handle(suspicion(1, 1, 2)).is_empty(), "told once");
    machine.direct(&beat(2, 1, 1, 0));
    assert!(
        machine.handle(suspicion(2, 9, 9)).is_empty(),
        "we hear it ourselves"
    );
    machine.handle(Event::LinkLost(id(2)));
    assert!(machine.is_suspect(2));
}

#[test]
fn what_was_never_heard_of_cannot_be_suspected_lost_or_lively() {
    let mut machine = Machine::new();
    for event in [
        suspicion(1, 1, 1),
        Event::LinkLost(id(1)),
        Event::LinkClosed(id(1)),
        Event::LinkQuiet(id(1)),
        Event::LinkLively(id(1)),
        Event::Again(id(1)),
    ] {
        assert!(machine.handle(event).is_empty());
    }
    assert_eq!(machine.presence.remembered(), 0);
}

#[test]
fn a_revoked_key_is_gone_at_once_and_nothing_of_it_counts_again() {
    let mut machine = Machine::new();
    machine.with_card(&beat(1, 1, 1, 0), card(1, 1));
    assert_eq!(
        gone(&machine.handle(Event::Revoked(id(1)))),
        Some(Gone::Revoked)
    );
    for effects in [
        machine.direct(&beat(1, 2, 1, 0)),
        machine.relayed(&beat(1, 3, 1, 0)),
        machine.handle(Event::Card(card(1, 2))),
    ] {
        assert_eq!(rejected(&effects), Some(Rejected::Revoked));
    }
    machine.go_to(20 * 60_000);
    assert_eq!(
        rejected(&machine.direct(&beat(1, 4, 1, 0))),
        Some(Rejected::Revoked)
    );
    let effects = machine.handle(Event::Revoked(id(1)));
    assert!(effects.is_empty(), "told once");
    // Who revoked it was revoked: it may be granted anew.
    machine.handle(Event::Unbarred(id(1)));
    machine.with_card(&beat(1, 5, 1, 20 * 60_000), card(1, 5));
    assert!(
        machine
            .presence
            .get(&id(1))
            .is_some_and(|seen| seen.is_live())
    );
}

#[test]
fn a_tombstone_is_kept_for_ten_minutes_and_then_forgotten() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    machine.direct(&goodbye(1, 1, 2, 10));
    machine.relayed(&beat(2, 1, 1, -10));
    machine.go_to(599_000);
    assert_eq!(machine.presence.remembered(), 2);
    machine.go_to(631_000);
    assert_eq!(machine.presence.remembered(), 0);
}

#[test]
fn a_node_that_comes_and_goes_all_the_time_costs_no_more_than_one() {
    let mut machine = Machine::new();
    let mut at = 0;
    for round in 0..500 {
        machine.direct(&beat(1, 1, 2 * round, at));
        machine.direct(&goodbye(1, 1, 2 * round + 1, at));
        at += 200;
        machine.go_to(u64::try_from(at).expect("positive"));
    }
    assert_eq!(machine.presence.remembered(), 1);
    machine.direct(&beat(1, 1, 5_000, at));
    let effects = machine.go_to(u64::try_from(at).expect("positive") + 15_200);
    assert_eq!(
        effects
            .iter()
            .filter(|it| matches!(it, Effect::Gone { .. }))
            .count(),
        1
    );
}

#[test]
fn a_link_that_is_closed_in_good_order_leaves_no_doubt_and_no_say() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    assert!(machine.handle(Event::LinkClosed(id(1))).is_empty());
    assert!(!machine.is_suspect(1));
    // It is not heard here any more, so that others know better.
    assert!(suspected(&machine.handle(suspicion(1, 1, 1))));
    machine.direct(&beat(1, 1, 2, 0));
    machine.handle(Event::LinkQuiet(id(1)));
    machine.handle(Event::LinkClosed(id(1)));
    assert!(machine.is_suspect(1), "a doubt that was there stays");
}

#[test]
fn the_time_in_which_an_orchestrator_was_not_run_is_nobodys_silence() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    machine.go_to(4_000);
    machine.now = at(64_000);
    let effects = machine.handle(Event::Tick);
    assert!(effects.is_empty(), "{effects:?}");
    // Its four seconds before count on.
    assert!(!suspected(&machine.go_to(68_950)));
    assert!(suspected(&machine.go_to(69_150)));
    assert!(gone(&machine.go_to(74_950)).is_none());
    assert_eq!(gone(&machine.go_to(75_150)), Some(Gone::Expired));
}

#[test]
fn what_was_made_before_a_stall_is_no_fresher_for_it() {
    let mut machine = Machine::new();
    machine.relayed(&beat(1, 1, 1, 1));
    machine.go_to(1_000);
    machine.now = at(31_000);
    // Read before the first tick, twelve seconds old; and one that is too old.
    machine.relayed(&beat(1, 1, 2, 19_000));
    let late = machine.relayed(&beat(2, 1, 1, 16_000));
    assert_eq!(rejected(&late), Some(Rejected::Stale));
    assert!(gone(&machine.go_to(31_500)).is_none());
    assert!(machine.is_live(1));
    assert!(gone(&machine.go_to(45_200)).is_some());
}

#[test]
fn a_busy_second_is_no_stall() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    for second in 1..=15 {
        machine.now = at(second * 1_000);
        machine.handle(Event::Tick);
    }
    assert!(!machine.is_live(1));
}
