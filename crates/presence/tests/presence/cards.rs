//! Rule 7: no role without a card, no card without a grant. [T-LIV-7], [T-CRD-4]

use crate::support::*;
use tether_presence::admission::admit;
use tether_presence::{AdmittedCard, Effect, Event, Gone, Rejected};
use tether_wire::control::Target;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{
    Beat, Card, Control, Grant, Membership, Region, Revocation, Role, Signed, Tier, Verified,
};

fn wanted(effects: &[Effect]) -> bool {
    (effects.iter()).any(|effect| matches!(effect, Effect::WantCard { .. }))
}
fn carded(effects: &[Effect]) -> bool {
    (effects.iter()).any(|effect| matches!(effect, Effect::Carded(_)))
}

/// A beat that names the worker's card of this revision.
fn naming(n: u8, seq: u64, revision: u64) -> Verified<Beat> {
    let card = card(n, revision).digest();
    seal(
        n,
        &Beat {
            card,
            ..plain(n, 1, seq, 0)
        },
    )
}

#[test]
fn without_its_card_a_node_lives_but_has_no_role() {
    let mut machine = Machine::new();
    assert!(wanted(&machine.direct(&beat(1, 1, 1, 0))));
    let seen = machine.seen(1).expect("known");
    assert!(seen.is_live() && !seen.is_routable() && seen.role().is_none());
    assert!(carded(&machine.handle(Event::Card(card(1, 1)))));
    let seen = machine.seen(1).expect("known");
    assert!(seen.is_routable());
    assert_eq!(
        (seen.role(), seen.tier()),
        (Some(Role::Worker), Some(Tier::Untrusted))
    );
    assert!(
        machine.handle(Event::Card(card(1, 1))).is_empty(),
        "told once"
    );
}

#[test]
fn a_push_with_beat_and_card_asks_for_nothing() {
    let mut machine = Machine::new();
    let effects = machine.with_card(&beat(1, 1, 1, 0), card(1, 1));
    assert!(carded(&effects) && refreshed(&effects) && !wanted(&effects));
}

#[test]
fn only_the_card_that_the_last_beat_names_counts() {
    let mut machine = Machine::new();
    machine.with_card(&naming(1, 1, 1), card(1, 1));
    let early = machine.handle(Event::Card(card(1, 2)));
    assert_eq!(rejected(&early), Some(Rejected::Unnamed));
    assert!(wanted(&machine.direct(&naming(1, 2, 2))));
    assert!(
        !machine.seen(1).expect("known").is_routable(),
        "what it offers is not known"
    );
    let old = machine.handle(Event::Card(card(1, 1)));
    assert!(!carded(&old));
    assert!(carded(&machine.handle(Event::Card(card(1, 2)))));
    let nobodys = machine.handle(Event::Card(card(2, 1)));
    assert_eq!(rejected(&nobodys), Some(Rejected::Unnamed));
}

#[test]
fn who_is_gone_needs_its_card_anew() {
    let mut machine = Machine::new();
    machine.with_card(&beat(1, 1, 1, 0), card(1, 1));
    machine.go_to(16_000);
    assert!(!machine.is_live(1));
    let late = machine.handle(Event::Card(card(1, 1)));
    assert_eq!(rejected(&late), Some(Rejected::Unnamed));
    assert!(wanted(&machine.direct(&beat(1, 1, 2, 16_000))));
}

#[test]
fn a_grant_that_ends_while_its_node_lives_makes_it_gone() {
    let mut machine = Machine::new();
    let card = card(1, 1);
    let until = Some(START + 3_000);
    let granted = AdmittedCard::new(card.card().clone(), Tier::Trusted, until);
    machine.with_card(&beat(1, 1, 1, 0), Box::new(granted.clone()));
    assert!(gone(&machine.go_to(2_900)).is_none());
    assert_eq!(gone(&machine.go_to(3_200)), Some(Gone::Ungranted));
    machine.direct(&beat(1, 1, 2, 3_200));
    let again = machine.handle(Event::Card(Box::new(granted)));
    assert_eq!(rejected(&again), Some(Rejected::Ungranted));
    assert!(!machine.seen(1).expect("known").is_routable());
}

