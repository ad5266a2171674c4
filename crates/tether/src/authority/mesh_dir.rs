//! The operator's folder: the mesh's key, and a register of the grants it has issued.
//!
//! ```text
//! DIR/operator.key    the mesh's secret key, 0600; may stay offline
//! DIR/mesh.id         the mesh id: its public half
//! DIR/grants.jsonl    one line for each grant issued: serial, subject, role, …
//! ```

use super::mesh_id::{self, MESH_ID};
use super::register::{self, Entry, REGISTER};
use super::{AuthorityError, key_file};
use crate::files;
use crate::stderr;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use tether_wire::grant::{Role, Tier};
use tether_wire::{Grant, MeshId, NodeId, NodeKey, Region, Signed};

/// File name of the operator's key.
pub(crate) const OPERATOR_KEY: &str = "operator.key";

/// What is to be granted.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) subject: NodeId,
    pub(crate) role: Role,
    pub(crate) region: Option<Region>,
    pub(crate) tier: Tier,
    pub(crate) life_ms: u64,
}

/// Who issues: the operator of the mesh, or one of a region with its own grant.
#[derive(Debug)]
pub(crate) struct Issuer {
    key: NodeKey,
    mesh: MeshId,
    own_grant: Option<Vec<u8>>,
    register: PathBuf,
}

/// Makes a mesh: an operator's key in a new folder.
///
/// One that was cut off before the mesh id was written is finished. A folder that had a mesh and
/// lost its key is refused: a new key would be another mesh, which
/// none of the grants given so far hold in.
pub(crate) fn create(dir: &Path) -> Result<MeshId, AuthorityError> {
    files::private_dir(dir).map_err(AuthorityError::io("cannot use folder", dir))?;
    require_no_lost_key(
        &dir.join(OPERATOR_KEY),
        &[dir.join(MESH_ID), dir.join(REGISTER)],
    )?;
    let key = dir.join(OPERATOR_KEY);
    if is_there(&key)? && mesh_id::beside(&key)?.is_none() {
        // Cut off between the two files.
        return mesh_id::mend(&key);
    }
    let id = MeshId(key_file::create_operator(&key)?.id().0);
    mesh_id::write(&key, id)?;
    Ok(id)
}

/// The mesh of a folder, made if there is none.
pub(crate) fn open_or_create(dir: &Path) -> Result<MeshId, AuthorityError> {
    let key = dir.join(OPERATOR_KEY);
    if is_there(&key)? {
        mesh_id::mend(&key)
    } else {
        create(dir)
    }
}

/// Whether a file is there; one that cannot be looked at is not taken for missing.
fn is_there(path: &Path) -> Result<bool, AuthorityError> {
    path.try_exists()
        .map_err(AuthorityError::io("cannot look at", path))
}

/// Fails if the operator's key is missing and one of these files, which are made after it, is not.
pub(crate) fn require_no_lost_key(key: &Path, traces: &[PathBuf]) -> Result<(), AuthorityError> {
    if is_there(key)? {
        return Ok(());
    }
    for trace in traces {
        if is_there(trace)? {
            return Err(AuthorityError::LostOperatorKey {
                key: key.to_owned(),
                trace: trace.clone(),
            });
        }
    }
    Ok(())
}

impl Issuer {
    /// The operator of the mesh; the register is beside the key.
    pub(crate) fn operator(key_path: &Path) -> Result<Self, AuthorityError> {
        let key = key_file::read(key_path)?;
        let register = mesh_id::place(key_path)?.with_file_name(REGISTER);
        Ok(Self {
            mesh: MeshId(key.id().0),
            own_grant: None,
            register,
            key,
        })
    }

