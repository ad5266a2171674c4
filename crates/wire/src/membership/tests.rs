//! What is taken back stays so, whatever is heard first.

use super::*;
use crate::control::Revocation;
use crate::grant::{Access, MAX_GRANT_LIFE_MS, Role, Tier, chain};
use crate::id::{MeshId, Region};
use crate::invite::MAX_INVITE_LIFE_MS;
use crate::key::NodeKey;
use crate::{Signable, codec};
use std::collections::BTreeSet;

mod rogues;

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}
fn mesh() -> Mesh {
    Mesh {
        id: MeshId(key(1).id().0),
        recovery: Some(key(99).id()),
        access: Access::Invite,
    }
}
fn members() -> Membership {
    Membership::new(mesh())
}
fn seal<T: Signable>(by: &NodeKey, value: &T) -> Signed<T> {
    Signed::seal(by, &mesh().id, value).expect("inside limits")
}
fn bytes<T: Signable>(sealed: &Signed<T>) -> Vec<u8> {
    sealed.as_bytes().to_vec()
}
fn grant(subject: u8, role: Role, serial: u64) -> Grant {
    Grant {
        subject: key(subject).id(),
        role,
        region: Some(Region::new("eu").expect("valid")),
        tier: Tier::Untrusted,
        not_before_ms: NOW,
        expires_ms: NOW + DAY,
        serial,
        issuer: None,
        consent: None,
        invite: None,
    }
}
fn revoke(by: u8, target: Target, keeps_issued: bool) -> Control {
    Control::Revocation(bytes(&seal(
        &key(by),
        &Revocation {
            target,
            keeps_issued,
            reason: String::new(),
            issued_ms: NOW,
            issuer: None,
        },
    )))
}
fn pass_on(parent: &Signed<Grant>, old: u8, new: u8) -> Signed<Grant> {
    chain::pass_on(parent, &key(old), &key(new), &mesh().id, NOW).expect("valid")
}
fn passed_on(sealed: &Signed<Grant>) -> Control {
    Control::Grant(bytes(sealed))
}
fn invite(uses: u32) -> Signed<Invite> {
    seal(
        &key(1),
        &Invite {
            region: Region::new("eu").expect("valid"),
            tier: Tier::Untrusted,
            not_before_ms: NOW,
            expires_ms: NOW + DAY,
            uses,
            grant_life_ms: DAY,
            serial: 50,
            secret: Invite::digest_of(&[7; 32]),
            issuer: None,
        },
    )
}
/// An orchestrator lets `subject` in at this time.
fn let_in(subject: u8, at_ms: u64, uses: u32) -> Signed<Grant> {
    let own = seal(&key(1), &grant(20, Role::Orchestrator, 20));
    let mut it = grant(subject, Role::Worker, u64::from(subject));
    it.not_before_ms = at_ms;
    it.expires_ms = at_ms + 1_000;
    it.issuer = Some(bytes(&own));
    it.invite = Some(bytes(&invite(uses)));
    seal(&key(20), &it)
}
fn good(members: &Membership, sealed: &Signed<Grant>) -> bool {
    members.verify_grant(sealed, NOW).is_ok()
}
fn learn(members: &mut Membership, control: &Control) -> bool {
    members.learn(control, NOW).expect("authorised")
}

#[test]
fn a_grant_holds_from_its_begin_to_its_end() {
    let sealed = seal(&key(1), &grant(5, Role::Worker, 1));
    let at = |now_ms| members().verify_grant(&sealed, now_ms);
    assert!(at(NOW).is_ok() && at(NOW + DAY - 1).is_ok());
    assert!(matches!(at(NOW + DAY), Err(GrantError::Expired { .. })));
    let early = at(NOW - GRANT_SKEW_MS - 1);
    assert!(matches!(early, Err(GrantError::NotYet { .. })));
}

