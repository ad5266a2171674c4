//! Who may issue what, and what they may not.

use super::*;
use crate::grant::{Access, MAX_GRANT_LIFE_MS};
use crate::id::{MeshId, Region};
use crate::invite::Invite;
use crate::key::NodeKey;

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;

fn key(seed: u8) -> NodeKey {
    NodeKey::from_seed([seed; 32])
}
fn operator() -> NodeKey {
    key(1)
}
fn mesh() -> Mesh {
    Mesh {
        id: MeshId(operator().id().0),
        recovery: Some(key(99).id()),
        access: Access::Invite,
    }
}
fn region(name: &str) -> Region {
    Region::new(name).expect("valid")
}
fn grant(subject: &NodeKey, role: Role) -> Grant {
    Grant {
        subject: subject.id(),
        role,
        region: Some(region("eu")),
        tier: Tier::Trusted,
        not_before_ms: NOW,
        expires_ms: NOW + DAY,
        serial: 1,
        issuer: None,
        consent: None,
        invite: None,
    }
}
fn seal(key: &NodeKey, grant: &Grant) -> Signed<Grant> {
    Signed::seal(key, &mesh().id, grant).expect("inside limits")
}
fn is_good(sealed: &Signed<Grant>) -> bool {
    Chain::verify(sealed, &mesh()).is_ok()
}
fn bytes<T: crate::Signable>(sealed: &Signed<T>) -> Option<Vec<u8>> {
    Some(sealed.as_bytes().to_vec())
}

fn passed_on(held: &Signed<Grant>, old: &NodeKey, new: &NodeKey) -> Signed<Grant> {
    pass_on(held, old, new, &mesh().id, NOW).expect("inside limits")
}

#[test]
fn a_grant_that_a_stranger_signed_is_refused() {
    let sealed = seal(&key(3), &grant(&key(3), Role::Orchestrator));
    let error = Chain::verify(&sealed, &mesh()).expect_err("not the operator");
    assert!(matches!(error, GrantError::Issuer { .. }), "{error}");
}

#[test]
fn the_recovery_key_grants_as_the_operator_does() {
    assert!(is_good(&seal(&key(99), &grant(&key(3), Role::Operator))));
    let mesh = Mesh {
        recovery: None,
        ..mesh()
    };
    let sealed = seal(&key(99), &grant(&key(3), Role::Operator));
    assert!(Chain::verify(&sealed, &mesh).is_err(), "there is none here");
}

#[test]
fn an_operator_of_a_region_grants_there_and_never_beyond_itself() {
    let own = seal(&operator(), &grant(&key(4), Role::Operator));
    let issue = |change: fn(&mut Grant)| {
        let mut it = grant(&key(5), Role::Worker);
        it.issuer = bytes(&own);
        change(&mut it);
        is_good(&seal(&key(4), &it))
    };
    assert!(issue(|_| ()));
    assert!(!issue(|it| it.expires_ms += 1), "outlives its issuer");
    assert!(!issue(|it| it.region = Some(region("us"))));
    assert!(!issue(|it| it.region = None), "wider than its issuer's");
    assert!(!issue(|it| it.role = Role::Operator), "makes no operators");
    assert!(!issue(|it| it.issuer = None));
    let mut it = grant(&key(5), Role::Worker);
    it.issuer = bytes(&seal(&operator(), &grant(&key(6), Role::Operator)));
    assert!(!is_good(&seal(&key(4), &it)), "shows another's grant");
    it.issuer = bytes(&seal(&operator(), &grant(&key(4), Role::Worker)));
    assert!(!is_good(&seal(&key(4), &it)), "a worker issues nothing");
}

#[test]
fn a_grant_for_ever_is_not_issued() {
    let mut it = grant(&key(2), Role::Worker);
    it.expires_ms = NOW + MAX_GRANT_LIFE_MS + 1;
    assert!(Signed::seal(&operator(), &mesh().id, &it).is_err());
}

#[test]
fn a_key_passes_its_grant_on_as_it_is_to_a_key_that_agrees() {
    let own = seal(&operator(), &grant(&key(5), Role::Worker));
    let sealed = passed_on(&own, &key(5), &key(6));
    let passed = sealed.verify(&mesh().id).expect("valid").into_inner();
    let chain = Chain::verify(&sealed, &mesh()).expect("valid");
    assert_eq!(chain.leaf().subject, key(6).id());
    let transfers: Vec<_> = chain.transfers().collect();
    assert_eq!(transfers, [(key(5).id(), key(6).id())]);

    let changed = |change: fn(&mut Grant)| {
        let mut it = passed.clone();
        change(&mut it);
        is_good(&seal(&key(5), &it))
    };
    assert!(!changed(|it| it.expires_ms += 1));
    assert!(!changed(|it| it.role = Role::Orchestrator));
    assert!(!changed(|it| it.region = None));
    assert!(!changed(|it| it.tier = Tier::Untrusted));
    assert!(!changed(|it| it.serial += 1));
    assert!(!changed(|it| it.subject = key(7).id()), "it did not agree");
    assert!(!changed(|it| it.consent = None), "nobody agreed");
    assert!(!is_good(&seal(&key(8), &passed)), "another's to pass on");
    let mut by_root = passed.clone();
    by_root.issuer = None;
    assert!(!is_good(&seal(&operator(), &by_root)));
}

