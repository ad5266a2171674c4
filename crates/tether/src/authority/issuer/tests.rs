//! What is issued, entered and taken back.

use super::super::mesh_dir::{OPERATOR_KEY, create};
use super::super::register::entries;
use super::*;
use crate::files;

const NOW: u64 = 1_800_000_000_000;
const DAY: u64 = 86_400_000;

fn order(role: Role) -> Order {
    Order {
        subject: key_file::generate().id(),
        role,
        region: Some(Region::new("eu").expect("valid")),
        tier: Tier::Trusted,
        life_ms: DAY,
    }
}

#[test]
fn serials_are_never_given_twice_and_the_register_knows_them() {
    let dir = tempfile::tempdir().expect("temporary folder");
    create(&dir.path().join("m"), false).expect("made");
    let dir = dir.path().join("m");
    assert_eq!(entries(&dir).expect("none yet"), Vec::new());
    let key = dir.join(OPERATOR_KEY);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let issuer = Issuer::operator(&key, None).expect("read");
                let (sealed, _) = issuer.issue(&order(Role::Worker), NOW).expect("issued");
                Membership::new(issuer.mesh())
                    .verify_grant(&sealed, NOW)
                    .expect("valid");
            });
        }
    });
    let mut serials: Vec<u64> = entries(&dir)
        .expect("read")
        .iter()
        .map(|e| e.serial)
        .collect();
    serials.sort_unstable();
    serials.dedup();
    assert_eq!(serials.len(), 8, "{serials:?}");
}

#[test]
fn copies_of_a_key_give_no_serial_twice() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut serials = std::collections::BTreeSet::new();
    for place in ["one", "two"] {
        let copy = dir.path().join(place);
        if place == "one" {
            create(&copy, false).expect("made");
        } else {
            files::private_dir(&copy).expect("made");
            let key = dir.path().join("one").join(OPERATOR_KEY);
            std::fs::copy(key, copy.join(OPERATOR_KEY)).expect("copied");
        }
        let issuer = Issuer::operator(&copy.join(OPERATOR_KEY), None).expect("read");
        for _ in 0..20 {
            let (_, grant) = issuer.issue(&order(Role::Worker), NOW).expect("issued");
            assert!(serials.insert(grant.serial), "{} twice", grant.serial);
        }
        assert_eq!(entries(&copy).expect("read").len(), 20);
    }
}

#[test]
fn a_key_that_is_a_link_enters_its_grants_where_the_key_is() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mesh = dir.path().join("mesh");
    create(&mesh, true).expect("made");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(mesh.join(OPERATOR_KEY), &link).expect("linked");
    let issue = |key: &Path| {
        let issuer = Issuer::operator(key, None).expect("read");
        let (_, grant) = issuer.issue(&order(Role::Worker), NOW).expect("issued");
        grant.serial
    };
    let given = [issue(&link), issue(&mesh.join(OPERATOR_KEY))];
    let entered = entries(&mesh).expect("read");
    let entered: Vec<u64> = entered.iter().map(|entry| entry.serial).collect();
    assert_eq!(entered, given);
    assert!(!dir.path().join(REGISTER).exists());
}

#[test]
fn a_mesh_whose_key_is_linked_to_from_its_folder_keeps_its_register_there() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (mesh, safe) = (dir.path().join("mesh"), dir.path().join("safe"));
    create(&mesh, true).expect("made");
    std::fs::create_dir(&safe).expect("made");
    let (key, kept) = (mesh.join(OPERATOR_KEY), safe.join("usb.key"));
    std::fs::rename(&key, &kept).expect("moved");
    std::os::unix::fs::symlink(&kept, &key).expect("linked");
    let issuer = Issuer::operator(&key, None).expect("read");
    issuer.issue(&order(Role::Worker), NOW).expect("issued");
    assert_eq!(entries(&mesh).expect("read").len(), 1);
    assert!(mesh.join(REGISTER).exists() && !safe.join(REGISTER).exists());
}

#[test]
fn a_regional_operator_issues_for_its_region_within_its_own_time() {
    let dir = tempfile::tempdir().expect("temporary folder");
    create(dir.path(), true).expect("made");
    let operator = Issuer::operator(&dir.path().join(OPERATOR_KEY), None).expect("read");
    let regional_dir = dir.path().join("eu");
    files::private_dir(&regional_dir).expect("made");
    let key = key_file::create(&regional_dir.join("regional.key")).expect("made");
    let own_order = Order {
        subject: key.id(),
        ..order(Role::Operator)
    };
    let (own, grant) = operator.issue(&own_order, NOW).expect("issued");
    let own_path = regional_dir.join("regional.grant");
    grant_file::create(&own_path, &own, &grant).expect("written");
    let key_path = regional_dir.join("regional.key");
    let regional = Issuer::regional(&key_path, &own_path, None, NOW).expect("operator");
    let error = Issuer::regional(&dir.path().join(OPERATOR_KEY), &own_path, None, NOW)
        .expect_err("another key's grant");
    assert!(error.to_string().contains("an operator"), "{error}");
    let (sealed, _) = regional.issue(&order(Role::Worker), NOW).expect("issued");
    let members = Membership::new(operator.mesh());
    members.verify_grant(&sealed, NOW).expect("holds");
    let (mesh, _) = super::super::grant_file::inspect(&sealed).expect("readable");
    assert_eq!(mesh, operator.mesh().id);
    let longer = Order {
        life_ms: 2 * DAY,
        ..order(Role::Worker)
    };
    let error = regional
        .issue(&longer, NOW)
        .expect_err("outlives its issuer");
    assert!(error.to_string().contains("outlives"), "{error}");
}

