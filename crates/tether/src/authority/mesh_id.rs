//! The mesh id beside an operator's key: the public halves of the mesh's keys, for people to copy.
//!
//! ```text
//! 3f…                     the mesh id: public half of operator.key
//! recovery 9a…            public half of the recovery key, where the mesh has one
//! ```
//!
//! The first line says nothing that the key does not say, so a key that is kept elsewhere needs no
//! mesh id, and one that is missing is written again. What it is good for is to notice a mistake:
//! any key can sign, and what the wrong one signs holds in no mesh that anybody is in.

use super::mesh_dir::RECOVERY_KEY;
use super::{AuthorityError, key_file, payloads, read_text};
use crate::files;
use crate::stderr;
use std::path::{Path, PathBuf};
use tether_wire::grant::{Access, Mesh};
use tether_wire::{MeshId, NodeId};

/// File name of the mesh id.
pub(crate) const MESH_ID: &str = "mesh.id";
/// Most bytes of that file: twice 64 digits, and what an editor may add.
const MAX_BYTES: u64 = 1_024;
/// What stands before the recovery key.
const RECOVERY: &str = "recovery ";

/// The keys of a mesh's operator, by their public halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MeshKeys {
    pub(crate) id: MeshId,
    pub(crate) recovery: Option<NodeId>,
}

impl MeshKeys {
    /// The mesh, as it is judged who may sign: who may come makes no difference to that.
    pub(crate) fn mesh(self) -> Mesh {
        Mesh {
            id: self.id,
            recovery: self.recovery,
            access: Access::default(),
        }
    }
}

/// Where a key is, for what is kept beside it: mesh id and register.
///
/// A link to a key may stand anywhere, and what it leads to tells whose it is; a link in a mesh's
/// folder, to a key that is kept elsewhere, stands where the key belongs.
pub(super) fn place(key: &Path) -> Result<PathBuf, AuthorityError> {
    let is_link = key.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    let id = key.with_file_name(MESH_ID);
    if !is_link
        || id
            .try_exists()
            .map_err(AuthorityError::io("cannot look at", &id))?
    {
        return Ok(key.to_owned());
    }
    key.canonicalize()
        .map_err(AuthorityError::io("cannot look at", key))
}

/// The mesh id beside a key, if there is one.
///
/// # Errors
/// When it is there and cannot be read, or holds something else.
pub(crate) fn beside(key: &Path) -> Result<Option<MeshKeys>, AuthorityError> {
    let file = place(key)?.with_file_name(MESH_ID);
    let text = match read_text(&file, MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.is_missing() => return Ok(None),
        Err(error) => return Err(error),
    };
    let malformed = |why: String| AuthorityError::Malformed {
        path: file.clone(),
        what: "a mesh id",
        why: format!("{why}; remove it, and `tether mesh new` on its folder writes it again"),
    };
    parse(&text).map(Some).map_err(malformed)
}

fn parse(text: &str) -> Result<MeshKeys, String> {
    let mut lines = payloads(text);
    let id = lines.next().ok_or("it is empty")?;
    let id = id.parse::<MeshId>().map_err(|error| error.to_string())?;
    let recovery = match lines.next() {
        None => None,
        Some(line) => {
            let key = line.strip_prefix(RECOVERY);
            let key = key.ok_or("its second line is not `recovery` and a key")?;
            let key = key.trim().parse::<NodeId>();
            Some(key.map_err(|error| error.to_string())?)
        }
    };
    match lines.next() {
        None => Ok(MeshKeys { id, recovery }),
        Some(_) => Err("it has more than two lines besides comments".to_owned()),
    }
}

/// Writes the mesh id beside a key.
pub(super) fn write(key: &Path, keys: MeshKeys) -> Result<(), AuthorityError> {
    let file = place(key)?.with_file_name(MESH_ID);
    let mut text = format!("{}\n", keys.id);
    if let Some(recovery) = keys.recovery {
        text += &format!("{RECOVERY}{recovery}\n");
    }
    files::replace_private(&file, text.as_bytes())
        .map_err(AuthorityError::io("cannot write", &file))
}

/// The mesh whose operator's key this is, the first or the recovery key: of the one that was named,
/// and of the one whose id is beside it. Where neither is there, a key that was made for a node is
/// not taken.
pub(crate) fn of_operator(path: &Path, named: Option<MeshId>) -> Result<MeshKeys, AuthorityError> {
    let key = key_file::read(path)?.id();
    let beside = beside(path)?;
    let own = match (beside, key_file::recovers(path)?) {
        (Some(keys), _) if keys.recovery == Some(key) => keys,
        (_, Some(id)) => MeshKeys {
            id,
            recovery: Some(key),
        },
        (Some(keys), None) if keys.id.operator() == key => keys,
        (_, None) => MeshKeys {
            id: MeshId(key.0),
            recovery: None,
        },
    };
    let file = place(path)?.with_file_name(MESH_ID);
    agree(path, own.id, named, "--mesh")?;
    let said = beside.map(|keys| keys.id);
    agree(path, own.id, said, &file.display().to_string())?;
    if beside.is_some_and(|keys| keys != own) {
        return Err(AuthorityError::Issue(format!(
            "{} is another recovery key than the one that {} names: what it signs holds with no node",
            path.display(),
            file.display()
        )));
    }
    if named.or(said).is_none() && key_file::is_for_a_node(path)? {
        return Err(AuthorityError::Issue(format!(
            "{} was made for a node and is not the key of a mesh's operator: give the one that `tether mesh new` made, or with --operator-grant the grant of a region's operator; if it is an operator's nevertheless, name its mesh with --mesh {}",
            path.display(),
            own.id
        )));
    }
    Ok(own)
}

