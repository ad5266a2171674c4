//! The admin token: in a file that only the operator's account can read.

use crate::secret_file::{self, SecretError};
use rand::TryRngCore;
use rand::rngs::OsRng;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the file in the data folder.
pub const TOKEN_FILE: &str = "admin.token";
/// Shortest token that is believed, in characters: 128 bits in hex.
const MIN_TOKEN_LEN: usize = 32;

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
    let io = |why: io::Error| TokenError::Io {
        path: path.clone(),
        why,
    };
    let found = secret_file::read(&path).map_err(|error| match error {
        SecretError::Io(why) => io(why),
        SecretError::Open => TokenError::Open { path: path.clone() },
    })?;
    match found {
        Some(token) if token.len() < MIN_TOKEN_LEN => Err(TokenError::Short { path }),
        Some(token) => Ok(token),
        None => {
            let mut secret = [0_u8; 32];
            OsRng
                .try_fill_bytes(&mut secret)
                .map_err(|error| io(io::Error::other(error)))?;
            let token = tether_wire::Digest(secret).to_hex();
            secret_file::make(&path, &token).map_err(io)?;
            Ok(token)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