#[test]
fn a_revoked_key_is_barred_and_so_is_what_it_issued() {
    let regional = seal(&key(1), &grant(4, Role::Operator, 1));
    let mut under = grant(5, Role::Worker, 2);
    under.issuer = Some(bytes(&regional));
    let under = seal(&key(4), &under);
    let mut all = members();
    assert!(good(&all, &under));
    let mild = revoke(1, Target::Key(key(4).id()), true);
    assert!(learn(&mut all, &mild));
    assert_eq!(
        all.check_key(&key(4).id()).map_err(|it| it.code),
        Err(RefusalCode::Revoked)
    );
    assert!(good(&all, &under), "the operator said so");
    assert!(!learn(&mut all, &mild), "known");
    assert!(learn(
        &mut all,
        &revoke(99, Target::Key(key(4).id()), false)
    ));
    assert!(!good(&all, &under));
    assert!(
        all.check_key(&key(5).id()).is_ok(),
        "it may be granted anew"
    );
    assert!(!learn(&mut all, &mild), "the stricter one stays");
    assert!(!good(&all, &under));
}

#[test]
fn a_stolen_operators_key_is_revoked_by_the_one_for_recovery() {
    let by_operator = seal(&key(1), &grant(5, Role::Worker, 1));
    let by_recovery = seal(&key(99), &grant(6, Role::Worker, 1));
    let mut all = members();
    assert!(learn(
        &mut all,
        &revoke(99, Target::Key(key(1).id()), false)
    ));
    assert!(!good(&all, &by_operator));
    assert!(good(&all, &by_recovery));
}

#[test]
fn a_grant_is_revoked_by_its_number_and_the_key_may_have_another() {
    let issuer = key(1).id();
    let (one, two) = (
        seal(&key(1), &grant(5, Role::Worker, 1)),
        seal(&key(1), &grant(5, Role::Worker, 2)),
    );
    let passed = pass_on(&one, 5, 6);
    let mut all = members();
    learn(
        &mut all,
        &revoke(1, Target::Serial { issuer, serial: 1 }, false),
    );
    assert!(!good(&all, &one) && good(&all, &two));
    assert!(!good(&all, &passed), "what rests on it falls with it");
}

#[test]
fn a_replaced_key_is_barred_and_its_heir_is_not() {
    let own = seal(&key(1), &grant(5, Role::Worker, 1));
    let passed = pass_on(&own, 5, 6);
    let mut all = members();
    assert!(learn(&mut all, &passed_on(&passed)));
    assert!(!learn(&mut all, &passed_on(&passed)));
    let why = all.check_key(&key(5).id()).expect_err("replaced").message;
    assert!(why.contains(&key(6).id().to_hex()), "{why}");
    assert!(good(&all, &passed) && all.check_key(&key(6).id()).is_ok());
    // Revoking a key revokes what it was passed on to.
    learn(&mut all, &revoke(1, Target::Key(key(5).id()), false));
    assert!(!good(&all, &passed));
}

#[test]
fn of_two_heirs_none_counts() {
    let own = seal(&key(1), &grant(5, Role::Worker, 1));
    let (thief, owner) = (pass_on(&own, 5, 6), pass_on(&own, 5, 7));
    for order in [[&thief, &owner], [&owner, &thief]] {
        let mut all = members();
        assert!(order.map(|it| learn(&mut all, &passed_on(it))) == [true, true]);
        assert!(!good(&all, &thief) && !good(&all, &owner));
        let third = pass_on(&own, 5, 8);
        learn(&mut all, &passed_on(&third));
        assert!(!good(&all, &third) && all.counts() == [0, 3, 0]);
    }
}