    /// An operator of a region, who passes its own grant on with each that it issues.
    pub(crate) fn regional(
        key_path: &Path,
        own_grant: &Signed<Grant>,
        now_ms: u64,
    ) -> Result<Self, AuthorityError> {
        let mut issuer = Self::operator(key_path)?;
        issuer.mesh = MeshId(
            own_grant
                .claimed_signer()
                .ok_or_else(|| AuthorityError::Issue("the issuer's own grant is empty".into()))?
                .0,
        );
        own_grant
            .verify_grant(&issuer.mesh, now_ms)
            .map_err(|error| AuthorityError::Issue(format!("the issuer's own grant: {error}")))?;
        issuer.own_grant = Some(own_grant.as_bytes().to_vec());
        Ok(issuer)
    }

    /// The mesh for which it issues.
    pub(crate) fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Issues a grant under a new serial and enters it in the register, which is locked meanwhile.
    pub(crate) fn issue(
        &self,
        order: &Order,
        now_ms: u64,
    ) -> Result<(Signed<Grant>, Grant), AuthorityError> {
        let fail = |doing| AuthorityError::io(doing, &self.register);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&self.register)
            .map_err(fail("cannot open the register of grants"))?;
        file.lock()
            .map_err(fail("cannot lock the register of grants"))?;
        let (entries, whole_bytes) = register::read_entries(&file, &self.register)?;
        // Under the lock, so that what is cut off is no other process's line being written.
        let bytes = file
            .metadata()
            .map_err(fail("cannot read the register of grants"))?
            .len();
        if bytes > whole_bytes {
            stderr::line(format_args!(
                "warning: the last line of {} was cut off and is removed: that grant was never given",
                self.register.display()
            ));
            file.set_len(whole_bytes)
                .map_err(fail("cannot mend the register of grants"))?;
        }
        let serial = register::new_serial(&entries, &mut rand::rng());
        let grant = Grant {
            subject: order.subject,
            role: order.role,
            region: order.region.clone(),
            tier: order.tier,
            not_before_ms: now_ms,
            expires_ms: now_ms.saturating_add(order.life_ms),
            serial,
            issuer: self.own_grant.clone(),
        };
        let refuse = |error: String| AuthorityError::Issue(error);
        let sealed = Signed::seal(&self.key, &self.mesh, &grant)
            .map_err(|error| refuse(error.to_string()))?;
        // What no node would take is not issued: a regional operator may not outlive itself.
        sealed
            .verify_grant(&self.mesh, now_ms)
            .map_err(|error| refuse(error.to_string()))?;
        let entry = Entry {
            serial,
            subject: grant.subject,
            role: grant.role,
            region: grant.region.clone(),
            tier: grant.tier,
            not_before_ms: grant.not_before_ms,
            expires_ms: grant.expires_ms,
        };
        let mut line = serde_json::to_vec(&entry).map_err(|error| refuse(error.to_string()))?;
        line.push(b'\n');
        file.write_all(&line)
            .and_then(|()| file.sync_all())
            .map_err(fail("cannot write the register of grants"))?;
        Ok((sealed, grant))
    }
}

