//! Members who use all that their grants allow against the others.

use super::*;
use crate::id::Digest;

fn nth(n: u32) -> NodeKey {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    NodeKey::from_seed(seed)
}

/// An orchestrator with the grant `own` lets this worker in, by this invite.
fn lets_in(
    own: &Signed<Grant>,
    by: &NodeKey,
    worker: &NodeKey,
    at_ms: u64,
    uses: u32,
) -> Signed<Grant> {
    let grant = Grant {
        subject: worker.id(),
        not_before_ms: at_ms,
        expires_ms: at_ms + DAY / 2,
        issuer: Some(bytes(own)),
        invite: Some(bytes(&wide_invite(uses))),
        ..grant(0, Role::Worker, 1)
    };
    seal(by, &grant)
}

fn wide_invite(uses: u32) -> Signed<Invite> {
    seal(
        &key(99),
        &Invite {
            expires_ms: NOW + 30 * DAY,
            ..(invite(uses).verify(&mesh().id).expect("valid")).into_inner()
        },
    )
}

#[test]
fn an_orchestrator_and_all_its_keys_take_no_room_from_others() {
    let mut all = members();
    let honest = seal(&key(99), &grant(20, Role::Orchestrator, 20));
    let joined = lets_in(&honest, &key(20), &key(30), NOW, 10_000);
    let passed = pass_on(&joined, 30, 31);
    assert!(learn(&mut all, &passed_on(&passed)));
    // It passes its grant on to many, each of which lets many in, who all pass theirs on.
    let own = seal(&key(1), &grant(21, Role::Orchestrator, 21));
    let mut n = 0;
    for _ in 0..20 {
        n += 1;
        let (heir, at) = (nth(n), NOW);
        let heirs = chain::pass_on(&own, &key(21), &heir, &mesh().id, NOW).expect("valid");
        for _ in 0..150 {
            n += 2;
            let [worker, next] = [nth(n), nth(n + 1)];
            let grant = lets_in(&heirs, &heir, &worker, at, 10_000);
            let passed = chain::pass_on(&grant, &worker, &next, &mesh().id, NOW).expect("valid");
            learn(&mut all, &passed_on(&passed));
        }
    }
    let [_, replaced, _] = all.counts();
    assert_eq!(replaced, 1 + MAX_REPLACED_OF_KEY + 20 * 150);
    assert!(all.check_key(&key(30).id()).is_err() && good(&all, &passed));
    // It falls with all that its heirs did.
    learn(&mut all, &revoke(1, Target::Key(key(21).id()), false));
    assert_eq!(all.counts(), [1, 1 + MAX_REPLACED_OF_KEY, 1]);
}

#[test]
fn a_worker_that_joins_again_and_again_takes_no_room_from_others() {
    let mut all = members();
    let own = seal(&key(99), &grant(20, Role::Orchestrator, 20));
    for n in 0..40 {
        let joined = lets_in(&own, &key(20), &key(30), NOW + n, 10_000);
        let passed = pass_on(&joined, 30, 31);
        learn(&mut all, &passed_on(&pass_on(&passed, 31, 32)));
        assert_eq!(all.counts(), [0, 2, 1], "to the same keys, so nothing new");
    }
    for n in 40..80 {
        let joined = lets_in(&own, &key(20), &key(30), NOW, 10_000);
        learn(&mut all, &passed_on(&pass_on(&joined, 30, n)));
    }
    assert_eq!(all.counts(), [0, MAX_REPLACED_OF_KEY, 1]);
}

#[test]
fn who_has_little_keeps_it_when_its_orchestrators_share_is_full() {
    let mut heirs = Heirs::new();
    let owner = key(20).id();
    let basis = Basis {
        owner: Some(owner),
        signers: Arc::new([owner]),
        ends_ms: u64::MAX,
    };
    let mut learn = |first: NodeId, new: NodeId| {
        let group = shelf::Group {
            name: Digest(first.0),
            owner: Some(owner),
            most: MAX_REPLACED_OF_KEY,
        };
        heirs.learn(&group, (0, first, new), &basis)
    };
    let nth = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    };
    let honest = NodeId([255; 32]);
    assert_eq!(learn(honest, nth(1)), Ok(Some(Vec::new())));
    for first in 0..4_096 {
        for new in 0..8 {
            let _ = learn(nth(first), nth(1 << 30 | new));
        }
    }
    assert_eq!(heirs.of(&honest), Some(Heir::By(nth(1))));
    assert_eq!(heirs.len(), MAX_REPLACED_BY_ONE);
}