#[test]
fn a_key_that_was_passed_on_twice_cannot_be_hidden_behind_others() {
    let own = seal(&key(1), &grant(5, Role::Worker, 1));
    let owners = pass_on(&own, 5, 6);
    let mut all = members();
    learn(&mut all, &passed_on(&owners));
    // A thief of the first key passes it on, and what it made of it on and on.
    for n in 100..160 {
        let thiefs = pass_on(&pass_on(&own, 5, n), n, n + 60);
        learn(&mut all, &passed_on(&thiefs));
        assert!(!good(&all, &thiefs) && !good(&all, &owners));
    }
    assert_eq!(all.counts(), [0, MAX_REPLACED_OF_KEY, 0]);
    assert!(all.check_key(&key(5).id()).is_err());
}

#[test]
fn what_is_over_is_forgotten_and_takes_no_room_again() {
    let mut all = members();
    let passed = passed_on(&pass_on(&seal(&key(1), &grant(5, Role::Worker, 1)), 5, 6));
    let came = passed_on(&let_in(30, NOW, 2));
    let revoked = revoke(1, Target::Key(key(7).id()), false);
    for control in [&passed, &came, &revoked] {
        assert!(learn(&mut all, control));
    }
    // The invite lasts a day, and the grants that are given for it another.
    let over = NOW + 2 * DAY + GRANT_SKEW_MS;
    assert_eq!(all.forget(over - 1), []);
    let gone = all.forget(over);
    assert!(matches!(gone[..], [Fact::Used { .. }]), "{gone:?}");
    assert_eq!(all.learn(&came, over), Ok(false));
    // The grant lasts a day; another one of the old key may begin before that, and last for two years.
    let over = NOW + DAY + MAX_INVITE_LIFE_MS + MAX_GRANT_LIFE_MS + GRANT_SKEW_MS;
    assert_eq!(all.forget(over - 1), []);
    let gone = all.forget(over);
    assert!(matches!(gone[..], [Fact::Replaced { .. }]), "{gone:?}");
    assert!(
        all.check_key(&key(5).id()).is_ok(),
        "it may be granted anew"
    );
    assert_eq!(all.learn(&passed, over), Ok(false));
    assert_eq!(all.forget(u64::MAX), []);
    assert_eq!(all.counts(), [1, 0, 0], "what was revoked stays so");
}

#[test]
fn what_a_stolen_operators_key_revoked_counts_no_more_once_it_is_revoked() {
    let by_recovery = seal(&key(99), &grant(6, Role::Worker, 1));
    let by_thief = revoke(1, Target::Key(key(6).id()), false);
    let also_recoverys = revoke(99, Target::Key(key(8).id()), false);
    let end = revoke(99, Target::Key(key(1).id()), false);
    let own = seal(&key(1), &grant(5, Role::Worker, 1));
    let passed = passed_on(&pass_on(&own, 5, 7));
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let mut all = members();
        for n in order {
            learn(&mut all, [&by_thief, &also_recoverys, &end, &passed][n]);
        }
        assert!(all.check_key(&key(6).id()).is_ok() && good(&all, &by_recovery));
        assert!(
            all.check_key(&key(5).id()).is_ok(),
            "and may be granted anew"
        );
        assert!(all.check_key(&key(8).id()).is_err());
        assert!(all.check_key(&key(1).id()).is_err());
        assert_eq!(all.counts(), [2, 0, 0]);
    }
    // One that was replaced in peace leaves what it did.
    let mut all = members();
    learn(&mut all, &by_thief);
    learn(&mut all, &revoke(99, Target::Key(key(1).id()), true));
    assert!(all.check_key(&key(6).id()).is_err());
}

/// All facts that matter, whatever order they came in.
fn facts(controls: &[Control]) -> BTreeSet<Fact> {
    let (mut all, mut held) = (members(), BTreeSet::new());
    for control in controls {
        for checked in all.check(control).expect("authorised") {
            if let Some(gone) = all.apply(&checked, NOW).expect("room") {
                held.insert(*checked.fact());
                for fact in gone {
                    assert!(held.remove(&fact), "{fact:?} was not held");
                }
            }
        }
    }
    held
}

