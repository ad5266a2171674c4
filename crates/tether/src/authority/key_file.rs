//! A node's secret key in a file: 32 bytes in hex, mode 0600, never printed.

use super::{AuthorityError, payload, read_text};
use crate::files;
use rand::RngCore;
use std::path::Path;
use tether_wire::NodeKey;

/// Most bytes of a key file: a comment and 64 digits.
const MAX_KEY_FILE_BYTES: u64 = 1_024;
const WHAT: &str = "a key file made by `tether keys new`";

/// A new key from the system's randomness.
pub(crate) fn generate() -> NodeKey {
    let mut seed = [0; 32];
    rand::rng().fill_bytes(&mut seed);
    NodeKey::from_seed(seed)
}

/// Makes a key file; one that is there is never overwritten.
pub(crate) fn create(path: &Path) -> Result<NodeKey, AuthorityError> {
    let key = generate();
    let text = format!(
        "# Secret key of tether node {}. Whoever has it is this node.\n{}\n",
        key.id(),
        hex::encode(key.seed())
    );
    files::create_private(path, text.as_bytes()).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => AuthorityError::Exists {
            path: path.to_owned(),
        },
        _ => AuthorityError::io("cannot make key file", path)(error),
    })?;
    Ok(key)
}

/// Reads a key file that only its owner can read.
pub(crate) fn read(path: &Path) -> Result<NodeKey, AuthorityError> {
    if let Some(mode) =
        files::open_to_others(path).map_err(AuthorityError::io("cannot read key file", path))?
    {
        return Err(AuthorityError::OpenKey {
            path: path.to_owned(),
            mode,
        });
    }
    let text = read_text(path, MAX_KEY_FILE_BYTES)?;
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
