//! A folder that holds exactly what was verified, for engines that read whatever they find.

use crate::error::ArtifactError;
use crate::verify::VerifiedArtifact;
use std::fs;
use std::path::{Path, PathBuf};
use tether_wire::manifest::Format;

/// Where the base of an adapter is in their view.
pub const BASE_FOLDER: &str = "base";
/// Where the adapter is.
pub const ADAPTER_FOLDER: &str = "adapter";

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
        clear(at)?;
        self.link(at)?;
        fs::canonicalize(at).map_err(|error| ArtifactError::io(at, error))
    }

    /// The same for an adapter and its base: each has a folder of its own in `at`, so that no file of
    /// one stands where the other's is looked for.
    ///
    /// # Errors
    /// When the base is nothing that an adapter is applied to, or the file system refuses.
    pub fn expose_on(&self, base: &Self, at: &Path) -> Result<PathBuf, ArtifactError> {
        let unsupported = |why| ArtifactError::BaseUnsupported {
            base: base.manifest().model.clone(),
            why,
        };
        if base.manifest().base_digest.is_some() {
            return Err(unsupported(
                "is an adapter itself, and none is applied to another",
            ));
        }
        if base.manifest().format != Format::Safetensors {
            return Err(unsupported(
                "is not in safetensors, and adapters are applied to those only",
            ));
        }
        clear(at)?;
        base.link(&at.join(BASE_FOLDER))?;
        self.link(&at.join(ADAPTER_FOLDER))?;
        fs::canonicalize(at).map_err(|error| ArtifactError::io(at, error))
    }

    fn link(&self, at: &Path) -> Result<(), ArtifactError> {
        for file in &self.manifest().files {
            let link = at.join(&file.path);
            let io = |error| ArtifactError::io(&link, error);
            if let Some(parent) = link.parent() {
                fs::create_dir_all(parent).map_err(io)?;
            }
            std::os::unix::fs::symlink(self.root().join(&file.path), &link).map_err(io)?;
        }
        Ok(())
    }
}

/// Empty, whatever was there.
fn clear(at: &Path) -> Result<(), ArtifactError> {
    let io = |error| ArtifactError::io(at, error);
    match fs::remove_dir_all(at) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(error)),
        _ => fs::create_dir_all(at).map_err(io),
    }
}
