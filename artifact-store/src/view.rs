//! A folder that holds exactly what was verified, for engines that read whatever they find.

use crate::error::ArtifactError;
use crate::verify::VerifiedArtifact;
use std::fs;
use std::path::{Path, PathBuf};

impl VerifiedArtifact {
    /// Makes `at` a folder with a link to each file of the manifest and nothing else, and returns
    /// its absolute path. What was there before is removed.
    ///
    /// Engines load every file of weights beside the one that they are told, so a file that no
    /// publisher signed must not be in their sight.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn expose(&self, at: &Path) -> Result<PathBuf, ArtifactError> {
        let io = |error| ArtifactError::io(at, error);
        match fs::remove_dir_all(at) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => fs::create_dir_all(at).map_err(io)?,
        }
        for file in &self.manifest().files {
            let link = at.join(&file.path);
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent).map_err(io)?;
            }
            std::os::unix::fs::symlink(self.root().join(&file.path), &link)
                .map_err(|error| ArtifactError::io(&link, error))?;
        }
        fs::canonicalize(at).map_err(io)
    }
}
