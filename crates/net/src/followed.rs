//! A file that people edit while a node runs: it is read again when it was changed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file, and what was last seen of it.
#[derive(Debug)]
pub struct FollowedFile {
    path: PathBuf,
    max_bytes: u64,
    seen: Option<Stamp>,
}

/// What tells that a file was changed; another file under its name is one too, and so is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl FollowedFile {
    /// A file of at most so many bytes, which was not read yet.
    #[must_use]
    pub fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self {
            path,
            max_bytes,
            seen: None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its text if it was changed since the last time; nothing if it was not.
    ///
    /// # Errors
    /// Why it cannot be read; told once for each change.
    pub fn poll(&mut self) -> io::Result<Option<String>> {
        let meta = fs::metadata(&self.path);
        let stamp = Stamp {
            modified: meta.as_ref().ok().and_then(|meta| meta.modified().ok()),
            len: meta.as_ref().map_or(0, fs::Metadata::len),
            inode: meta.as_ref().map_or(0, fs::Metadata::ino),
        };
        if self.seen.replace(stamp) == Some(stamp) {
            return Ok(None);
        }
        meta?;
        let mut text = String::new();
        File::open(&self.path)?
            .take(self.max_bytes + 1)
            .read_to_string(&mut text)?;
        if text.len() as u64 > self.max_bytes {
            let why = format!("it is larger than {} bytes", self.max_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_once_and_so_is_the_loss_of_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("list");
        let mut file = FollowedFile::new(path.clone(), 4);
        assert!(file.poll().is_err(), "missing");
        assert_eq!(file.poll().expect("told once"), None);
        fs::write(&path, "one").expect("written");
        assert_eq!(file.poll().expect("read"), Some("one".to_owned()));
        assert_eq!(file.poll().expect("unchanged"), None);
        // Another file of the same length and time under its name.
        let next = dir.path().join("next");
        fs::write(&next, "two").expect("written");
        let modified = fs::metadata(&path).and_then(|it| it.modified());
        let moved = File::options().write(true).open(&next).expect("open");
        moved.set_modified(modified.expect("a time")).expect("set");
        fs::rename(&next, &path).expect("moved");
        assert_eq!(file.poll().expect("read"), Some("two".to_owned()));
        fs::write(&path, "five!").expect("written");
        let error = file.poll().expect_err("too large");
        assert!(error.to_string().contains("larger than 4"), "{error}");
        assert_eq!(file.poll().expect("told once"), None);
        fs::remove_file(&path).expect("removed");
        assert!(file.poll().is_err(), "gone");
        assert_eq!(file.poll().expect("told once"), None);
    }
}
