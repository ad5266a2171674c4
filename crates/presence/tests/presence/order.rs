//! Rule 2: a node's beats are ordered, and the order never goes back. [T-LIV-1]

use crate::support::*;
use tether_presence::{Gone, Rejected};
use tether_wire::beat::Order;

#[test]
fn a_node_is_live_with_its_first_beat_and_goes_on_with_the_next() {
    let mut machine = Machine::new();
    assert!(refreshed(&machine.direct(&beat(1, 1, 1, 0))));
    machine.go_to(T);
    assert!(refreshed(&machine.direct(&beat(1, 1, 2, 5_000))));
    machine.go_to(2 * T);
    let restarted = beat(1, 2, 1, 10_000);
    assert!(refreshed(&machine.direct(&restarted)), "a restart");
    assert_eq!(machine.presence.live(), 1);
}

#[test]
fn an_order_that_was_seen_or_is_lower_changes_nothing() {
    let mut machine = Machine::new();
    let (first, second) = (beat(1, 2, 1, 0), beat(1, 2, 2, 10));
    machine.direct(&second);
    let replayed = machine.relayed(&second);
    assert_eq!(rejected(&replayed), Some(Rejected::Replayed));
    assert_eq!(rejected(&machine.direct(&first)), Some(Rejected::Reordered));
    let earlier_run = machine.direct(&beat(1, 1, 9, 0));
    assert_eq!(rejected(&earlier_run), Some(Rejected::Reordered));
    let order = machine.seen(1).expect("known").order();
    assert_eq!(order, Order { epoch: 2, seq: 2 });
}

#[test]
fn after_a_goodbye_only_a_later_beat_brings_a_node_back() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    let left = machine.direct(&goodbye(1, 1, 3, 10));
    assert_eq!(gone(&left), Some(Gone::Departed));
    let late = machine.relayed(&beat(1, 1, 2, 5));
    assert_eq!(rejected(&late), Some(Rejected::Departed));
    assert!(!machine.is_live(1));
    assert!(refreshed(&machine.direct(&beat(1, 2, 1, 20))));
}

#[test]
fn a_goodbye_that_overtakes_the_first_beat_keeps_its_node_away() {
    let mut machine = Machine::new();
    machine.relayed(&goodbye(1, 1, 2, 1));
    let late = machine.relayed(&beat(1, 1, 1, 1));
    assert_eq!(rejected(&late), Some(Rejected::Departed));
    assert_eq!(machine.presence.live(), 0);
}

#[test]
fn what_expired_is_not_revived_by_what_it_said_before() {
    let mut machine = Machine::new();
    let recorded = [beat(1, 1, 1, 0), beat(1, 1, 2, 1)];
    machine.direct(&recorded[1]);
    let effects = machine.go_to(16_000);
    assert_eq!(gone(&effects), Some(Gone::Expired));
    for beat in &recorded {
        assert!(!refreshed(&machine.relayed(beat)));
        assert!(!refreshed(&machine.from(beat, relayed(-5_000))));
    }
    assert!(!machine.is_live(1));
    let next = beat(1, 1, 3, 16_000);
    assert!(refreshed(&machine.relayed(&next)), "only a newer one does");
}

#[test]
fn even_a_beat_that_came_too_late_raises_the_floor() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    machine.go_to(10_000);
    machine.direct(&beat(1, 1, 2, 10_000));
    machine.go_to(20_000);
    let held_back = machine.relayed(&beat(1, 1, 5, 4_000));
    assert_eq!(rejected(&held_back), Some(Rejected::Stale));
    assert!(machine.is_live(1), "it changed nothing else");
    assert_eq!(machine.seen(1).expect("known").order().seq, 5);
    let below = machine.relayed(&beat(1, 1, 4, 20_000));
    assert_eq!(rejected(&below), Some(Rejected::Reordered));
}

#[test]
fn no_word_about_clocks_takes_the_force_from_a_goodbye() {
    for first in [true, false] {
        let mut machine = Machine::new();
        let (alive, left) = (beat(1, 1, 1, 5_000), goodbye(1, 1, 2, 5_000));
        if first {
            machine.relayed(&alive);
            assert!(machine.is_live(1));
        }
        // Said to be made 10 s from now.
        machine.from(&left, relayed(-5_000));
        assert!(!refreshed(&machine.relayed(&alive)));
        assert!(!machine.is_live(1));
    }
}

#[test]
fn a_goodbye_is_true_at_any_age() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    machine.go_to(14_000);
    machine.direct(&beat(1, 1, 2, 14_000));
    machine.go_to(28_000);
    let late = machine.relayed(&goodbye(1, 1, 3, 10_000));
    assert_eq!(gone(&late), Some(Gone::Departed));
}
