//! Secrets in files of mode 0600, never printed: a node's key as 32 bytes in hex, an API key as it
//! is.

use super::{AuthorityError, payload, read_text};
use crate::commands::tenant;
use crate::files;
use rand::RngCore;
use std::path::Path;
use tether_wire::{MeshId, NodeId, NodeKey};

/// Most bytes of a key file: a comment and 64 digits.
const MAX_KEY_FILE_BYTES: u64 = 1_024;
const WHAT: &str = "a key file made by `tether keys new`";
/// How the file of a node's key begins.
const NODE_HEADING: &str = "# Secret key of tether node ";
/// How the file of a mesh's recovery key begins; the mesh's id follows.
const RECOVERY_HEADING: &str = "# Recovery key of the operator of tether mesh ";

/// A new key from the system's randomness.
pub(crate) fn generate() -> NodeKey {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    NodeKey::from_seed(seed)
}

/// Makes a node's key file; one that is there is never overwritten.
pub(crate) fn create(path: &Path) -> Result<NodeKey, AuthorityError> {
    let key = generate();
    create_text(path, &node_text(&key))?;
    Ok(key)
}

/// The same for the key of a mesh's operator.
pub(crate) fn create_operator(path: &Path) -> Result<NodeKey, AuthorityError> {
    create_with(path, |id| {
        format!(
            "# Secret key of the operator of tether mesh {id}. Whoever has it gives every role."
        )
    })
}

/// The same for the operator's second key, whose file says which mesh it is for: it is kept apart
/// from everything else that does.
pub(crate) fn create_recovery(path: &Path, mesh: MeshId) -> Result<NodeKey, AuthorityError> {
    create_with(path, |_| {
        format!(
            "{RECOVERY_HEADING}{mesh}.\n# Whoever has it gives and takes back every role, also from the operator's first key.\n# Keep it offline, and apart from operator.key."
        )
    })
}

/// The mesh for which a key file says that it is the recovery key.
pub(crate) fn recovers(path: &Path) -> Result<Option<MeshId>, AuthorityError> {
    let text = read_secret(path)?;
    let Some(rest) = text.strip_prefix(RECOVERY_HEADING) else {
        return Ok(None);
    };
    let id = rest.get(..64).unwrap_or_default().parse();
    id.map(Some).map_err(|_| AuthorityError::Malformed {
        path: path.to_owned(),
        what: "a recovery key made by `tether mesh new`",
        why: "its first line names no mesh".to_owned(),
    })
}

/// What a node's key file holds.
fn node_text(key: &NodeKey) -> String {
    let id = key.id();
    let seed = hex::encode(key.seed());
    format!("{NODE_HEADING}{id}. Whoever has it is this node.\n{seed}\n")
}

/// Puts another key in the place of a node's, at once.
pub(crate) fn replace(path: &Path, key: &NodeKey) -> Result<(), AuthorityError> {
    files::replace_private(path, node_text(key).as_bytes())
        .map_err(AuthorityError::io("cannot replace key file", path))
}

fn create_with(path: &Path, heading: impl Fn(NodeId) -> String) -> Result<NodeKey, AuthorityError> {
    let key = generate();
    let text = format!("{}\n{}\n", heading(key.id()), hex::encode(key.seed()));
    create_text(path, &text)?;
    Ok(key)
}

fn create_text(path: &Path, text: &str) -> Result<(), AuthorityError> {
    files::create_private(path, text.as_bytes()).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => AuthorityError::Exists {
            path: path.to_owned(),
        },
        _ => AuthorityError::io("cannot make key file", path)(error),
    })
}

/// Reads a key file that only its owner can read.
pub(crate) fn read(path: &Path) -> Result<NodeKey, AuthorityError> {
    let text = read_secret(path)?;
    let malformed = |why: &str| AuthorityError::Malformed {
        path: path.to_owned(),
        what: WHAT,
        // The decoder's own words could quote a secret.
        why: why.to_owned(),
    };
    let line = payload(&text).map_err(|why| malformed(&why))?;
    let mut seed = [0; 32];
    hex::decode_to_slice(line, &mut seed)
        .map_err(|_| malformed("it does not hold 64 hex digits"))?;
    Ok(NodeKey::from_seed(seed))
}

/// Whether a key file says that it was made for a node.
pub(crate) fn is_for_a_node(path: &Path) -> Result<bool, AuthorityError> {
    Ok(read_secret(path)?.starts_with(NODE_HEADING))
}

/// The text of a file with a secret, which only its owner can read.
fn read_secret(path: &Path) -> Result<String, AuthorityError> {
    if let Some(mode) =
        files::open_to_others(path).map_err(AuthorityError::io("cannot read key file", path))?
    {
        return Err(AuthorityError::OpenKey {
            path: path.to_owned(),
            mode,
        });
    }
    read_text(path, MAX_KEY_FILE_BYTES)
}

/// Reads a tenant's API key, or makes its file.
pub(crate) fn api_key(path: &Path) -> Result<String, AuthorityError> {
    let key = tenant::new_api_key();
    match files::create_private(path, format!("{key}\n").as_bytes()) {
        Ok(()) => return Ok(key),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(AuthorityError::io("cannot make key file", path)(error)),
    }
    let text = read_secret(path)?;
    let key = text.trim();
    if !tenant::is_api_key(key) {
        return Err(AuthorityError::Malformed {
            path: path.to_owned(),
            what: "an API key's file",
            // Without the text, which may be most of a secret.
            why: "it does not hold `tk-` and 64 hex digits; restore it, or remove it and a new key is made".to_owned(),
        });
    }
    Ok(key.to_owned())
}

/// Reads a key file, or makes it.
pub(crate) fn read_or_create(path: &Path) -> Result<NodeKey, AuthorityError> {
    match create(path) {
        Err(AuthorityError::Exists { .. }) => read(path),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_kept_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("node.key");
        let key = create(&path).expect("made");
        assert_eq!(read(&path).expect("read").id(), key.id());
        assert!(matches!(create(&path), Err(AuthorityError::Exists { .. })));
        assert_eq!(read_or_create(&path).expect("read").id(), key.id());
        assert_ne!(generate().id(), key.id());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("node.key");
        create(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("opened");
        let error = read(&path).expect_err("open to the group");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn an_api_key_is_kept_and_one_that_is_cut_off_or_open_to_others_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("api-key");
        let key = api_key(&path).expect("made");
        assert_eq!(api_key(&path).expect("read"), key);
        let set_mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        };
        set_mode(0o644);
        let error = api_key(&path).expect_err("open to all").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        set_mode(0o600);
        let upper = key.to_uppercase();
        for bad in [
            "",
            "\n",
            "tk-",
            &key[..66],
            &key[3..],
            &upper,
            &key.repeat(2),
        ] {
            std::fs::write(&path, bad).expect("written");
            let error = api_key(&path).expect_err(bad).to_string();
            assert!(error.contains("remove it and a new key is made"), "{error}");
            assert!(bad.len() < 4 || !error.contains(bad.trim()), "{error}");
        }
        std::fs::remove_file(&path).expect("removed");
        assert_ne!(api_key(&path).expect("what it says works"), key);
    }

    #[test]
    fn an_error_never_quotes_what_may_be_a_secret() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for content in ["", "abcd", &"zz".repeat(32), &"a".repeat(2_000), "aa\nbb"] {
            let path = dir.path().join("bad.key");
            files::replace_private(&path, content.as_bytes()).expect("written");
            let error = read(&path).expect_err(content).to_string();
            assert!(content.len() < 4 || !error.contains(content), "{error}");
        }
    }
}
