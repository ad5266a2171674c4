//! Rule 6: two processes of one key. [T-LIV-6]

use crate::support::*;
use tether_presence::{Effect, Rejected};
use tether_wire::Beat;

fn clones(effects: &[Effect]) -> Vec<(u64, u64)> {
    (effects.iter())
        .filter_map(|effect| match effect {
            Effect::Clone { epoch, other, .. } => Some((*epoch, *other)),
            _ => None,
        })
        .collect()
}

#[test]
fn of_two_clones_the_higher_epoch_wins_and_both_are_reported_once_a_minute() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    machine.direct(&beat(1, 2, 1, 0));
    let mut reports = Vec::new();
    for n in 1..=26u64 {
        machine.go_to(n * T);
        let at = i64::try_from(n * T).expect("small");
        machine.direct(&beat(1, 2, 1 + n, at));
        let effects = machine.direct(&beat(1, 1, 1 + n, at));
        if n > 2 {
            assert_eq!(rejected(&effects), Some(Rejected::Cloned), "{n}");
        }
        reports.extend(clones(&effects));
    }
    assert_eq!(reports, [(2, 1), (2, 1)], "within 130 s");
    assert_eq!(machine.seen(1).expect("known").order().epoch, 2);
}

#[test]
fn a_straggler_of_the_run_before_is_no_clone() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    machine.go_to(1_000);
    machine.direct(&beat(1, 2, 1, 1_000));
    for at in [500, 1_000, 10_900] {
        let effects = machine.relayed(&beat(1, 1, 2, at - 5_000));
        assert_eq!(rejected(&effects), Some(Rejected::Reordered));
        assert!(clones(&effects).is_empty());
    }
}

#[test]
fn two_different_beats_of_one_order_are_two_processes() {
    let mut machine = Machine::new();
    machine.direct(&beat(1, 1, 1, 0));
    let nonce = [8; 16];
    let other = seal(
        1,
        &Beat {
            nonce,
            ..plain(1, 1, 1, 0)
        },
    );
    let effects = machine.direct(&other);
    assert_eq!(clones(&effects), [(1, 1)]);
    assert_eq!(rejected(&effects), Some(Rejected::Cloned));
}
