//! The admin token: in a file that only the operator's account can read.

use rand::TryRngCore;
use rand::rngs::OsRng;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Name of the file in the data folder.
pub const TOKEN_FILE: &str = "admin.token";
/// Shortest token that is believed, in characters: 128 bits in hex.
const MIN_TOKEN_LEN: usize = 32;
/// Longest token.
const MAX_TOKEN_LEN: u64 = 512;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("the admin token {path} cannot be used: {why}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: std::io::Error,
    },
    /// Others can read it.
    #[error("the admin token {path} can be read by others: run `chmod 600 {path}`")]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// It is too short to be a secret.
    #[error("the admin token {path} is too short: delete it, and a new one is made")]
    Short {
        /// The file.
        path: PathBuf,
    },
}

/// The token of a data folder; made at the first start, 256 random bits, mode 0600.
///
/// # Errors
/// When it cannot be kept secret.
pub fn load_or_create(data_dir: &Path) -> Result<String, TokenError> {
    let path = data_dir.join(TOKEN_FILE);
    let io = |why: std::io::Error| TokenError::Io {
        path: path.clone(),
        why,
    };
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    match made {
        Ok(mut file) => {
            let mut secret = [0_u8; 32];
            OsRng
                .try_fill_bytes(&mut secret)
                .map_err(|error| io(std::io::Error::other(error)))?;
            let token = tether_wire::Digest(secret).to_hex();
            file.write_all(token.as_bytes()).map_err(io)?;
            file.sync_all().map_err(io)?;
            Ok(token)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => read(&path),
        Err(error) => Err(io(error)),
    }
}

fn read(path: &Path) -> Result<String, TokenError> {
    let io = |why: std::io::Error| TokenError::Io {
        path: path.to_owned(),
        why,
    };
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(TokenError::Open {
            path: path.to_owned(),
        });
    }
    let mut text = String::new();
    file.take(MAX_TOKEN_LEN)
        .read_to_string(&mut text)
        .map_err(io)?;
    let token = text.trim();
    if token.len() < MIN_TOKEN_LEN {
        return Err(TokenError::Short {
            path: path.to_owned(),
        });
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_secret_and_stays_the_same() {
        let dir = tempfile::tempdir().expect("a folder");
        let token = load_or_create(dir.path()).expect("made");
        assert_eq!(token.len(), 64);
        assert_eq!(load_or_create(dir.path()).expect("read"), token);
        let path = dir.path().join(TOKEN_FILE);
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(
            load_or_create(dir.path()),
            Err(TokenError::Open { .. })
        ));
    }

    #[test]
    fn a_token_that_anybody_could_guess_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(TOKEN_FILE);
        std::fs::write(&path, "x").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        assert!(matches!(
            load_or_create(dir.path()),
            Err(TokenError::Short { .. })
        ));
    }
}
