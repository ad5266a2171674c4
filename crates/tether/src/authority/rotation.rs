//! A node's key replaced by a new one, to which the old one passes its grant on. [T-GRA-8]
//!
//! Key and grant are two files, and a crash may come between any two writes. So the grant's file is
//! first made to hold both grants, then the key is replaced, then the old grant is taken out:
//! whichever key is there finds the grant that is its own ([`grant_file::read_of`]), and the node
//! can be started at any moment without anything to mend. A grant to a new key that a crash lost was
//! shown to nobody, so that passing it on again is no second time.

use super::{AuthorityError, grant_file, key_file};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use tether_wire::grant::chain::{Chain, MAX_TRANSFERS, pass_on};
use tether_wire::{Grant, Membership, NodeId, NodeKey, Signed, Verified};

/// What is about to be done.
struct Rotation {
    key_path: PathBuf,
    new: NodeKey,
    grant: Option<Passed>,
}

struct Passed {
    path: PathBuf,
    old: Verified<Grant>,
    new: Verified<Grant>,
}

/// What is written, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    BothGrants,
    NewKey,
    NewGrant,
}

const STEPS: [Step; 3] = [Step::BothGrants, Step::NewKey, Step::NewGrant];

/// What was done.
#[derive(Debug)]
pub(crate) struct Rotated {
    pub(crate) old: NodeId,
    pub(crate) new: NodeId,
    /// How often the grant can be passed on after this.
    pub(crate) left: Option<usize>,
}

/// Replaces a node's key, and passes its grant on to the new one if it has one.
pub(crate) fn rotate(
    key_path: &Path,
    grant_path: Option<&Path>,
    members: &Membership,
    now_ms: u64,
) -> Result<Rotated, AuthorityError> {
    // Where the key is a link, the key itself is to be gone.
    let key_path = key_path
        .canonicalize()
        .map_err(AuthorityError::io("cannot read key file", key_path))?;
    let _lock = lock(&key_path)?;
    let old = key_file::read(&key_path)?;
    members
        .check_key(&old.id())
        .map_err(|refusal| AuthorityError::Rotate(refusal.to_string()))?;
    let new = key_file::generate();
    let passed = grant_path.map(|path| pass(path, &old, &new, members, now_ms));
    let (grant, left) = match passed.transpose()? {
        Some((passed, left)) => (Some(passed), Some(left)),
        None => (None, None),
    };
    let rotation = Rotation {
        key_path,
        new,
        grant,
    };
    for step in STEPS {
        rotation.take(step)?;
    }
    Ok(Rotated {
        old: old.id(),
        new: rotation.new.id(),
        left,
    })
}