/// The mesh of an operator's key, whose id is written beside it where it is missing: a start that
/// was cut off after the key is mended by the next.
pub(super) fn mend(path: &Path) -> Result<MeshKeys, AuthorityError> {
    let own = MeshId(key_file::read(path)?.id().0);
    let file = place(path)?.with_file_name(MESH_ID);
    let said = beside(path)?;
    agree(
        path,
        own,
        said.map(|keys| keys.id),
        &file.display().to_string(),
    )?;
    if let Some(said) = said {
        return Ok(said);
    }
    let keys = MeshKeys {
        id: own,
        recovery: recovery_beside(path, own)?,
    };
    write(path, keys)?;
    stderr::line(format_args!(
        "note: {} was missing and is written again from {}",
        file.display(),
        path.display()
    ));
    if keys.recovery.is_none() {
        stderr::line(format_args!(
            "note: if this mesh has a recovery key, add the line `recovery` and its id (`tether keys show`)"
        ));
    }
    Ok(keys)
}

/// The recovery key that still lies beside an operator's key.
pub(super) fn recovery_beside(key: &Path, mesh: MeshId) -> Result<Option<NodeId>, AuthorityError> {
    let file = place(key)?.with_file_name(RECOVERY_KEY);
    match key_file::recovers(&file) {
        Ok(said) => {
            agree(&file, mesh, said, "its own first line")?;
            Ok(Some(key_file::read(&file)?.id()))
        }
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

fn agree(key: &Path, own: MeshId, said: Option<MeshId>, place: &str) -> Result<(), AuthorityError> {
    match said {
        Some(said) if said != own => Err(AuthorityError::OtherMesh {
            key: key.to_owned(),
            own,
            place: place.to_owned(),
            said,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::mesh_dir::{OPERATOR_KEY, create};
    use super::*;
    use std::fs;

    #[test]
    fn an_operators_key_is_taken_wherever_it_is_kept() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mesh = create(&dir.path().join("mesh"), true).expect("made").id;
        let safe = dir.path().join("usb-stick.key");
        // A copy keeps the mode.
        fs::copy(dir.path().join("mesh").join(OPERATOR_KEY), &safe).expect("copied");
        of_operator(&safe, None).expect("the operator's");
        of_operator(&safe, Some(mesh)).expect("of this mesh");
        let other = create(&dir.path().join("other"), true).expect("made").id;
        let error = of_operator(&safe, Some(other)).expect_err("of another");
        let words = error.to_string();
        for word in ["--mesh", &mesh.to_string(), &other.to_string()] {
            assert!(words.contains(word), "{words}");
        }
        // A link stands for the key: whose it is tells the folder that it leads to.
        let link = dir.path().join("link.key");
        std::os::unix::fs::symlink(dir.path().join("mesh").join(OPERATOR_KEY), &link)
            .expect("linked");
        of_operator(&link, None).expect("the operator's");
        let id = dir.path().join("mesh").join(MESH_ID);
        fs::write(&id, format!("{other}\n")).expect("written");
        let error = of_operator(&link, None).expect_err("beside another's");
        assert!(error.to_string().contains("mesh/mesh.id"), "{error}");
        fs::write(dir.path().join(MESH_ID), format!("{other}\n")).expect("written");
        let error = of_operator(&safe, None).expect_err("beside another's");
        assert!(error.to_string().contains(MESH_ID), "{error}");
    }

    #[test]
    fn a_nodes_key_is_taken_only_by_the_name_of_its_mesh() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("node.key");
        let own = MeshId(key_file::create(&path).expect("made").id().0);
        let error = of_operator(&path, None).expect_err("a node's");
        assert!(
            error.to_string().contains(&format!("--mesh {own}")),
            "{error}"
        );
        of_operator(&path, Some(own)).expect("meant");
    }

    #[test]
    fn a_mesh_id_that_cannot_be_read_is_not_a_missing_one() {
        let dir = tempfile::tempdir().expect("temporary folder");
        create(dir.path(), false).expect("made");
        let (key, file) = (dir.path().join(OPERATOR_KEY), dir.path().join(MESH_ID));
        // A folder cannot be read by anybody, also not by root, as whom tests may run.
        fs::remove_file(&file).expect("removed");
        fs::create_dir(&file).expect("in its place");
        for error in [
            of_operator(&key, None).expect_err("unreadable"),
            mend(&key).expect_err("unreadable"),
        ] {
            let words = error.to_string();
            assert!(
                words.contains("cannot read") && words.contains(MESH_ID),
                "{words}"
            );
        }
        fs::remove_dir(&file).expect("removed");
        fs::write(&file, "half of a mesh").expect("written");
        let error = of_operator(&key, None).expect_err("malformed");
        assert!(error.to_string().contains("is not a mesh id"), "{error}");
    }
}
