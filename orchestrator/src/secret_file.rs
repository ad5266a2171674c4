//! A secret in a file that only its owner can read: it is there whole or not at all.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::NamedTempFile;

/// Most bytes of a secret that are read.
const MAX_BYTES: u64 = 512;

/// Why a secret's file is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// It cannot be read or made.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is no secret.
    #[error("it can be read by others: run `chmod 600` on it")]
    Open,
}

/// The text of a secret, without the line's end; nothing where there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<String>, SecretError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        return Err(SecretError::Open);
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(Some(text.trim().to_owned()))
}

/// Makes the file, with mode 0600, on the disk when this returns. One that is there is left alone.
///
/// # Errors
/// `AlreadyExists`, among others.
pub(crate) fn make(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_for_its_owner_alone_and_one_that_others_can_read_is_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("secret");
        assert!(matches!(read(&path), Ok(None)));
        make(&path, "hush\n").expect("made");
        assert_eq!(read(&path).expect("read").as_deref(), Some("hush"));
        let again = make(&path, "other").expect_err("refused");
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode));
        assert_eq!(
            std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        mode(0o640).expect("set");
        assert!(matches!(read(&path), Err(SecretError::Open)));
    }
}