#[test]
fn the_facts_that_matter_do_not_depend_on_the_order_in_which_they_came() {
    let own = seal(&key(1), &grant(5, Role::Worker, 1));
    let passed = pass_on(&own, 5, 6);
    let mut controls = vec![
        revoke(1, Target::Key(key(4).id()), true),
        revoke(99, Target::Key(key(4).id()), true),
        revoke(1, Target::Key(key(4).id()), false),
        passed_on(&passed),
        passed_on(&pass_on(&passed, 6, 7)),
        passed_on(&pass_on(&own, 5, 8)),
        passed_on(&pass_on(&own, 5, 9)),
        passed_on(&let_in(30, NOW + 4, 2)),
        passed_on(&let_in(30, NOW + 2, 2)),
        passed_on(&let_in(31, NOW + 3, 2)),
        passed_on(&let_in(32, NOW + 1, 2)),
    ];
    let all = facts(&controls);
    assert_eq!(all.len(), 2 + 4 + 2, "{all:#?}");
    let mut random = 1u64;
    for _ in 0..200 {
        for n in (1..controls.len()).rev() {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            controls.swap(n, usize::try_from(random >> 33).expect("small") % (n + 1));
        }
        assert_eq!(facts(&controls), all);
    }
}

#[test]
fn a_plain_grant_is_nothing_to_pass_on() {
    let plain = passed_on(&seal(&key(1), &grant(5, Role::Worker, 1)));
    assert!(matches!(
        members().learn(&plain, NOW),
        Err(ControlError::Plain(_))
    ));
    let forged = Control::Grant(vec![1; 200]);
    assert!(matches!(
        members().learn(&forged, NOW),
        Err(ControlError::Unauthorised(_))
    ));
    let stranger = revoke(5, Target::Key(key(6).id()), false);
    assert!(members().learn(&stranger, NOW).is_err());
}

#[test]
fn an_invite_lets_in_as_many_as_it_says_and_all_agree_who() {
    let came: Vec<_> = (30..34).map(|n| let_in(n, NOW + u64::from(n), 2)).collect();
    // In any order: the first two by time are in.
    let orders: [[usize; 4]; 4] = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]];
    for order in orders {
        let mut all = members();
        for n in order {
            learn(&mut all, &passed_on(&came[n]));
        }
        let now_ms = NOW + 40;
        let holds = |n: usize| all.verify_grant(&came[n], now_ms).is_ok();
        assert_eq!(
            [holds(0), holds(1), holds(2), holds(3)],
            [true, true, false, false],
            "{order:?}"
        );
        let ask = |subject: u8| all.verify_invite(&invite(2), &key(subject).id(), now_ms);
        assert!(ask(40).is_err(), "its places are given");
        assert!(ask(30).is_ok(), "who is in may ask again");
    }
}

#[test]
fn who_asks_twice_takes_one_place() {
    let mut all = members();
    assert!(learn(&mut all, &passed_on(&let_in(30, NOW + 5, 2))));
    assert!(!learn(&mut all, &passed_on(&let_in(30, NOW + 9, 2))));
    assert!(learn(&mut all, &passed_on(&let_in(30, NOW + 3, 2))));
    assert_eq!(all.counts(), [0, 0, 1]);
    let again = let_in(30, NOW + 9, 2);
    assert!(all.verify_grant(&again, NOW + 9).is_ok());
    assert!(learn(&mut all, &passed_on(&let_in(31, NOW + 8, 2))));
    assert_eq!(all.counts(), [0, 0, 2]);
}

