//! What was heard is kept, counts again after a restart, and a damaged file is no reason to forget.

use super::*;
use std::fs;
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::control::Target;
use tether_wire::grant::chain::pass_on;
use tether_wire::grant::{Access, GRANT_SKEW_MS, MAX_GRANT_LIFE_MS, Tier};
use tether_wire::invite::MAX_INVITE_LIFE_MS;
use tether_wire::membership::Fact;
use tether_wire::{Grant, MeshId, NodeKey, Revocation, Role, Signed, codec};

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
    let (news, version) = members.since(1);
    assert!(
        matches!(&news[..], [MembershipNews::Learnt(_, control)] if **control == *revocation(6))
    );
    assert_eq!(members.since(version), (Vec::new(), version));

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
async fn a_disk_that_cannot_be_written_makes_nobody_trusted_and_is_no_success() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = Members::open(mesh(), &dir.path().join("gone")).expect("nothing there");
    for _ in 0..2 {
        let learnt = members.learn(&revocation(5)).await;
        assert!(
            matches!(learnt, Err(ControlError::NotKept(_))),
            "{learnt:?}"
        );
        assert!(is_barred(&members, 5));
    }
    fs::create_dir(dir.path().join("gone")).expect("made");
    assert_eq!(members.learn(&revocation(6)).await, Ok(true));
    let again = Members::open(mesh(), &dir.path().join("gone")).expect("read");
    assert!(is_barred(&again, 5), "what could not be kept is kept later");
}

#[tokio::test]
async fn who_gives_up_waiting_for_the_disk_leaves_no_second_writer() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = Members::open(mesh(), dir.path()).expect("nothing there yet");
    for n in 0..100 {
        let learning = members.clone();
        let control = revocation(n);
        let task = tokio::spawn(async move { learning.learn(&control).await });
        // Some are ended before, some while, and some after they write.
        for _ in 0..n % 7 {
            tokio::task::yield_now().await;
        }
        task.abort();
        let _ = task.await;
    }
    members.learn(&revocation(100)).await.expect("kept");
    let again = Members::open(mesh(), dir.path()).expect("whole");
    assert_eq!(again.current().counts(), members.current().counts());
}

#[tokio::test]
async fn what_there_was_no_room_for_is_refused_the_second_time_too() {
    let members = Members::new(mesh());
    let control = revocation(5);
    let (what, limit) = ("all", 0);
    let full = ControlError::Full { what, limit };
    members.state().set_idle(&control, Some(full.clone()));
    assert_eq!(members.learn(&control).await, Err(full.clone()));
    let heard = members.hear(NodeId([1; 32]), vec![control.clone()]).await;
    assert_eq!((heard.news, heard.shed, heard.refused), (0, 0, Some(full)));
    // Once something went there may be room.
    members.forget_at(now_ms());
    assert_eq!(members.learn(&control).await, Ok(true));
}

#[test]
fn a_damaged_file_is_refused_and_what_does_not_count_is_left_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(MEMBERSHIP_FILE);
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

fn grant(subject: &NodeKey, expires_ms: u64) -> Signed<Grant> {
    let grant = Grant {
        subject: subject.id(),
        role: Role::Worker,
        region: None,
        tier: Tier::Untrusted,
        not_before_ms: expires_ms.saturating_sub(1_000_000),
        expires_ms,
        serial: 1,
        issuer: None,
        consent: None,
        invite: None,
    };
    Signed::seal(&operator(), &mesh().id, &grant).expect("valid")
}
/// The key with this number passes its grant on to the next one.
fn passed_on(n: u8, expires_ms: u64) -> Vec<u8> {
    let [old, new] = [n, n + 1].map(|n| NodeKey::from_seed([n; 32]));
    let passed = pass_on(&grant(&old, expires_ms), &old, &new, &mesh().id, 1).expect("valid");
    codec::encode(&Control::Grant(passed.as_bytes().to_vec()))
}