fn open() -> Membership {
    Membership::new(mesh())
}

fn private() -> Membership {
    Membership::new(Mesh {
        access: Access::Invite,
        ..mesh()
    })
}

fn with_grant(change: impl FnOnce(&mut Grant)) -> Verified<Card> {
    let mut grant = Grant {
        subject: id(1),
        role: Role::Worker,
        region: Some(Region::new("eu").expect("valid")),
        tier: Tier::Trusted,
        not_before_ms: START,
        expires_ms: START + 60_000,
        serial: 1,
        issuer: None,
        consent: None,
        invite: None,
    };
    change(&mut grant);
    let grant = Signed::seal(&key(255), &mesh().id, &grant).expect("inside its limits");
    let grant = Some(grant.as_bytes().to_vec());
    let card = Card {
        grant,
        ..card_in(1, 1, Role::Worker)
    };
    let sealed = Signed::seal(&key(1), &mesh().id, &card).expect("inside its limits");
    sealed.verify(&mesh().id).expect("valid")
}

#[test]
fn a_card_is_admitted_by_its_grant_alone() {
    let good = admit(&private(), with_grant(|_| ()), START).expect("granted");
    assert_eq!(
        (good.tier(), good.until_ms()),
        (Tier::Trusted, START + 60_000)
    );
    let refused = |change: fn(&mut Grant)| admit(&private(), with_grant(change), START).err();
    assert_eq!(refused(|g| g.subject = id(2)), Some(Rejected::WrongGrant));
    assert_eq!(
        refused(|g| g.role = Role::Gateway),
        Some(Rejected::WrongGrant)
    );
    assert_eq!(
        refused(|g| g.region = Some(Region::new("us").expect("valid"))),
        Some(Rejected::WrongGrant)
    );
    let later = admit(&private(), with_grant(|_| ()), START + 60_000);
    assert_eq!(later.err(), Some(Rejected::Ungranted));
}

#[test]
fn only_a_worker_of_an_open_mesh_needs_no_grant_and_it_is_untrusted() {
    let card = |role| sealed_card(1, 1, role).verify(&mesh().id).expect("valid");
    let admitted = admit(&open(), card(Role::Worker), START).expect("open");
    assert_eq!(admitted.tier(), Tier::Untrusted);
    for refused in [
        admit(&open(), card(Role::Orchestrator), START),
        admit(&private(), card(Role::Worker), START),
    ] {
        assert_eq!(refused.err(), Some(Rejected::Ungranted));
    }
}

#[test]
fn a_card_is_refused_once_its_key_or_its_grant_is_revoked() {
    let issuer = mesh().id.operator();
    for target in [Target::Key(id(1)), Target::Serial { issuer, serial: 1 }] {
        let revocation = Revocation {
            target,
            keeps_issued: false,
            reason: String::new(),
            issued_ms: START,
            issuer: None,
        };
        let sealed = Signed::seal(&key(255), &mesh().id, &revocation).expect("valid");
        let mut members = private();
        let control = Control::Revocation(sealed.as_bytes().to_vec());
        assert_eq!(members.learn(&control, START), Ok(true));
        let refused = admit(&members, with_grant(|_| ()), START).err();
        assert_eq!(refused, Some(Rejected::Revoked), "{target:?}");
    }
}

#[test]
fn a_node_whose_grant_is_revoked_is_gone_and_may_come_with_another() {
    let mut machine = Machine::new();
    machine.with_card(&naming(1, 1, 1), card(1, 1));
    let gone = machine.handle(Event::GrantRevoked(id(1)));
    assert!(matches!(
        gone[..],
        [Effect::Gone {
            how: Gone::Revoked,
            ..
        }]
    ));
    assert!(machine.handle(Event::GrantRevoked(id(1))).is_empty());
    assert!(!machine.seen(1).expect("remembered").is_live());
    let back = machine.with_card(&naming(1, 2, 2), card(1, 2));
    assert!(carded(&back) && machine.seen(1).expect("known").is_routable());
}