#[test]
fn a_revoked_or_ended_invite_lets_nobody_in() {
    let mut all = members();
    let came = let_in(30, NOW, 5);
    let ask = |all: &Membership, now_ms| all.verify_invite(&invite(5), &key(31).id(), now_ms);
    assert!(ask(&all, NOW).is_ok());
    assert!(matches!(
        ask(&all, NOW + DAY),
        Err(GrantError::Expired { .. })
    ));
    assert!(matches!(
        ask(&all, NOW - GRANT_SKEW_MS - 1),
        Err(GrantError::NotYet { .. })
    ));
    let issuer = key(1).id();
    learn(
        &mut all,
        &revoke(1, Target::Serial { issuer, serial: 50 }, false),
    );
    assert!(ask(&all, NOW).is_err());
    assert!(!good(&all, &came), "those who came by it fall too");
}

#[test]
fn a_list_of_keys_is_all_that_counts_where_there_is_one() {
    let mut all = members();
    all.allow_only(Some(HashSet::from([key(5).id()])));
    assert!(all.check_key(&key(5).id()).is_ok());
    let refused = all.check_key(&key(6).id()).expect_err("not listed");
    assert_eq!(refused.code, RefusalCode::UnknownKey);
    learn(&mut all, &revoke(1, Target::Key(key(5).id()), false));
    assert!(all.check_key(&key(5).id()).is_err(), "revoked all the same");
    all.allow_only(None);
    assert!(all.check_key(&key(6).id()).is_ok());
}

#[test]
fn nobody_takes_the_room_for_anothers_revocations() {
    let mut revoked = Revoked::new(&mesh());
    let mut revoke = |by: NodeId, serial| {
        let target = Target::Serial { issuer: by, serial };
        let basis = Basis {
            owner: Some(by),
            signers: Arc::new([by]),
            ends_ms: u64::MAX,
        };
        revoked.learn(by, target, false, &basis)
    };
    let serials = MAX_REVOKED_BY_ONE as u64;
    for n in 0..=(MAX_REVOKED_IN_REGIONS / MAX_REVOKED_BY_ONE) as u64 {
        let by = NodeId([u8::try_from(n).expect("few"); 32]);
        for serial in 0..serials {
            let is_full = n * serials + serial >= MAX_REVOKED_IN_REGIONS as u64;
            assert_eq!(revoke(by, serial).is_err(), is_full, "{n} {serial}");
        }
    }
    // Nor does a thief of the operator's first key that of the one for recovery.
    for root in [key(1).id(), key(99).id()] {
        for serial in 0..MAX_REVOKED as u64 {
            assert!(revoke(root, serial).is_ok());
        }
        assert!(revoke(root, u64::MAX).is_err());
    }
}

#[test]
fn one_operator_of_a_region_cannot_fill_the_set() {
    let own = bytes(&seal(&key(1), &grant(4, Role::Operator, 1)));
    let mut all = members();
    let mut by = |signer: u8, serial| {
        let issuer = key(4).id();
        let it = Revocation {
            target: Target::Serial { issuer, serial },
            keeps_issued: false,
            reason: String::new(),
            issued_ms: NOW,
            issuer: Some(own.clone()),
        };
        all.learn(&Control::Revocation(bytes(&seal(&key(signer), &it))), NOW)
    };
    for serial in 0..MAX_REVOKED_BY_ONE as u64 {
        assert_eq!(by(4, serial), Ok(true));
    }
    let beyond = MAX_REVOKED_BY_ONE as u64;
    assert!(matches!(by(4, beyond), Err(ControlError::Full { .. })));
    assert_eq!(by(4, 0), Ok(false), "known ones are no error");
    assert_eq!(by(1, beyond), Ok(true), "the mesh's operator may");
}

#[test]
fn the_largest_control_messages_fit_their_limit() {
    let mut sealed = let_in(30, NOW, 2);
    for n in 0..4 {
        sealed = pass_on(&sealed, 30 + n, 31 + n);
    }
    let encoded = codec::encode(&passed_on(&sealed));
    assert!(
        encoded.len() < crate::control::MAX_CONTROL_BYTES,
        "{} bytes",
        encoded.len()
    );
    members().verify_grant(&sealed, NOW).expect("it holds");
}
