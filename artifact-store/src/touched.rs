//! Whether a file is still the one that was verified, without reading it.
//!
//! The file system notes each change of a file by a time that no program can set, as exactly as its
//! clock ticks. A file that had changed just before it was read may have changed again within the same
//! tick, so of one that young nothing is said.

use crate::error::ArtifactError;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

/// The coarsest tick of a file system in use.
const TICK_S: i64 = 2;

/// A file as it was when it began to be read.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    path: PathBuf,
    marks: Marks,
    /// Whether it had changed too shortly before.
    is_young: bool,
}

/// What says that a file is another one, or was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marks {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Marks {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Seen {
    /// The open file that lies at `path`.
    pub(crate) fn of(file: &File, path: PathBuf) -> Result<Self, ArtifactError> {
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| ArtifactError::io(&path, error))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_s = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        Ok(Self {
            is_young: metadata.ctime().saturating_add(TICK_S) >= now_s,
            marks: Marks::of(&metadata),
            path,
        })
    }

    /// Whether it is certain that nobody changed it. Blocks.
    pub(crate) fn is_untouched(&self) -> bool {
        let now = fs::symlink_metadata(&self.path);
        !self.is_young && now.is_ok_and(|now| Marks::of(&now) == self.marks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn seen(path: &std::path::Path) -> Seen {
        Seen::of(&File::open(path).expect("there"), path.to_owned()).expect("seen")
    }

    #[test]
    fn whoever_writes_to_a_file_or_replaces_it_is_noticed_and_a_young_file_is_not_believed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("weights");
        fs::write(&path, "weights").expect("written");
        assert!(!seen(&path).is_untouched(), "it may change within a tick");
        let old = |path: &std::path::Path| {
            let mut old = seen(path);
            let begin = std::time::Instant::now();
            while old.is_young {
                assert!(begin.elapsed() < Duration::from_secs(30));
                std::thread::sleep(Duration::from_millis(100));
                old = seen(path);
            }
            old
        };
        let before = old(&path);
        assert!(before.is_untouched());
        // The same bytes, and a time of modification as before: the file system is not deceived.
        let modified = fs::metadata(&path).and_then(|it| it.modified());
        fs::write(&path, "weights").expect("written");
        let file = File::options().write(true).open(&path).expect("there");
        file.set_modified(modified.expect("known")).expect("set");
        assert!(!before.is_untouched());
        let before = old(&path);
        fs::write(dir.path().join("other"), "weights").expect("written");
        fs::rename(dir.path().join("other"), &path).expect("replaced");
        assert!(!before.is_untouched());
        fs::remove_file(&path).expect("removed");
        assert!(!before.is_untouched());
    }
}
