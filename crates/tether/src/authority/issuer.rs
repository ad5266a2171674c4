//! Who gives roles, invites others and takes both back: the operator of a mesh, by the first key or
//! by the one for recovery, or an operator of a region.

use super::mesh_id::{self, MeshKeys};
use super::register::{self, Entry, InviteEntry, Line, REGISTER, RevocationEntry};
use super::{AuthorityError, grant_file, key_file};
use std::path::{Path, PathBuf};
use tether_wire::control::{Control, Revocation, Target};
use tether_wire::grant::{Grant, Mesh, Role, Tier};
use tether_wire::{
    Invite, Membership, MeshId, NodeId, NodeKey, Region, Signable, Signed, Verified, VerifyError,
};

/// What is to be granted.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) subject: NodeId,
    pub(crate) role: Role,
    pub(crate) region: Option<Region>,
    pub(crate) tier: Tier,
    pub(crate) life_ms: u64,
}

/// Whom an invite is to let in.
#[derive(Debug, Clone)]
pub(crate) struct InviteOrder {
    pub(crate) region: Region,
    pub(crate) tier: Tier,
    pub(crate) uses: u32,
    /// How long it can be used.
    pub(crate) life_ms: u64,
    pub(crate) grant_life_ms: u64,
}

/// What is to be taken back.
#[derive(Debug, Clone)]
pub(crate) struct RevocationOrder {
    pub(crate) target: Target,
    pub(crate) keeps_issued: bool,
    pub(crate) reason: String,
}

/// Who issues.
#[derive(Debug)]
pub(crate) struct Issuer {
    key: NodeKey,
    mesh: Mesh,
    own_grant: Option<(Vec<u8>, Option<Region>)>,
    register: PathBuf,
}

impl Issuer {
    /// The operator of the mesh; the register is beside the key.
    pub(crate) fn operator(key_path: &Path, named: Option<MeshId>) -> Result<Self, AuthorityError> {
        let mesh = mesh_id::of_operator(key_path, named)?;
        Self::open(key_path, mesh, None)
    }

    /// An operator of a region, who passes its own grant on with each that it issues. Its mesh is
    /// the one that is named here, that is beside its key or, where neither is, that its grant rests
    /// on.
    pub(crate) fn regional(
        key_path: &Path,
        grant_path: &Path,
        named: Option<MeshId>,
        now_ms: u64,
    ) -> Result<Self, AuthorityError> {
        let refuse =
            |why: String| AuthorityError::Issue(format!("{}: {why}", grant_path.display()));
        let sealed = grant_file::read(grant_path)?;
        let keys = match (mesh_id::beside(key_path)?, named) {
            (Some(keys), _) => keys,
            (None, Some(id)) => MeshKeys { id, recovery: None },
            (None, None) => MeshKeys {
                id: grant_file::inspect(&sealed)
                    .ok_or_else(|| {
                        refuse("its mesh cannot be told from it: name it with --mesh".to_owned())
                    })?
                    .0,
                recovery: None,
            },
        };
        if let Some(named) = named.filter(|named| *named != keys.id) {
            return Err(refuse(format!(
                "it is a grant in mesh {}, but --mesh says {named}",
                keys.id
            )));
        }
        let own = Membership::new(keys.mesh())
            .verify_grant(&sealed, now_ms)
            .map_err(|error| refuse(format!("the issuer's own grant: {error}")))?;
        let key = key_file::read(key_path)?.id();
        if own.subject != key || own.role != Role::Operator {
            return Err(refuse(format!(
                "it makes {} a {}, and who issues needs one that makes its own key {key} an operator",
                own.subject, own.role
            )));
        }
        let own_grant = (sealed.as_bytes().to_vec(), own.region.clone());
        Self::open(key_path, keys, Some(own_grant))
    }

    fn open(
        key_path: &Path,
        keys: MeshKeys,
        own_grant: Option<(Vec<u8>, Option<Region>)>,
    ) -> Result<Self, AuthorityError> {
        Ok(Self {
            key: key_file::read(key_path)?,
            mesh: keys.mesh(),
            own_grant,
            register: mesh_id::place(key_path)?.with_file_name(REGISTER),
        })
    }

    /// The mesh for which it issues.
    pub(crate) fn mesh(&self) -> Mesh {
        self.mesh
    }

    /// Takes the recovery key's public half from elsewhere than the mesh id beside the key.
    pub(crate) fn set_recovery(&mut self, recovery: NodeId) {
        self.mesh.recovery = Some(recovery);
    }

    /// Its key.
    pub(crate) fn key(&self) -> &NodeKey {
        &self.key
    }

    /// Its own grant, where it is an operator of a region.
    pub(crate) fn own_grant(&self) -> Option<Vec<u8>> {
        self.own_grant.as_ref().map(|(grant, _)| grant.clone())
    }

