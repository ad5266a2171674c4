//! Rules 1, 3: freshness counts from the issue, with measured skew, within a stated bound.
//! [T-LIV-2] to [T-LIV-4]

use crate::support::*;
use tether_presence::{Effect, Event, Gone, Rejected, Standing};

#[test]
fn a_relayed_beat_expires_from_when_it_was_made_not_from_when_it_came() {
    let mut machine = Machine::new();
    machine.go_to(10_000);
    assert!(refreshed(&machine.relayed(&beat(1, 1, 1, 1_000))));
    assert!(gone(&machine.go_to(15_900)).is_none());
    assert_eq!(gone(&machine.go_to(16_200)), Some(Gone::Expired));
}

#[test]
fn a_relayed_beat_as_old_as_silence_may_be_is_stale_and_a_millisecond_younger_is_not() {
    for (age, stale) in [(14_999, false), (15_000, true)] {
        let mut machine = Machine::new();
        machine.go_to(20_000);
        let effects = machine.relayed(&beat(1, 1, 1, 20_000 - age));
        assert_eq!(rejected(&effects) == Some(Rejected::Stale), stale, "{age}");
        assert_eq!(machine.is_live(1), !stale, "{age}");
    }
}

#[test]
fn a_beat_dated_ahead_within_the_bound_lives_and_beyond_it_is_dropped() {
    for (ahead, future) in [(5_000, false), (5_001, true)] {
        let mut machine = Machine::new();
        for origin in [tether_presence::Origin::Direct, relayed(0)] {
            let n = if origin == relayed(0) { 1 } else { 2 };
            let effects = machine.from(&beat(n, 1, 1, ahead), origin);
            assert_eq!(rejected(&effects) == Some(Rejected::Future), future);
            assert_eq!(machine.is_live(n), !future);
        }
    }
}

#[test]
fn on_its_own_link_a_node_is_heard_now_though_its_clock_is_behind() {
    for (behind, stale) in [(19_999, false), (20_000, true)] {
        let mut machine = Machine::new();
        machine.go_to(30_000);
        let effects = machine.direct(&beat(1, 1, 1, 30_000 - behind));
        assert_eq!(rejected(&effects) == Some(Rejected::Stale), stale);
        if !stale {
            assert!(gone(&machine.go_to(44_900)).is_none());
            assert_eq!(gone(&machine.go_to(45_200)), Some(Gone::Expired));
        }
    }
}

#[test]
fn a_measured_skew_makes_a_relayed_beat_as_old_as_it_is() {
    let mut slow = Machine::new();
    slow.go_to(30_000);
    // Made 3 s ago by a clock that is 5 s behind.
    assert!(refreshed(
        &slow.from(&beat(1, 1, 1, 22_000), relayed(-5_000))
    ));
    assert!(gone(&slow.go_to(41_900)).is_none());
    assert_eq!(gone(&slow.go_to(42_200)), Some(Gone::Expired));
    let mut fast = Machine::new();
    fast.go_to(30_000);
    // Made 3 s ago by a clock that is 5 s ahead.
    assert!(refreshed(
        &fast.from(&beat(1, 1, 1, 32_000), relayed(5_000))
    ));
    assert!(gone(&fast.go_to(41_900)).is_none());
    assert_eq!(gone(&fast.go_to(42_200)), Some(Gone::Expired));
}

#[test]
fn whatever_a_peer_says_of_a_clock_is_believed_within_the_bound_only() {
    let mut machine = Machine::new();
    machine.go_to(30_000);
    let old = beat(1, 1, 1, 10_000);
    let effects = machine.from(&old, relayed(i32::MIN));
    assert_eq!(rejected(&effects), Some(Rejected::Stale), "20 s less 5 s");
    let effects = machine.from(&beat(2, 1, 1, 10_001), relayed(i32::MIN));
    assert!(refreshed(&effects));
    assert_eq!(gone(&machine.go_to(30_200)), Some(Gone::Expired));
}

#[test]
fn the_skew_of_a_node_is_what_its_least_delayed_beats_show() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 3_000));
    assert_eq!(machine.seen(1).expect("known").ahead_ms(), 3_000);
    machine.go_to(T);
    // Delayed by a second on its way: the clock did not move.
    machine.direct(&beat(1, 1, 2, 7_000));
    let after_delay = machine.seen(1).expect("known").ahead_ms();
    assert!((2_700..3_000).contains(&after_delay), "{after_delay}");
    machine.go_to(2 * T);
    machine.direct(&beat(1, 1, 3, 13_000));
    assert_eq!(machine.seen(1).expect("known").ahead_ms(), 3_000);
    // Set back: followed within some beats.
    for n in 3..30 {
        machine.go_to(n * T);
        machine.direct(&beat(1, 1, n + 1, i64::try_from(n * T).expect("small")));
    }
    let ahead = machine.seen(1).expect("known").ahead_ms();
    assert!((0..100).contains(&ahead), "{ahead}");
}

#[test]
fn a_recording_played_to_a_machine_that_just_started_revives_nobody() {
    let mut machine = Machine::new();
    let recording: Vec<_> = (1..=6)
        .map(|seq| beat(1, 1, seq, -1_000 * (7 - i64::try_from(seq).expect("small"))))
        .collect();
    for beat in recording.iter().rev().chain(&recording) {
        for ahead in [0, 5_000, -5_000, i32::MIN] {
            assert!(!refreshed(&machine.from(beat, relayed(ahead))));
        }
    }
    assert_eq!(machine.presence.live(), 0);
    assert_eq!(
        machine.seen(1).expect("remembered").standing(),
        Standing::Unproven
    );
    let unproven = machine.relayed(&beat(2, 1, 1, 0));
    assert_eq!(rejected(&unproven), Some(Rejected::Unproven));
}

#[test]
fn the_next_beat_of_a_node_that_is_unproven_makes_it_live() {
    let mut machine = Machine::new();
    machine.relayed(&beat(1, 1, 1, -1_000));
    machine.relayed(&beat(2, 1, 1, -1_000));
    machine.go_to(4_000);
    assert!(refreshed(&machine.relayed(&beat(1, 1, 2, 4_000))));
    assert!(
        refreshed(&machine.direct(&beat(2, 1, 2, -500))),
        "its own link proves it"
    );
}

#[test]
fn a_beat_heard_again_on_its_own_link_keeps_its_node_alive() {
    let mut machine = Machine::new();
    machine.relayed(&beat(1, 1, 1, 1));
    machine.go_to(8_000);
    machine.handle(Event::Again(id(1)));
    assert!(gone(&machine.go_to(22_900)).is_none());
    assert_eq!(gone(&machine.go_to(23_200)), Some(Gone::Expired));
    let late = machine.handle(Event::Again(id(1)));
    assert!(late.is_empty(), "who is gone wants a newer beat");
}

#[test]
fn setting_this_machines_clock_expires_nobody() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    machine.now.unix_ms += 3_600_000;
    assert!(gone(&machine.handle(Event::Tick)).is_none());
    let effects = machine.go_to(8_000);
    assert!(!effects.iter().any(|it| matches!(it, Effect::Gone { .. })));
}
