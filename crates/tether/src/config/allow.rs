//! The keys with which a node links, from a file that people edit: one per line. [T-GRA-6]
//!
//! ```text
//! # orchestrators
//! 3f…   # rack 4
//! ```
//!
//! A file with a mistake is refused whole, with the line; while the node runs the list of before
//! stays in force then.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tether_net::{FollowedFile, Members};
use tether_wire::NodeId;

/// Most bytes of the file.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Most keys.
const MAX_KEYS: usize = 100_000;
/// How often it is looked whether the file was changed.
const INTERVAL: Duration = Duration::from_secs(2);

/// Why a list is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AllowError {
    #[error("the list of allowed keys {path} cannot be read: {why}")]
    Read { path: PathBuf, why: String },
    #[error("the list of allowed keys {path}, line {line}: {why}")]
    Mistake {
        path: PathBuf,
        line: usize,
        why: String,
    },
    #[error("the list of allowed keys {path} names no key: this node would link with nobody")]
    Empty { path: PathBuf },
}

/// The file, and what was last seen of it.
#[derive(Debug)]
pub(crate) struct AllowFile(FollowedFile);

fn parse(path: &Path, text: &str) -> Result<HashSet<NodeId>, AllowError> {
    let mut keys = HashSet::new();
    for (at, line) in text.lines().enumerate() {
        let key = line.split('#').next().unwrap_or_default().trim();
        if key.is_empty() {
            continue;
        }
        let mistake = |why: String| AllowError::Mistake {
            path: path.to_owned(),
            line: at + 1,
            why,
        };
        let key: NodeId = key
            .parse()
            .map_err(|error: tether_wire::id::IdError| mistake(error.to_string()))?;
        if keys.len() == MAX_KEYS && !keys.contains(&key) {
            return Err(mistake(format!("more than {MAX_KEYS} keys")));
        }
        keys.insert(key);
    }
    if keys.is_empty() {
        return Err(AllowError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(keys)
}

impl AllowFile {
    /// A file that was not read yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(FollowedFile::new(path, MAX_FILE_BYTES))
    }

    /// Reads the file if it was changed since the last time; nothing if it was not.
    ///
    /// # Errors
    /// Why it is refused; told once for each change.
    pub(crate) fn poll(&mut self) -> Result<Option<HashSet<NodeId>>, AllowError> {
        let text = self.0.poll().map_err(|why| AllowError::Read {
            path: self.0.path().to_owned(),
            why: why.to_string(),
        })?;
        text.map(|text| parse(self.0.path(), &text)).transpose()
    }

    /// Keeps to the file as it changes, without end.
    async fn follow(mut self, members: Members) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let polled = tokio::task::spawn_blocking(move || {
                let polled = self.poll();
                (self, polled)
            });
            let Ok((file, polled)) = polled.await else {
                return;
            };
            self = file;
            match polled {
                Ok(None) => {}
                Ok(Some(keys)) => {
                    tracing::info!(keys = keys.len(), "the list of allowed keys was changed");
                    members.allow_only(Some(keys));
                }
                Err(error) => tracing::error!("{error}; the list of before stays in force"),
            }
        }
    }
}

/// Follows a file until this is dropped.
#[derive(Debug)]
pub(crate) struct Following {
    _task: Option<tokio_util::task::AbortOnDropHandle<()>>,
}

/// Follows the file of a node that has one.
pub(crate) fn follow(file: Option<AllowFile>, members: &Members) -> Following {
    let members = members.clone();
    let task = file
        .map(|file| tokio_util::task::AbortOnDropHandle::new(tokio::spawn(file.follow(members))));
    Following { _task: task }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    #[test]
    fn keys_are_read_with_comments_and_twice_is_once() {
        let text = format!("# ours\n\n{}\n  {} # rack 4\n{}\n", key(1), key(2), key(1));
        let keys = parse(Path::new("allow"), &text).expect("read");
        assert_eq!(keys, HashSet::from([key(1), key(2)]));
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let text = format!("{}\nnot a key\n", key(1));
        let error = parse(Path::new("allow"), &text).expect_err("refused");
        assert!(error.to_string().contains("allow, line 2"), "{error}");
        for text in ["", "# nobody\n"] {
            let error = parse(Path::new("allow"), text).expect_err("refused");
            assert!(error.to_string().contains("names no key"), "{error}");
        }
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let many = |count: usize| -> String {
            (0..count)
                .map(|n| {
                    let mut id = [0; 32];
                    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
                    format!("{}\n", NodeId(id))
                })
                .collect()
        };
        let most = many(MAX_KEYS) + &format!("{}\n", NodeId([0; 32]));
        assert_eq!(parse(Path::new("a"), &most).expect("read").len(), MAX_KEYS);
        let error = parse(Path::new("a"), &many(MAX_KEYS + 1)).expect_err("too many");
        assert!(error.to_string().contains("more than 100000"), "{error}");
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("allow");
        let file = std::fs::File::create(&path).expect("made");
        file.set_len(MAX_FILE_BYTES + 1).expect("grown");
        let error = AllowFile::new(path).poll().expect_err("too large");
        assert!(error.to_string().contains("larger than"), "{error}");
    }

    #[test]
    fn a_change_is_read_once_and_a_mistake_is_told_once() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("allow");
        let mut file = AllowFile::new(path.clone());
        assert!(file.poll().is_err(), "missing");
        assert_eq!(file.poll(), Ok(None), "told once");
        let write = |text: &str| {
            let next = dir.path().join("next");
            std::fs::write(&next, text).expect("written");
            std::fs::rename(&next, &path).expect("moved");
        };
        write(&format!("{}\n", key(1)));
        assert_eq!(file.poll(), Ok(Some(HashSet::from([key(1)]))));
        assert_eq!(file.poll(), Ok(None));
        write("nonsense\n");
        assert!(file.poll().is_err());
        assert_eq!(file.poll(), Ok(None));
        write(&format!("{}\n", key(2)));
        assert_eq!(file.poll(), Ok(Some(HashSet::from([key(2)]))));
    }
}