    /// The region of which it is operator, where it is not of all.
    pub(crate) fn own_region(&self) -> Option<&Region> {
        self.own_grant.as_ref()?.1.as_ref()
    }

    /// Issues a grant under a new serial and enters it in the register.
    pub(crate) fn issue(
        &self,
        order: &Order,
        now_ms: u64,
    ) -> Result<(Signed<Grant>, Grant), AuthorityError> {
        register::enter(&self.register, |serial, _| {
            let grant = Grant {
                subject: order.subject,
                role: order.role,
                region: order.region.clone(),
                tier: order.tier,
                not_before_ms: now_ms,
                expires_ms: now_ms.saturating_add(order.life_ms),
                serial,
                issuer: self.own_grant(),
                consent: None,
                invite: None,
            };
            let sealed = self.seal(&grant)?;
            // What no node would take is not issued: a regional operator may not outlive itself.
            Membership::new(self.mesh)
                .verify_grant(&sealed, now_ms)
                .map_err(refused)?;
            let entry = Entry {
                serial,
                issuer: Some(self.key.id()),
                subject: grant.subject,
                role: grant.role,
                region: grant.region.clone(),
                tier: grant.tier,
                not_before_ms: grant.not_before_ms,
                expires_ms: grant.expires_ms,
            };
            Ok((Line::Grant(entry), (sealed, grant)))
        })
    }

    /// Issues an invite for a secret, and enters it without that.
    pub(crate) fn invite(
        &self,
        order: &InviteOrder,
        secret: &[u8; 32],
        now_ms: u64,
    ) -> Result<Verified<Invite>, AuthorityError> {
        register::enter(&self.register, |serial, _| {
            let invite = Invite {
                region: order.region.clone(),
                tier: order.tier,
                not_before_ms: now_ms,
                expires_ms: now_ms.saturating_add(order.life_ms),
                uses: order.uses,
                grant_life_ms: order.grant_life_ms,
                serial,
                secret: Invite::digest_of(secret),
                issuer: self.own_grant(),
            };
            let sealed = self.seal(&invite)?;
            let (verified, _) = sealed.verify_invite(&self.mesh).map_err(refused)?;
            let entry = InviteEntry {
                serial,
                issuer: self.key.id(),
                region: invite.region,
                tier: invite.tier,
                uses: invite.uses,
                not_before_ms: invite.not_before_ms,
                expires_ms: invite.expires_ms,
                grant_life_ms: invite.grant_life_ms,
            };
            Ok((Line::Invite(entry), verified))
        })
    }

    /// Signs a revocation, which counts from when somebody takes it: see [`Issuer::note`].
    pub(crate) fn revoke(
        &self,
        order: &RevocationOrder,
        now_ms: u64,
    ) -> Result<Control, AuthorityError> {
        let revocation = Revocation {
            target: order.target,
            keeps_issued: order.keeps_issued,
            reason: order.reason.clone(),
            issued_ms: now_ms,
            issuer: self.own_grant(),
        };
        let sealed = Signed::seal(&self.key, &self.mesh.id, &revocation)
            .map_err(|error| AuthorityError::Revoke(error.to_string()))?;
        sealed
            .verify_revocation(&self.mesh)
            .map_err(|error| AuthorityError::Revoke(error.to_string()))?;
        Ok(Control::Revocation(sealed.as_bytes().to_vec()))
    }

    /// Enters a revocation that somebody took. One that is there already is there once.
    pub(crate) fn note(&self, order: &RevocationOrder, now_ms: u64) -> Result<(), AuthorityError> {
        let entry = RevocationEntry {
            target: order.target,
            keeps_issued: order.keeps_issued,
            reason: order.reason.clone(),
            issued_ms: now_ms,
        };
        let known = register::read_file(&self.register)?.revocations;
        let same = |it: &RevocationEntry| {
            (it.target, it.keeps_issued) == (entry.target, entry.keeps_issued)
        };
        if known.iter().any(same) {
            return Ok(());
        }
        register::enter(&self.register, |_, _| Ok((Line::Revocation(entry), ())))
    }

    /// Who gave a serial, as far as the register beside the key says.
    pub(crate) fn issuer_of(&self, serial: u64) -> Result<Option<NodeId>, AuthorityError> {
        Ok(register::read_file(&self.register)?.issuer_of(serial))
    }

    fn seal<T: Signable>(&self, value: &T) -> Result<Signed<T>, AuthorityError> {
        Signed::seal(&self.key, &self.mesh.id, value).map_err(|error: VerifyError| refused(error))
    }
}

fn refused(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Issue(error.to_string())
}

#[cfg(test)]
mod tests {
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
        assert_eq!(members.learn(&stolen), Ok(true));
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
            issuer.note(&order, NOW).expect("noted");
        }
        let register = register::read(dir.path()).expect("read");
        assert_eq!(register.revocations.len(), 1);
        assert!(register.is_revoked(&register.grants[0]));
    }
}
