//! What was heard is kept, counts again after a restart, and a damaged file is no reason to forget.

use super::*;
use std::fs;
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::control::Target;
use tether_wire::grant::Access;
use tether_wire::{MeshId, NodeKey, Revocation, Signed};

fn operator() -> NodeKey {
    NodeKey::from_seed([1; 32])
}
fn mesh() -> Mesh {
    Mesh {
        id: MeshId(operator().id().0),
        recovery: None,
        access: Access::Invite,
    }
}
fn revocation(n: u8) -> Vec<u8> {
    let revocation = Revocation {
        target: Target::Key(NodeId([n; 32])),
        keeps_issued: false,
        reason: String::new(),
        issued_ms: 1,
        issuer: None,
    };
    let sealed = Signed::seal(&operator(), &mesh().id, &revocation).expect("valid");
    codec::encode(&Control::Revocation(sealed.as_bytes().to_vec()))
}
fn is_barred(members: &Members, n: u8) -> bool {
    members.current().check_key(&NodeId([n; 32])).is_err()
}

#[tokio::test]
async fn a_revocation_outlives_the_run_in_which_it_was_heard() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = Members::open(mesh(), dir.path()).expect("nothing there yet");
    let mut changed = members.changed();
    assert_eq!(members.learn(&revocation(5)).await, Ok(true));
    assert!(changed.has_changed().expect("open"));
    changed.mark_unchanged();
    assert_eq!(members.learn(&revocation(5)).await, Ok(false));
    assert!(!changed.has_changed().expect("open"));
    assert_eq!(members.learn(&revocation(6)).await, Ok(true));
    let (news, next) = members.since(1);
    assert_eq!(next, 2);
    assert!(
        matches!(&news[..], [MembershipNews::Learnt(_, control)] if **control == *revocation(6))
    );

    let again = Members::open(mesh(), dir.path()).expect("read");
    assert!(is_barred(&again, 5) && is_barred(&again, 6) && !is_barred(&again, 7));
    assert_eq!(again.since(0).0.len(), 2, "to tell others");
    assert_eq!(again.learn(&revocation(6)).await, Ok(false));
}

#[tokio::test]
async fn many_that_come_at_once_are_all_kept() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = Members::open(mesh(), dir.path()).expect("nothing there yet");
    let learnt = (0..40).map(|n| {
        let members = members.clone();
        tokio::spawn(async move { members.learn(&revocation(n)).await })
    });
    for learnt in learnt.collect::<Vec<_>>() {
        assert_eq!(learnt.await.expect("no panic"), Ok(true));
    }
    let again = Members::open(mesh(), dir.path()).expect("read");
    assert!((0..40).all(|n| is_barred(&again, n)));
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_makes_nobody_trusted() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = Members::open(mesh(), &dir.path().join("gone")).expect("nothing there");
    assert_eq!(members.learn(&revocation(5)).await, Ok(true));
    assert!(is_barred(&members, 5));
    fs::create_dir(dir.path().join("gone")).expect("made");
    assert_eq!(members.learn(&revocation(6)).await, Ok(true));
    let again = Members::open(mesh(), &dir.path().join("gone")).expect("read");
    assert!(is_barred(&again, 5), "what could not be kept is kept later");
}

#[tokio::test]
async fn what_cannot_be_taken_does_not_hold_up_the_rest() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = Members::open(mesh(), dir.path()).expect("nothing there yet");
    assert_eq!(members.take(&revocation(5)), Ok(true));
    assert!(members.take(b"nonsense").is_err());
    assert_eq!(members.take(&revocation(6)), Ok(true));
    members.keep().await;
    let again = Members::open(mesh(), dir.path()).expect("read");
    assert!(is_barred(&again, 5) && is_barred(&again, 6));
}

#[tokio::test]
async fn who_is_too_far_behind_is_told_all() {
    let members = Members::new(mesh());
    members.learn(&revocation(5)).await.expect("taken");
    for _ in 0..MAX_NEWS {
        members.state().tell(MembershipNews::Dropped(Fact::Serial {
            issuer: NodeId([1; 32]),
            serial: 1,
        }));
    }
    let (news, next) = members.since(0);
    assert!(matches!(news[..], [MembershipNews::Learnt(..)]), "{news:?}");
    assert_eq!(next, MAX_NEWS as u64 + 1);
    assert_eq!(members.since(next).0, []);
}

#[test]
fn a_damaged_file_is_refused_and_what_does_not_count_is_left_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(file::FILE);
    fs::write(&path, b"not it").expect("written");
    let error = Members::open(mesh(), dir.path()).expect_err("damaged");
    assert!(error.to_string().contains("put back a copy"), "{error}");
    let mut forged = revocation(5);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let kept: Vec<Arc<[u8]>> = vec![forged.into(), revocation(6).into()];
    file::write(dir.path(), &kept).expect("written");
    let members = Members::open(mesh(), dir.path()).expect("read");
    assert!(!is_barred(&members, 5) && is_barred(&members, 6));
}

#[tokio::test]
async fn what_a_stranger_signs_or_what_is_too_large_is_refused() {
    let members = Members::new(mesh());
    assert!(members.learn(b"nonsense").await.is_err());
    assert!(
        members
            .learn(&vec![0; MAX_CONTROL_BYTES + 1])
            .await
            .is_err()
    );
    let elsewhere = Members::new(Mesh {
        id: MeshId([9; 32]),
        ..mesh()
    });
    assert!(elsewhere.learn(&revocation(5)).await.is_err());
    assert!(!elsewhere.changed().has_changed().expect("open"));
}