#[test]
fn a_grant_is_passed_on_four_times_and_not_five() {
    let mut sealed = seal(&operator(), &grant(&key(10), Role::Worker));
    for n in 0..5 {
        let (old, new) = (key(10 + n), key(11 + n));
        sealed = passed_on(&sealed, &old, &new);
        assert_eq!(is_good(&sealed), usize::from(n) < MAX_TRANSFERS, "{n}");
    }
    assert!(sealed.as_bytes().len() < 3_000, "{sealed:?}");
}

fn invite() -> Invite {
    Invite {
        region: region("eu"),
        tier: Tier::Untrusted,
        not_before_ms: NOW,
        expires_ms: NOW + DAY / 2,
        uses: 2,
        grant_life_ms: 3 * DAY,
        serial: 5,
        secret: Invite::digest_of(&[7; 32]),
        issuer: None,
    }
}

/// An orchestrator lets key 21 in by an invite of the operator.
fn let_in(change: impl Fn(&mut Grant), invite: &Invite, by: &NodeKey) -> Signed<Grant> {
    let invite = Signed::seal(by, &mesh().id, invite).expect("inside limits");
    let mut own = grant(&key(20), Role::Orchestrator);
    own.expires_ms = NOW + 4 * DAY;
    let own = seal(&operator(), &own);
    let mut it = grant(&key(21), Role::Worker);
    it.tier = Tier::Untrusted;
    it.not_before_ms = NOW + 1;
    it.expires_ms = NOW + 1 + 3 * DAY;
    it.issuer = bytes(&own);
    it.invite = bytes(&invite);
    change(&mut it);
    seal(&key(20), &it)
}

#[test]
fn an_orchestrator_lets_in_whom_an_invite_allows_and_nobody_else() {
    let good = let_in(|_| (), &invite(), &operator());
    let chain = Chain::verify(&good, &mesh()).expect("valid");
    let (grant, invited) = chain.invited().expect("by an invite");
    assert_eq!((grant.subject, invited.invite.serial), (key(21).id(), 5));

    let refused = |change: fn(&mut Grant)| !is_good(&let_in(change, &invite(), &operator()));
    assert!(refused(|it| it.role = Role::Gateway));
    assert!(refused(|it| it.role = Role::Orchestrator));
    assert!(refused(|it| it.region = Some(region("us"))));
    assert!(refused(|it| it.region = None));
    assert!(
        refused(|it| it.tier = Tier::Trusted),
        "more than the invite"
    );
    assert!(refused(|it| it.expires_ms += 1), "longer than it says");
    assert!(refused(|it| it.not_before_ms = NOW - 1), "too early");
    assert!(refused(|it| {
        it.not_before_ms = NOW + DAY / 2;
        it.expires_ms = it.not_before_ms + 1;
    }));
    assert!(refused(|it| it.invite = None), "an orchestrator alone");
    assert!(
        !is_good(&let_in(|_| (), &invite(), &key(30))),
        "an invite of a stranger"
    );
}

#[test]
fn an_orchestrator_whose_grant_is_over_lets_nobody_in_by_setting_its_clock_back() {
    let mut own = grant(&key(20), Role::Orchestrator);
    own.expires_ms = NOW + DAY;
    let own = seal(&operator(), &own);
    let backdated = |it: &mut Grant| {
        it.issuer = bytes(&own);
        it.expires_ms = it.not_before_ms + 2 * DAY;
    };
    assert!(!is_good(&let_in(backdated, &invite(), &operator())));
    let within = |it: &mut Grant| {
        it.issuer = bytes(&own);
        it.expires_ms = NOW + DAY;
    };
    assert!(is_good(&let_in(within, &invite(), &operator())));
}

#[test]
fn who_came_by_an_invite_may_pass_its_grant_on_and_issue_nothing() {
    let came = let_in(|_| (), &invite(), &operator());
    let passed = passed_on(&came, &key(21), &key(22));
    let chain = Chain::verify(&passed, &mesh()).expect("valid");
    assert!(chain.invited().is_some() && chain.transfers().count() == 1);
    let mut it = grant(&key(23), Role::Worker);
    it.issuer = bytes(&came);
    assert!(!is_good(&seal(&key(21), &it)));
}

#[test]
fn an_operator_of_a_region_invites_there() {
    let mut own = grant(&key(4), Role::Operator);
    own.expires_ms = NOW + 2 * DAY;
    let own = seal(&operator(), &own);
    let mut it = invite();
    it.issuer = bytes(&own);
    let until = |expires_ms| {
        let change = move |grant: &mut Grant| grant.expires_ms = expires_ms;
        is_good(&let_in(change, &it, &key(4)))
    };
    assert!(until(NOW + 2 * DAY));
    assert!(!until(NOW + 2 * DAY + 1), "outlives who invited");
    it.region = region("us");
    assert!(!is_good(&let_in(
        |grant| {
            grant.region = Some(region("us"));
            grant.expires_ms = NOW + DAY;
        },
        &it,
        &key(4)
    )));
}
