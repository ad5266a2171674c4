//! Files that only their owner may read, and files that are never half written.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Mode of a file with a secret.
const PRIVATE_FILE: u32 = 0o600;
/// Mode of a folder with secrets.
const PRIVATE_DIR: u32 = 0o700;

/// Makes a folder, and those above it, that only its owner may enter; one that is there is closed
/// to others.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIR)
        .create(path)?;
    fs::set_permissions(path, Permissions::from_mode(PRIVATE_DIR))
}

/// Makes a new file that only its owner may read; one that is there is left alone.
///
/// # Errors
/// `AlreadyExists`, among others.
pub(crate) fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Replaces a file at once by one that only its owner may read: a reader sees the old content or
/// the new, never a part.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    // A temporary file is made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(dir.unwrap_or(Path::new(".")))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Whether others than the owner may read or write a file.
pub(crate) fn open_to_others(path: &Path) -> io::Result<Option<u32>> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_closed_to_others_and_never_overwritten_by_accident() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let inner = dir.path().join("a/b");
        private_dir(&inner).expect("made");
        let file = inner.join("secret");
        create_private(&file, b"one").expect("made");
        assert_eq!(open_to_others(&file).expect("read"), None);
        let again = create_private(&file, b"two").expect_err("it is there");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        replace_private(&file, b"three").expect("replaced");
        assert_eq!(fs::read(&file).expect("read"), b"three");
        assert_eq!(open_to_others(&file).expect("read"), None);
        fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("opened");
        assert_eq!(open_to_others(&file).expect("read"), Some(0o644));
    }
}
