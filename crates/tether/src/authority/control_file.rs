//! A control message in a file: hex with a comment, for an operator whose key is on no network.

use super::{AuthorityError, payload, read_text};
use crate::files;
use std::path::Path;
use tether_wire::codec;
use tether_wire::control::{Control, MAX_CONTROL_BYTES};

/// Most bytes of the file: the hex of the largest message, and comments.
const MAX_FILE_BYTES: u64 = 2 * MAX_CONTROL_BYTES as u64 + 2_048;

/// Writes a message to a new file.
pub(crate) fn create(path: &Path, what: &str, control: &Control) -> Result<(), AuthorityError> {
    let what = what.replace(['\n', '\r'], " ");
    let text = format!("# {what}\n{}\n", hex::encode(codec::encode(control)));
    files::create_private(path, text.as_bytes()).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => AuthorityError::Exists {
            path: path.to_owned(),
        },
        _ => AuthorityError::io("cannot write", path)(error),
    })
}

/// Reads a message, whose signature whoever takes it will check.
pub(crate) fn read(path: &Path) -> Result<Control, AuthorityError> {
    let text = read_text(path, MAX_FILE_BYTES)?;
    let malformed = |why: String| AuthorityError::Malformed {
        path: path.to_owned(),
        what: "a control message made by `tether revoke --out`",
        why,
    };
    let line = payload(&text).map_err(malformed)?;
    let bytes = hex::decode(line).map_err(|error| malformed(error.to_string()))?;
    Control::decode(&bytes).map_err(|error| malformed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_travels_by_hand_and_what_was_cut_off_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("lost.control");
        let control = Control::Revocation(vec![7; 300]);
        create(&path, "key 00\nis revoked", &control).expect("written");
        assert_eq!(read(&path).expect("read"), control);
        create(&path, "again", &control).expect_err("never overwritten");
        let whole = std::fs::read_to_string(&path).expect("read");
        for cut in [whole.len() - 3, whole.len() - 4, 20] {
            std::fs::write(&path, &whole[..cut]).expect("written");
            let error = read(&path).expect_err("cut off").to_string();
            assert!(error.contains("is not a control message"), "{error}");
        }
        std::fs::write(&path, "00".repeat(20_000)).expect("written");
        assert!(read(&path).is_err(), "too large");
    }
}
