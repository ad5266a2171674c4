//! The operator's folder: the mesh's keys, and a register of what was issued and revoked.
//!
//! ```text
//! DIR/operator.key    the mesh's secret key, 0600; may stay offline
//! DIR/recovery.key    the operator's second key, 0600; to be moved away, offline
//! DIR/mesh.id         the mesh id: their public halves
//! DIR/grants.jsonl    one line for each grant, invite and revocation
//! ```

use super::mesh_id::{self, MESH_ID, MeshKeys};
use super::register::REGISTER;
use super::{AuthorityError, key_file};
use crate::files;
use std::path::{Path, PathBuf};
use tether_wire::MeshId;

/// File name of the operator's key.
pub(crate) const OPERATOR_KEY: &str = "operator.key";
/// File name of the operator's second key, as long as it lies there.
pub(crate) const RECOVERY_KEY: &str = "recovery.key";

/// Makes a mesh: an operator's key in a new folder, and a recovery key if it is to have one.
///
/// One that was cut off before the mesh id was written is finished. A folder that had a mesh and
/// lost its key is refused: a new key would be another mesh, which
/// none of the grants given so far hold in.
pub(crate) fn create(dir: &Path, with_recovery: bool) -> Result<MeshKeys, AuthorityError> {
    files::private_dir(dir).map_err(AuthorityError::io("cannot use folder", dir))?;
    require_no_lost_key(
        &dir.join(OPERATOR_KEY),
        &[
            dir.join(MESH_ID),
            dir.join(REGISTER),
            dir.join(RECOVERY_KEY),
        ],
    )?;
    let key = dir.join(OPERATOR_KEY);
    let is_cut_off = is_there(&key)? && mesh_id::beside(&key)?.is_none();
    let operator = if is_cut_off {
        key_file::read(&key)?
    } else {
        key_file::create_operator(&key)?
    };
    let id = MeshId(operator.id().0);
    if with_recovery && mesh_id::recovery_beside(&key, id)?.is_none() {
        key_file::create_recovery(&dir.join(RECOVERY_KEY), id)?;
    }
    if is_cut_off {
        return mesh_id::mend(&key);
    }
    let recovery = mesh_id::recovery_beside(&key, id)?;
    let keys = MeshKeys { id, recovery };
    mesh_id::write(&key, keys)?;
    Ok(keys)
}

/// The mesh of a folder, made if there is none.
pub(crate) fn open_or_create(dir: &Path) -> Result<MeshKeys, AuthorityError> {
    let key = dir.join(OPERATOR_KEY);
    if is_there(&key)? {
        mesh_id::mend(&key)
    } else {
        create(dir, false)
    }
}

/// An operator's key, by its file or by the folder of its mesh.
pub(crate) fn key_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.join(OPERATOR_KEY)
    } else {
        path.to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_that_lost_its_key_is_not_made_anew() {
        let dir = tempfile::tempdir().expect("temporary folder");
        create(dir.path(), true).expect("made");
        let key = dir.path().join(OPERATOR_KEY);
        std::fs::remove_file(&key).expect("lost");
        let error = create(dir.path(), true).expect_err("refused").to_string();
        assert!(error.contains("operator.key is missing"), "{error}");
        assert!(error.contains("mesh.id"), "{error}");
        assert!(!key.exists());
    }

    #[test]
    fn a_start_that_was_cut_off_after_the_key_is_finished_by_the_next() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let unfinished = |dir: &Path| create(dir, false);
        for again in [unfinished, open_or_create] {
            let keys = open_or_create(dir.path()).expect("made");
            std::fs::remove_file(dir.path().join(MESH_ID)).expect("never written");
            assert_eq!(again(dir.path()).expect("finished"), keys);
            let id = std::fs::read_to_string(dir.path().join(MESH_ID)).expect("written");
            assert_eq!(id.trim(), keys.id.to_string());
        }
        let error = create(dir.path(), false)
            .expect_err("it is there")
            .to_string();
        assert!(error.contains("exists already"), "{error}");
    }

    #[test]
    fn a_recovery_key_that_a_crash_left_unmade_is_made_by_the_next_start() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let keys = create(dir.path(), true).expect("made");
        assert!(keys.recovery.is_some());
        // Cut off after the first key, and after the second.
        let (id, recovery) = (dir.path().join(MESH_ID), dir.path().join(RECOVERY_KEY));
        std::fs::remove_file(&id).expect("never written");
        assert_eq!(create(dir.path(), true).expect("finished"), keys);
        std::fs::remove_file(&id).expect("never written");
        std::fs::remove_file(&recovery).expect("never made");
        let again = create(dir.path(), true).expect("finished");
        assert_eq!(again.id, keys.id);
        assert!(again.recovery.is_some() && again.recovery != keys.recovery);
        assert_eq!(
            mesh_id::beside(&dir.path().join(OPERATOR_KEY)).expect("read"),
            Some(again)
        );
    }

    #[test]
    fn a_key_beside_another_meshs_id_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let (own, other) = (
            create(&one, true).expect("made").id,
            create(&two, true).expect("made").id,
        );
        std::fs::copy(two.join(MESH_ID), one.join(MESH_ID)).expect("mixed up");
        let error = open_or_create(&one).expect_err("refused").to_string();
        for id in [own, other] {
            assert!(error.contains(&id.to_string()), "{error}");
        }
    }
}
