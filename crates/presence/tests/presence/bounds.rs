//! Rule 8: every bound, and one step beyond it. [T-LIV-8]

use crate::support::*;
use tether_presence::{Event, Rejected, Settings};
use tether_wire::{Beat, Role};

fn small() -> Settings {
    Settings {
        max_nodes: 2,
        max_orchestrators: 1,
        max_gateways: 1,
        max_revoked: 1,
    }
}

#[test]
fn one_node_more_than_may_live_is_refused_and_remembered() {
    let mut machine = Machine::with(small());
    machine.direct(&beat(1, 1, 1, 0));
    machine.direct(&beat(2, 1, 1, 0));
    assert_eq!(
        rejected(&machine.direct(&beat(3, 1, 1, 0))),
        Some(Rejected::Full)
    );
    assert!(
        refreshed(&machine.direct(&beat(1, 1, 2, 0))),
        "who is there stays"
    );
    machine.direct(&goodbye(1, 1, 3, 0));
    assert!(
        refreshed(&machine.direct(&beat(3, 1, 2, 0))),
        "room was made"
    );
}

#[test]
fn a_tombstone_is_never_pushed_out_for_a_stranger() {
    let mut machine = Machine::with(small());
    for n in 1..=4 {
        machine.direct(&goodbye(n, 1, 9, 0));
    }
    let stranger = machine.direct(&beat(5, 1, 1, 0));
    assert_eq!(rejected(&stranger), Some(Rejected::Full));
    assert_eq!(machine.presence.remembered(), 4);
    for n in 1..=4 {
        let replayed = machine.relayed(&beat(n, 1, 8, 1));
        assert_eq!(rejected(&replayed), Some(Rejected::Departed));
    }
    assert!(
        refreshed(&machine.direct(&beat(1, 2, 1, 0))),
        "who is known may come back"
    );
}

#[test]
fn old_beats_of_strangers_are_not_even_remembered() {
    let mut machine = Machine::new();
    machine.go_to(120_000);
    for n in 1..=50 {
        let effects = machine.relayed(&beat(n, 1, 1, 60_000));
        assert_eq!(rejected(&effects), Some(Rejected::Stale));
        let effects = machine.direct(&beat(n, 1, 1, 190_000));
        assert_eq!(rejected(&effects), Some(Rejected::Future));
    }
    assert_eq!(machine.presence.remembered(), 0);
}

#[test]
fn one_orchestrator_or_gateway_too_many_gets_no_role() {
    let mut machine = Machine::with(Settings {
        max_nodes: 9,
        ..small()
    });
    let mut n = 0;
    for role in [Role::Orchestrator, Role::Gateway] {
        for fits in [true, false] {
            n += 1;
            let card = role_card(n, 1, role);
            let beat = seal(
                n,
                &Beat {
                    card: card.digest(),
                    ..plain(n, 1, 1, 0)
                },
            );
            let effects = machine.with_card(&beat, card);
            assert_eq!(rejected(&effects) == Some(Rejected::Full), !fits);
            assert_eq!(machine.presence.in_role(role).count(), 1);
        }
    }
    machine.direct(&goodbye(1, 1, 2, 0));
    let retry = machine.handle(Event::Card(role_card(2, 1, Role::Orchestrator)));
    assert!(rejected(&retry).is_none(), "room was made");
}

#[test]
fn one_revocation_too_many_is_said_aloud() {
    let mut machine = Machine::with(small());
    assert!(rejected(&machine.handle(Event::Revoked(id(1)))).is_none());
    assert_eq!(
        rejected(&machine.handle(Event::Revoked(id(2)))),
        Some(Rejected::Full)
    );
}