fn lock(key_path: &Path) -> Result<File, AuthorityError> {
    let folder = key_path.parent().unwrap_or(Path::new("/"));
    let fail = AuthorityError::io("cannot lock", folder);
    let file = match File::open(folder) {
        Ok(file) => file,
        Err(error) => return Err(fail(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(AuthorityError::Rotate(format!(
            "another process works on {}: wait for it",
            folder.display()
        ))),
        Err(TryLockError::Error(error)) => Err(fail(error)),
    }
}

/// The grant for the new key, judged as every peer will; and how often it can go on from there.
fn pass(
    path: &Path,
    old: &NodeKey,
    new: &NodeKey,
    members: &Membership,
    now_ms: u64,
) -> Result<(Passed, usize), AuthorityError> {
    let refuse = |why: String| AuthorityError::Rotate(format!("{}: {why}", path.display()));
    let mesh = members.mesh();
    let held = grant_file::read_of(path, &old.id())?;
    let grant = members
        .verify_grant(&held, now_ms)
        .map_err(|error| refuse(error.to_string()))?;
    if grant.subject != old.id() {
        return Err(refuse(format!(
            "it is for {}, but the key is {}",
            grant.subject,
            old.id()
        )));
    }
    let chain = Chain::verify(&held, mesh).map_err(|error| refuse(error.to_string()))?;
    let so_far = (chain.grants().iter())
        .take_while(|grant| grant.consent.is_some())
        .count();
    let anew = "make a new key with `tether keys new`, and ask the operator for a new grant";
    if so_far >= MAX_TRANSFERS {
        return Err(refuse(format!(
            "it was passed on {so_far} times, which is the most: {anew}"
        )));
    }
    let sealed = pass_on(&held, old, new, &mesh.id, now_ms)
        .map_err(|error| refuse(format!("it cannot be passed on again ({error}): {anew}")))?;
    let passed = members
        .verify_grant(&sealed, now_ms)
        .map_err(|error| refuse(format!("it cannot be passed on ({error}): {anew}")))?;
    let passed = Passed {
        path: path.to_owned(),
        old: grant,
        new: passed,
    };
    Ok((passed, MAX_TRANSFERS - so_far - 1))
}

impl Rotation {
    fn take(&self, step: Step) -> Result<(), AuthorityError> {
        let sealed = |grant: &Verified<Grant>| Signed::from_bytes(grant.bytes().clone());
        match (step, &self.grant) {
            (Step::BothGrants, Some(it)) => grant_file::write_both(
                &it.path,
                (&sealed(&it.new), &it.new),
                (&sealed(&it.old), &it.old),
            ),
            (Step::NewKey, _) => key_file::replace(&self.key_path, &self.new),
            (Step::NewGrant, Some(it)) => grant_file::write(&it.path, &sealed(&it.new), &it.new),
            (_, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::issuer::{Issuer, Order};
    use super::super::mesh_dir::{OPERATOR_KEY, create};
    use super::*;
    use tether_wire::Role;
    use tether_wire::grant::Tier;

    const NOW: u64 = 1_800_000_000_000;

    struct Node {
        _dir: tempfile::TempDir,
        key: PathBuf,
        grant: PathBuf,
        members: Membership,
    }

    fn node() -> Node {
        let dir = tempfile::tempdir().expect("temporary folder");
        create(&dir.path().join("mesh"), false).expect("made");
        let issuer = Issuer::operator(&dir.path().join("mesh").join(OPERATOR_KEY), None);
        let issuer = issuer.expect("read");
        let (key, grant) = (dir.path().join("node.key"), dir.path().join("node.grant"));
        let order = Order {
            subject: key_file::create(&key).expect("made").id(),
            role: Role::Worker,
            region: None,
            tier: Tier::Trusted,
            life_ms: 1_000_000,
        };
        let (sealed, issued) = issuer.issue(&order, NOW).expect("issued");
        grant_file::create(&grant, &sealed, &issued).expect("written");
        Node {
            _dir: dir,
            key,
            grant,
            members: Membership::new(issuer.mesh()),
        }
    }

    impl Node {
        /// The key, where the node could be started with what is on the disk.
        fn works(&self) -> NodeId {
            let key = key_file::read(&self.key).expect("a key").id();
            let sealed = grant_file::read_of(&self.grant, &key).expect("a grant");
            let grant = self.members.verify_grant(&sealed, NOW).expect("holds");
            assert_eq!(grant.subject, key);
            key
        }

        fn rotate(&self) -> Result<Rotated, AuthorityError> {
            rotate(&self.key, Some(&self.grant), &self.members, NOW)
        }
    }

    #[test]
    fn a_crash_at_any_point_leaves_an_identity_that_works() {
        for done in 0..=STEPS.len() {
            let node = node();
            let before = node.works();
            let old = key_file::read(&node.key).expect("read");
            let new = key_file::generate();
            let (passed, _) = pass(&node.grant, &old, &new, &node.members, NOW).expect("passed on");
            let rotation = Rotation {
                key_path: node.key.clone(),
                new,
                grant: Some(passed),
            };
            for step in &STEPS[..done] {
                rotation.take(*step).expect("written");
            }
            let after = node.works();
            assert_eq!(after == before, done < 2, "after {done} writes");
            // Whatever was left is as good as any other to go on from.
            let rotated = node.rotate().expect("again");
            assert_eq!((rotated.old, rotated.new), (after, node.works()));
        }
    }

    #[test]
    fn the_old_key_is_nowhere_afterwards() {
        let node = node();
        let seed = hex::encode(key_file::read(&node.key).expect("read").seed());
        let rotated = node.rotate().expect("replaced");
        assert_eq!(node.works(), rotated.new);
        for entry in std::fs::read_dir(node.key.parent().expect("a folder")).expect("read") {
            let path = entry.expect("read").path();
            if path.is_file() {
                let text = std::fs::read_to_string(&path).expect("text");
                assert!(!text.contains(&seed), "{}", path.display());
            }
        }
        let text = std::fs::read_to_string(&node.grant).expect("read");
        assert_eq!(text.lines().count(), 2, "one grant: {text}");
    }

    #[test]
    fn after_four_times_a_new_grant_is_asked_for() {
        let node = node();
        for left in [3, 2, 1, 0] {
            assert_eq!(node.rotate().expect("replaced").left, Some(left));
        }
        let before = node.works();
        let error = node.rotate().expect_err("too often").to_string();
        for words in ["4 times", "tether keys new", "new grant"] {
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(node.works(), before, "nothing was changed");
    }

    #[test]
    fn a_grant_that_is_over_or_revoked_is_not_passed_on() {
        let mut node = node();
        let before = node.works();
        let late = rotate(&node.key, Some(&node.grant), &node.members, NOW + 1_000_000);
        assert!(late.expect_err("over").to_string().contains("expired"));
        let operator = key_file::read(&node.key.with_file_name("mesh/operator.key")).expect("read");
        let revocation = tether_wire::Revocation {
            target: tether_wire::control::Target::Key(before),
            keeps_issued: false,
            reason: String::new(),
            issued_ms: NOW,
            issuer: None,
        };
        let sealed = Signed::seal(&operator, &node.members.mesh().id, &revocation).expect("sealed");
        let control = tether_wire::Control::Revocation(sealed.as_bytes().to_vec());
        node.members.learn(&control, NOW).expect("taken");
        let error = node.rotate().expect_err("revoked").to_string();
        assert!(error.contains("was revoked"), "{error}");
    }

    #[test]
    fn without_a_grant_it_is_just_another_key() {
        let node = node();
        let before = node.works();
        let rotated = rotate(&node.key, None, &node.members, NOW).expect("replaced");
        assert_eq!((rotated.old, rotated.left), (before, None));
        assert_eq!(key_file::read(&node.key).expect("read").id(), rotated.new);
    }
}