#[test]
fn an_operator_of_a_region_and_all_its_keys_leave_room_for_others_revocations() {
    let mut all = members();
    let regional = |of: u8, by: u8| seal(&key(by), &grant(of, Role::Operator, u64::from(of)));
    let revokes = |by: &NodeKey, own: &Signed<Grant>, serial| {
        let it = Revocation {
            target: Target::Serial {
                issuer: by.id(),
                serial,
            },
            keeps_issued: false,
            reason: String::new(),
            issued_ms: NOW,
            issuer: Some(bytes(own)),
        };
        Control::Revocation(bytes(&seal(by, &it)))
    };
    let own = regional(40, 1);
    for n in 0..2 {
        let heir = nth(n);
        let heirs = chain::pass_on(&own, &key(40), &heir, &mesh().id, NOW).expect("valid");
        for serial in 0..600 {
            let taken = all.learn(&revokes(&heir, &heirs, serial), NOW);
            let is_full = u64::from(n) * 600 + serial >= MAX_REVOKED_BY_ONE as u64;
            assert_eq!(taken.is_err(), is_full, "{n} {serial}");
        }
    }
    let honest = regional(41, 99);
    assert!(learn(&mut all, &revokes(&key(41), &honest, 7)));
    // Its own fall with the key that made it operator, and those of the honest one do not.
    learn(&mut all, &revoke(99, Target::Key(key(1).id()), false));
    assert_eq!(all.counts(), [2, 0, 0]);
    assert!(!learn(&mut all, &revokes(&key(40), &own, 9)));
}

#[test]
fn a_stolen_key_stays_replaced_for_as_long_as_it_could_come_by_its_invite_again() {
    let mut all = members();
    let own = seal(
        &key(1),
        &Grant {
            expires_ms: NOW + 60 * DAY,
            ..grant(20, Role::Orchestrator, 20)
        },
    );
    let joined = lets_in(&own, &key(20), &key(30), NOW, 10_000);
    learn(&mut all, &passed_on(&pass_on(&joined, 30, 31)));
    // Its grant is over, the invite is not.
    let later = NOW + 2 * DAY;
    all.forget(later);
    assert!(all.check_key(&key(30).id()).is_err());
    all.forget(NOW + 30 * DAY + 732 * DAY);
    assert!(all.check_key(&key(30).id()).is_err());
}

#[test]
fn who_lets_in_by_a_grant_that_fell_spends_nothing() {
    let fallen = seal(&key(1), &grant(60, Role::Orchestrator, 60));
    let honest = seal(&key(99), &grant(61, Role::Orchestrator, 61));
    let came = lets_in(&honest, &key(61), &key(70), NOW + 5, 2);
    let fakes = [80, 81].map(|n| lets_in(&fallen, &key(60), &key(n), NOW, 2));
    let end = revoke(99, Target::Key(key(1).id()), false);
    let one = revoke(1, Target::Key(key(60).id()), false);
    for end in [&end, &one] {
        for end_first in [true, false] {
            let mut all = members();
            assert!(learn(&mut all, &passed_on(&came)));
            if end_first {
                learn(&mut all, end);
            }
            for fake in &fakes {
                assert_ne!(learn(&mut all, &passed_on(fake)), end_first);
            }
            let holds = |all: &Membership| all.verify_grant(&came, NOW + 10).is_ok();
            assert_eq!(holds(&all), end_first, "two came before");
            if !end_first {
                learn(&mut all, end);
                // It is told again by whoever knows it: its own greeting, for one.
                learn(&mut all, &passed_on(&came));
            }
            assert!(holds(&all));
            assert_eq!(all.counts(), [1, 0, 1]);
        }
    }
}
