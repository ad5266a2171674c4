//! What is entered, and read again.

use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn entry(serial: u64) -> Entry {
    Entry {
        serial,
        issuer: Some(NodeId([7; 32])),
        subject: NodeId([0; 32]),
        role: Role::Worker,
        region: None,
        tier: Tier::Trusted,
        not_before_ms: 0,
        expires_ms: 1,
    }
}

#[test]
fn a_serial_that_is_taken_is_drawn_again() {
    let seeded = || StdRng::seed_from_u64(7);
    let mut register = Register::default();
    let first = register.new_serial(&mut seeded());
    register.grants.push(entry(first));
    let second = register.new_serial(&mut seeded());
    assert_ne!(second, first);
    assert!((1..=MAX_SERIAL).contains(&second));
}

#[test]
fn a_serial_is_exact_also_where_numbers_are_doubles() {
    let read = serde_json::from_str::<f64>(&MAX_SERIAL.to_string()).expect("a number");
    assert_eq!(format!("{read:.0}"), MAX_SERIAL.to_string());
}

#[test]
fn a_grant_is_revoked_by_its_number_its_key_or_its_issuers() {
    let grant = entry(3);
    let is_revoked = |target, keeps_issued| {
        let revocation = RevocationEntry {
            target,
            keeps_issued,
            reason: String::new(),
            issued_ms: 0,
        };
        let revocations = vec![revocation];
        let register = Register {
            revocations,
            ..Register::default()
        };
        register.is_revoked(&grant)
    };
    let serial = |issuer, serial| Target::Serial {
        issuer: NodeId([issuer; 32]),
        serial,
    };
    assert!(is_revoked(serial(7, 3), false));
    assert!(!is_revoked(serial(8, 3), false), "another's number 3");
    assert!(!is_revoked(serial(7, 4), false));
    assert!(is_revoked(Target::Key(NodeId([0; 32])), true));
    assert!(is_revoked(Target::Key(NodeId([7; 32])), false));
    assert!(!is_revoked(Target::Key(NodeId([7; 32])), true));
}

#[test]
fn lines_of_each_kind_are_read_again_and_those_of_before_too() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(REGISTER);
    let invite = InviteEntry {
        serial: 5,
        issuer: NodeId([7; 32]),
        region: Region::new("eu").expect("valid"),
        tier: Tier::Untrusted,
        uses: 3,
        not_before_ms: 1,
        expires_ms: 2,
        grant_life_ms: 3,
    };
    let revocation = RevocationEntry {
        target: Target::Key(NodeId([1; 32])),
        keeps_issued: false,
        reason: "lost".to_owned(),
        issued_ms: 9,
    };
    let before = Entry {
        issuer: None,
        ..entry(4)
    };
    for line in [
        Line::Grant(before.clone()),
        Line::Invite(invite.clone()),
        Line::Revocation(revocation.clone()),
    ] {
        enter(&path, |_, _| Ok((line, ()))).expect("entered");
    }
    let file = File::open(&path).expect("there");
    let (read, _) = read_lines(&file, &path).expect("read");
    let expected = Register {
        grants: vec![before],
        invites: vec![invite],
        revocations: vec![revocation],
    };
    assert_eq!(read, expected);
}

#[test]
fn revocations_are_entered_together_and_each_once() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join(REGISTER);
    let of = |n: u8, keeps_issued| RevocationEntry {
        target: Target::Key(NodeId([n; 32])),
        keeps_issued,
        reason: String::new(),
        issued_ms: 9,
    };
    note(&path, &[of(1, true), of(2, false), of(2, false)]).expect("entered");
    note(&path, &[of(1, false), of(2, false)]).expect("the stricter is new");
    note(&path, &[of(1, true), of(1, false)]).expect("nothing is new");
    let (register, is_cut_off) = read_there(&path).expect("read");
    let expected = [of(1, true), of(2, false), of(1, false)];
    assert_eq!(
        (&register.revocations[..], is_cut_off),
        (&expected[..], false)
    );
    let whole = std::fs::read(&path).expect("read");
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("cut");
    let (register, is_cut_off) = read_there(&path).expect("read");
    assert_eq!((register.revocations.len(), is_cut_off), (2, true));
}
