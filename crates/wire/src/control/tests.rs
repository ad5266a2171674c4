//! Who may revoke what.

use super::*;
use crate::grant::{Access, Tier};
use crate::id::{MeshId, Region};
use crate::key::NodeKey;

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
fn revocation(target: Target) -> Revocation {
    Revocation {
        target,
        keeps_issued: false,
        reason: "lost".to_owned(),
        issued_ms: 1,
        issuer: None,
    }
}
fn is_good(by: u8, revocation: &Revocation) -> bool {
    (Signed::seal(&key(by), &mesh().id, revocation))
        .is_ok_and(|sealed| sealed.verify_revocation(&mesh()).is_ok())
}

#[test]
fn the_operators_keys_revoke_everything_but_the_recovery_key() {
    assert!(is_good(1, &revocation(Target::Key(key(5).id()))));
    assert!(is_good(99, &revocation(Target::Key(key(5).id()))));
    assert!(is_good(99, &revocation(Target::Key(key(1).id()))), "stolen");
    assert!(!is_good(1, &revocation(Target::Key(key(99).id()))));
    assert!(!is_good(1, &revocation(Target::Key(key(1).id()))), "itself");
    assert!(!is_good(5, &revocation(Target::Key(key(6).id()))));
}

#[test]
fn an_operator_of_a_region_revokes_what_it_gave_itself() {
    let own = Grant {
        subject: key(4).id(),
        role: Role::Operator,
        region: Some(Region::new("eu").expect("valid")),
        tier: Tier::Untrusted,
        not_before_ms: 0,
        expires_ms: 10,
        serial: 1,
        issuer: None,
        consent: None,
        invite: None,
    };
    let shown = |own: &Grant, by: u8, target| {
        let sealed = Signed::seal(&key(by), &mesh().id, own).expect("valid");
        let mut it = revocation(target);
        it.issuer = Some(sealed.as_bytes().to_vec());
        is_good(4, &it)
    };
    let serial = |issuer: u8| Target::Serial {
        issuer: key(issuer).id(),
        serial: 7,
    };
    assert!(shown(&own, 1, serial(4)));
    assert!(!shown(&own, 1, serial(1)), "another's");
    assert!(!shown(&own, 1, Target::Key(key(5).id())), "a key");
    assert!(!shown(&own, 8, serial(4)), "its grant is a stranger's");
    let worker = Grant {
        role: Role::Worker,
        ..own
    };
    assert!(!shown(&worker, 1, serial(4)), "a worker");
}

#[test]
fn a_reason_is_bounded() {
    let mut it = revocation(Target::Key(key(5).id()));
    it.reason = "x".repeat(MAX_REASON_BYTES);
    assert!(is_good(1, &it));
    it.reason.push('x');
    assert!(!is_good(1, &it));
}

#[test]
fn a_control_message_is_bounded_and_of_a_known_kind() {
    let large = Control::Grant(vec![0; MAX_CONTROL_BYTES]);
    assert!(Control::decode(&codec::encode(&large)).is_err());
    let small = Control::Revocation(vec![1, 2]);
    assert_eq!(Control::decode(&codec::encode(&small)), Ok(small));
    assert!(Control::decode(&codec::encode(&"more")).is_err());
}
