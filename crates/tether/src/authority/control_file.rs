//! Control messages in a file: hex with comments, for an operator whose key is on no network.
//!
//! ```text
//! # key 3f… is revoked
//! a26a…                   one message
//! ```
//!
//! Several begin with the line `messages N`, so that a file that was cut off between two of them is
//! known for one, and are told in the order in which they stand.

use super::{AuthorityError, payloads, read_text};
use crate::files;
use std::path::Path;
use tether_wire::codec;
use tether_wire::control::{Control, MAX_CONTROL_BYTES};
use tether_wire::membership::MAX_REVOKED;

/// Most messages of a file: what a mesh keeps of one key. [T-CTL-6]
pub(crate) const MAX_MESSAGES: usize = MAX_REVOKED;
/// Most bytes of a file with one message: the hex of the largest, and comments.
const MAX_ONE_BYTES: u64 = 2 * MAX_CONTROL_BYTES as u64 + 2_048;
/// Most bytes of any: what the operator of a mesh revokes takes some 1,500 bytes each at most.
const MAX_FILE_BYTES: u64 = 2_048 * MAX_MESSAGES as u64;
/// What stands before the number of several.
const COUNT: &str = "messages ";

/// Writes messages, and what each says, to a new file.
pub(crate) fn create(path: &Path, messages: &[(String, Control)]) -> Result<(), AuthorityError> {
    let mut text = match messages.len() {
        1 => String::new(),
        count => format!("{COUNT}{count}\n"),
    };
    for (what, control) in messages {
        let what = what.replace(['\n', '\r'], " ");
        text += &format!("# {what}\n{}\n", hex::encode(codec::encode(control)));
    }
    files::create_private(path, text.as_bytes()).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => AuthorityError::Exists {
            path: path.to_owned(),
        },
        _ => AuthorityError::io("cannot write", path)(error),
    })
}

/// Reads messages, whose signatures whoever takes them will check.
pub(crate) fn read(path: &Path) -> Result<Vec<Control>, AuthorityError> {
    let text = read_text(path, MAX_FILE_BYTES)?;
    parse(&text).map_err(|why| AuthorityError::Malformed {
        path: path.to_owned(),
        what: "a control message made by `tether revoke --out`",
        why,
    })
}

fn parse(text: &str) -> Result<Vec<Control>, String> {
    let mut lines = payloads(text).peekable();
    let first = *lines.peek().ok_or("it is empty")?;
    let count = match first.strip_prefix(COUNT) {
        None if text.len() as u64 > MAX_ONE_BYTES => return Err("it is too large".to_owned()),
        None => 1,
        Some(count) => {
            lines.next();
            let count = count.trim().parse();
            count.map_err(|_| format!("its first line is not `{COUNT}` and a number"))?
        }
    };
    if !(1..=MAX_MESSAGES).contains(&count) {
        return Err(format!("it says that it holds {count} messages"));
    }
    let found = lines
        .take(count + 1)
        .map(|line| {
            let bytes = hex::decode(line).map_err(|error| error.to_string())?;
            Control::decode(&bytes).map_err(|error| error.to_string())
        })
        .collect::<Result<Vec<_>, _>>()?;
    match found.len() {
        len if len == count => Ok(found),
        len if len < count => Err(format!("it is cut off: it holds {len} messages of {count}")),
        _ => Err(format!("it holds more than {count}, which is what it says")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(n: u8) -> (String, Control) {
        let what = format!("key {n}\nis revoked");
        (what, Control::Revocation(vec![n; 300]))
    }

    #[test]
    fn a_message_travels_by_hand_and_what_was_cut_off_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("lost.control");
        let (what, control) = message(7);
        let one = [(what, control.clone())];
        create(&path, &one).expect("written");
        assert_eq!(read(&path).expect("read"), [control]);
        create(&path, &one).expect_err("never overwritten");
        let whole = std::fs::read_to_string(&path).expect("read");
        for cut in [whole.len() - 3, whole.len() - 4, 20] {
            std::fs::write(&path, &whole[..cut]).expect("written");
            let error = read(&path).expect_err("cut off").to_string();
            assert!(error.contains("is not a control message"), "{error}");
        }
        std::fs::write(&path, whole.repeat(2)).expect("written");
        assert!(read(&path).is_err(), "two, and it does not say so");
        std::fs::write(&path, "00".repeat(20_000)).expect("written");
        assert!(read(&path).is_err(), "too large");
    }

    #[test]
    fn several_keep_their_order_and_a_file_that_lost_one_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("lost.control");
        let several = [message(1), message(2), message(3)];
        create(&path, &several).expect("written");
        let controls = several.map(|(_, control)| control);
        assert_eq!(read(&path).expect("read"), controls);
        let whole = std::fs::read_to_string(&path).expect("read");
        let lines: Vec<&str> = whole.lines().collect();
        assert_eq!(lines[0], "messages 3");
        for lost in [&lines[..5], &lines[..1]] {
            std::fs::write(&path, lost.join("\n")).expect("written");
            let error = read(&path).expect_err("cut off between two").to_string();
            assert!(error.contains("it is cut off"), "{error}");
        }
        for count in ["0", "2", "16385", "many"] {
            std::fs::write(&path, whole.replacen('3', count, 1)).expect("written");
            assert!(read(&path).is_err(), "{count}");
        }
    }

    #[test]
    fn as_many_as_a_mesh_keeps_of_one_key_have_room_in_a_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("lost.control");
        // With the longest reason, and each with what it says.
        let largest = ("x".repeat(250), Control::Revocation(vec![7; 700]));
        create(&path, &vec![largest; MAX_MESSAGES]).expect("written");
        assert_eq!(read(&path).expect("read").len(), MAX_MESSAGES);
    }
}