#[test]
fn a_line_that_was_cut_off_stops_nobody_from_issuing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    create(dir.path(), true).expect("made");
    let issuer = Issuer::operator(&dir.path().join(OPERATOR_KEY), None).expect("read");
    let issue = || {
        issuer
            .issue(&order(Role::Worker), NOW)
            .map(|(_, grant)| grant.serial)
    };
    let kept = issue().expect("1");
    issue().expect("2");
    let register = dir.path().join(REGISTER);
    let whole = std::fs::read(&register).expect("read");
    // Cut anywhere in the second line, also just before its end.
    let first = whole
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("two lines")
        + 1;
    for length in [first + 1, first + 20, whole.len() - 1] {
        std::fs::write(&register, &whole[..length]).expect("cut");
        assert_eq!(entries(dir.path()).expect("read").len(), 1);
        let new = issue().expect("issued");
        let serials = entries(dir.path()).expect("whole again");
        let serials: Vec<u64> = serials.iter().map(|e| e.serial).collect();
        assert_eq!(serials, [kept, new], "the cut one was never given");
    }
    // What is wrong before the end is no crash's doing.
    let torn_inside = [&whole[..10], b"\n", &whole[..]].concat();
    std::fs::write(&register, torn_inside).expect("written");
    assert!(issue().expect_err("refused").to_string().contains("line 1"));
}

#[test]
fn a_grant_for_ever_is_not_issued_and_not_entered() {
    let dir = tempfile::tempdir().expect("temporary folder");
    create(dir.path(), true).expect("made");
    let issuer = Issuer::operator(&dir.path().join(OPERATOR_KEY), None).expect("read");
    let for_ever = Order {
        life_ms: u64::MAX,
        ..order(Role::Worker)
    };
    assert!(issuer.issue(&for_ever, NOW).is_err());
    assert_eq!(entries(dir.path()).expect("read"), Vec::new());
}

fn invite(life_ms: u64, uses: u32) -> InviteOrder {
    InviteOrder {
        region: Region::new("eu").expect("valid"),
        tier: Tier::Untrusted,
        uses,
        life_ms,
        grant_life_ms: DAY,
    }
}

#[test]
fn an_invite_is_entered_without_its_secret_and_an_impossible_one_not_at_all() {
    let dir = tempfile::tempdir().expect("temporary folder");
    create(dir.path(), true).expect("made");
    let issuer = Issuer::operator(&dir.path().join(OPERATOR_KEY), None).expect("read");
    let secret = [7; 32];
    for bad in [invite(91 * DAY, 1), invite(0, 1), invite(DAY, 0)] {
        issuer.invite(&bad, &secret, NOW).expect_err("refused");
    }
    let made = issuer.invite(&invite(DAY, 3), &secret, NOW).expect("made");
    let text = std::fs::read_to_string(dir.path().join(REGISTER)).expect("read");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains(&hex::encode(secret)), "{text}");
    assert!(text.contains(&made.serial.to_string()), "{text}");
    assert_eq!(
        issuer.issuer_of(made.serial).expect("read"),
        Some(issuer.key().id())
    );
}

#[test]
fn the_recovery_key_does_what_the_first_one_does_wherever_it_is_kept() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let keys = create(&dir.path().join("m"), true).expect("made");
    let safe = dir.path().join("safe");
    std::fs::create_dir(&safe).expect("made");
    let key = safe.join("stick.key");
    std::fs::rename(dir.path().join("m/recovery.key"), &key).expect("moved");
    let issuer = Issuer::operator(&key, None).expect("its file says for which mesh");
    assert_eq!(issuer.mesh(), keys.mesh());
    let (sealed, _) = issuer.issue(&order(Role::Gateway), NOW).expect("issued");
    let members = Membership::new(keys.mesh());
    members.verify_grant(&sealed, NOW).expect("holds");
    let revoke = |issuer: &Issuer, key: NodeId| {
        issuer.revoke(
            &RevocationOrder {
                target: Target::Key(key),
                keeps_issued: false,
                reason: String::new(),
            },
            NOW,
        )
    };
    let stolen = revoke(&issuer, keys.id.operator()).expect("the first key");
    let mut members = Membership::new(keys.mesh());
    assert_eq!(members.learn(&stolen, NOW), Ok(true));
    let first = Issuer::operator(&dir.path().join("m/operator.key"), None).expect("read");
    let recovery = keys.recovery.expect("made");
    let error = revoke(&first, recovery).expect_err("what is left when the first is stolen");
    assert!(error.to_string().contains("recovery key"), "{error}");
    let error = revoke(&first, keys.id.operator()).expect_err("itself");
    assert!(error.to_string().contains("other key"), "{error}");
}

#[test]
fn a_revocation_is_noted_once() {
    let dir = tempfile::tempdir().expect("temporary folder");
    create(dir.path(), false).expect("made");
    let issuer = Issuer::operator(&dir.path().join(OPERATOR_KEY), None).expect("read");
    let (_, grant) = issuer.issue(&order(Role::Worker), NOW).expect("issued");
    let order = RevocationOrder {
        target: Target::Key(grant.subject),
        keeps_issued: false,
        reason: "lost".to_owned(),
    };
    for _ in 0..2 {
        issuer
            .note(std::slice::from_ref(&order), NOW)
            .expect("noted");
    }
    let register = register::read(dir.path()).expect("read");
    assert_eq!(register.revocations.len(), 1);
    assert!(register.is_revoked(&register.grants[0]));
}