#[tokio::test]
async fn what_is_wrong_takes_nothing_from_what_comes_with_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = Members::open(mesh(), dir.path()).expect("nothing there yet");
    let mut forged = revocation(5);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let controls = vec![forged, b"nonsense".to_vec(), revocation(6), revocation(7)];
    let heard = members.hear(NodeId([1; 32]), controls.clone()).await;
    assert_eq!((heard.news, heard.shed), (2, 0));
    let why = heard.refused.expect("the first one").to_string();
    assert!(why.contains("signature"), "{why}");
    assert!(!is_barred(&members, 5) && is_barred(&members, 6) && is_barred(&members, 7));
    members.keep().await.expect("kept");
    let again = Members::open(mesh(), dir.path()).expect("read");
    assert!(is_barred(&again, 6) && is_barred(&again, 7), "kept");
    assert_eq!(members.hear(NodeId([1; 32]), controls).await.news, 0);
}

#[tokio::test]
async fn a_peer_that_makes_work_for_nothing_is_passed_over_and_others_are_not() {
    let members = Members::new(mesh());
    let (loud, other) = (NodeId([1; 32]), NodeId([2; 32]));
    let allowance = Allowance {
        idle: TokenBucket::new(0, 2, 0),
        forged: TokenBucket::new(0, 3, 0),
        turn: Arc::default(),
    };
    (members.inner.allowances.lock().expect("sound")).insert(loud, allowance);
    // News are no trouble, and neither is what is known.
    let news = || (20..25).map(|n| passed_on(n, now_ms() + 86_400_000 + u64::from(n)));
    let heard = members.hear(loud, news().collect()).await;
    assert_eq!((heard.news, heard.shed, heard.refused), (5, 0, None));
    let nonsense = |n: u8| vec![n; 100];
    let heard = members.hear(loud, (1..6).map(nonsense).collect()).await;
    assert_eq!((heard.news, heard.shed), (0, 3));
    let heard = members
        .hear(loud, vec![passed_on(30, now_ms() + 86_400_000)])
        .await;
    assert_eq!((heard.news, heard.shed), (0, 1), "also news, now");
    let heard = members.hear(loud, vec![revocation(5)]).await;
    assert_eq!(
        (heard.news, heard.shed),
        (1, 0),
        "the operator's counts all the same"
    );
    // But what only says that it is the operator's does not, for long.
    let forged = |n: u8| {
        let mut forged = revocation(n);
        let last = forged.len() - 1;
        forged[last] ^= 1;
        forged
    };
    let heard = members.hear(loud, (50..60).map(forged).collect()).await;
    assert_eq!((heard.news, heard.shed), (0, 7));
    let heard = members
        .hear(other, vec![passed_on(30, now_ms() + 86_400_000)])
        .await;
    assert_eq!((heard.news, heard.shed), (1, 0));
}

#[tokio::test]
async fn what_is_over_is_forgotten_and_followers_hear_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let members = Members::open(mesh(), dir.path()).expect("nothing there yet");
    let until = now_ms() + 86_400_000;
    for control in [
        passed_on(20, until),
        passed_on(30, until + 10),
        revocation(5),
    ] {
        assert_eq!(members.learn(&control).await, Ok(true));
    }
    let (news, version) = members.since(0);
    assert_eq!(news.len(), 3);
    // As if years had passed.
    let over = until + MAX_INVITE_LIFE_MS + MAX_GRANT_LIFE_MS + GRANT_SKEW_MS;
    assert_eq!(members.forget_at(over), 1);
    let (news, _) = members.since(version);
    assert!(matches!(
        news[..],
        [MembershipNews::Dropped(Fact::Replaced { .. })]
    ));
    let (news, _) = members.since(0);
    assert_eq!(news.len(), 3, "two that are held, and that one is gone");
    members.forget().await;
    assert_eq!(
        members.current().counts(),
        [1, 1, 0],
        "not right after its start"
    );
    members.keep().await.expect("kept");
    let kept = Members::open(mesh(), dir.path()).expect("read");
    assert_eq!(kept.current().counts(), [1, 1, 0]);
    // What is over by the clock of the start is forgotten later: that clock may be wrong.
    let over = passed_on(40, 5);
    assert_eq!(kept.learn(&over).await, Ok(false));
    file::write(dir.path(), &[over.into()]).expect("written");
    let kept = Members::open(mesh(), dir.path()).expect("read");
    assert_eq!(kept.current().counts(), [0, 1, 0]);
    assert_eq!(kept.forget_at(now_ms()), 1);
}