#[cfg(test)]
mod tests {
    use super::super::register::entries;
    use super::*;

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
        let mesh = create(&dir.path().join("m")).expect("made");
        let dir = dir.path().join("m");
        assert_eq!(entries(&dir).expect("none yet"), Vec::new());
        let key = dir.join(OPERATOR_KEY);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let issuer = Issuer::operator(&key).expect("read");
                    let (sealed, _) = issuer.issue(&order(Role::Worker), NOW).expect("issued");
                    sealed.verify_grant(&mesh, NOW).expect("valid");
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
                create(&copy).expect("made");
            } else {
                files::private_dir(&copy).expect("made");
                let key = dir.path().join("one").join(OPERATOR_KEY);
                std::fs::copy(key, copy.join(OPERATOR_KEY)).expect("copied");
            }
            let issuer = Issuer::operator(&copy.join(OPERATOR_KEY)).expect("read");
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
        create(&mesh).expect("made");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(mesh.join(OPERATOR_KEY), &link).expect("linked");
        let issue = |key: &Path| {
            let issuer = Issuer::operator(key).expect("read");
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
        create(&mesh).expect("made");
        std::fs::create_dir(&safe).expect("made");
        let (key, kept) = (mesh.join(OPERATOR_KEY), safe.join("usb.key"));
        std::fs::rename(&key, &kept).expect("moved");
        std::os::unix::fs::symlink(&kept, &key).expect("linked");
        let issuer = Issuer::operator(&key).expect("read");
        issuer.issue(&order(Role::Worker), NOW).expect("issued");
        assert_eq!(entries(&mesh).expect("read").len(), 1);
        assert!(mesh.join(REGISTER).exists() && !safe.join(REGISTER).exists());
    }

    #[test]
    fn a_regional_operator_issues_for_its_region_within_its_own_time() {
        let dir = tempfile::tempdir().expect("temporary folder");
        create(dir.path()).expect("made");
        let operator = Issuer::operator(&dir.path().join(OPERATOR_KEY)).expect("read");
        let regional_dir = dir.path().join("eu");
        files::private_dir(&regional_dir).expect("made");
        let key = key_file::create(&regional_dir.join("regional.key")).expect("made");
        let own_order = Order {
            subject: key.id(),
            ..order(Role::Operator)
        };
        let (own, _) = operator.issue(&own_order, NOW).expect("issued");
        let regional =
            Issuer::regional(&regional_dir.join("regional.key"), &own, NOW).expect("operator");
        let (sealed, _) = regional.issue(&order(Role::Worker), NOW).expect("issued");
        assert!(sealed.verify_grant(&operator.mesh(), NOW).is_ok());
        let (mesh, _) = super::super::grant_file::inspect(&sealed).expect("readable");
        assert_eq!(mesh, operator.mesh());
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
        create(dir.path()).expect("made");
        let issuer = Issuer::operator(&dir.path().join(OPERATOR_KEY)).expect("read");
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
    fn a_mesh_that_lost_its_key_is_not_made_anew() {
        let dir = tempfile::tempdir().expect("temporary folder");
        create(dir.path()).expect("made");
        let key = dir.path().join(OPERATOR_KEY);
        std::fs::remove_file(&key).expect("lost");
        let error = create(dir.path()).expect_err("refused").to_string();
        assert!(error.contains("operator.key is missing"), "{error}");
        assert!(error.contains("mesh.id"), "{error}");
        assert!(!key.exists());
    }

    #[test]
    fn a_start_that_was_cut_off_after_the_key_is_finished_by_the_next() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for again in [create, open_or_create] {
            let mesh = open_or_create(dir.path()).expect("made");
            std::fs::remove_file(dir.path().join(MESH_ID)).expect("never written");
            assert_eq!(again(dir.path()).expect("finished"), mesh);
            let id = std::fs::read_to_string(dir.path().join(MESH_ID)).expect("written");
            assert_eq!(id.trim(), mesh.to_string());
        }
        let error = create(dir.path()).expect_err("it is there").to_string();
        assert!(error.contains("exists already"), "{error}");
    }

    #[test]
    fn a_key_beside_another_meshs_id_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let (own, other) = (create(&one).expect("made"), create(&two).expect("made"));
        std::fs::copy(two.join(MESH_ID), one.join(MESH_ID)).expect("mixed up");
        let error = open_or_create(&one).expect_err("refused").to_string();
        for id in [own, other] {
            assert!(error.contains(&id.to_string()), "{error}");
        }
    }

    #[test]
    fn a_grant_for_ever_is_not_issued_and_not_entered() {
        let dir = tempfile::tempdir().expect("temporary folder");
        create(dir.path()).expect("made");
        let issuer = Issuer::operator(&dir.path().join(OPERATOR_KEY)).expect("read");
        let for_ever = Order {
            life_ms: u64::MAX,
            ..order(Role::Worker)
        };
        assert!(issuer.issue(&for_ever, NOW).is_err());
        assert_eq!(entries(dir.path()).expect("read"), Vec::new());
    }
}
