//! Released models: sealed manifests on this machine, signed by publishers who are trusted.

use crate::catalogue::Release;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tether_wire::{Digest, Manifest, MeshId, NodeId, Signable, Signed, VerifyError};

/// Name of the manifest's file in an artifact's folder.
pub const MANIFEST_FILE: &str = "tether.manifest";

/// Why a release is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It cannot be read.
    #[error("the release {path} cannot be read: {why}")]
    Read {
        /// Its file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// It is not a rightly signed manifest.
    #[error("the release {path} is refused: {why}")]
    Invalid {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        why: VerifyError,
    },
    /// Its signer is not trusted.
    #[error(
        "the release {path} is signed by {signer}, who is not among orchestrator.trusted_publishers"
    )]
    Untrusted {
        /// Its file.
        path: PathBuf,
        /// The signer.
        signer: NodeId,
    },
    /// Two artifacts under one name and version.
    #[error("the release {path} is another artifact of {model}, which is already released")]
    Twice {
        /// Its file.
        path: PathBuf,
        /// Name and version.
        model: String,
    },
}

/// Reads and verifies releases.
///
/// # Errors
/// The first one that is not believed.
pub fn load(paths: &[PathBuf], trusted: &[NodeId]) -> Result<Vec<Release>, ReleaseError> {
    let mut releases: BTreeMap<_, Release> = BTreeMap::new();
    for path in paths {
        let file = if path.is_dir() {
            path.join(MANIFEST_FILE)
        } else {
            path.clone()
        };
        let release = read(&file, trusted)?;
        let model = release.model.to_string();
        let digest = release.digest;
        if let Some(other) = releases.insert(model.clone(), release)
            && other.digest != digest
        {
            return Err(ReleaseError::Twice { path: file, model });
        }
    }
    Ok(releases.into_values().collect())
}

fn read(path: &Path, trusted: &[NodeId]) -> Result<Release, ReleaseError> {
    let unreadable = |error: std::io::Error| ReleaseError::Read {
        path: path.to_owned(),
        why: error.to_string(),
    };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        // One byte more than a manifest may have, so that a longer file is refused as such.
        .take(Manifest::MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let digest = Digest::of(&bytes);
    // A manifest is the same in every mesh, so that no mesh is part of what is signed.
    let manifest = Signed::<Manifest>::from_bytes(bytes)
        .verify(&MeshId([0; 32]))
        .map_err(|why| ReleaseError::Invalid {
            path: path.to_owned(),
            why,
        })?;
    if !trusted.contains(&manifest.signer()) {
        return Err(ReleaseError::Untrusted {
            path: path.to_owned(),
            signer: manifest.signer(),
        });
    }
    Ok(Release {
        model: manifest.model.clone(),
        digest,
        created_ms: manifest.created_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::NodeKey;
    use tether_wire::manifest::{FileEntry, Format};

    fn publisher() -> NodeKey {
        NodeKey::from_seed([50; 32])
    }

    fn sealed(created_ms: u64) -> Vec<u8> {
        let manifest = Manifest {
            model: "tiny@1.0".parse().expect("valid"),
            format: Format::Gguf,
            weights: "w.gguf".into(),
            tokenizer: None,
            files: vec![FileEntry {
                path: "w.gguf".into(),
                size_bytes: 1,
                digest: Digest([1; 32]),
            }],
            context_tokens: 2_048,
            licence: None,
            base_model: None,
            base_digest: None,
            cache_width: None,
            adapters: Vec::new(),
            created_ms,
        };
        Signed::seal(&publisher(), &MeshId([3; 32]), &manifest)
            .expect("inside limits")
            .as_bytes()
            .to_vec()
    }

    #[test]
    fn a_release_is_read_from_its_file_or_its_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(MANIFEST_FILE);
        std::fs::write(&file, sealed(5)).expect("written");
        let trusted = [publisher().id()];
        let one = load(&[dir.path().to_owned(), file], &trusted).expect("believed");
        assert_eq!(one.len(), 1, "the same one twice is one");
        assert_eq!(one[0].digest, Digest::of(&sealed(5)));
        assert_eq!(one[0].created_ms, 5);
    }

    #[test]
    fn a_strangers_a_changed_a_missing_and_an_oversized_one_are_refused_in_their_own_words() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("m");
        let try_with = |bytes: Vec<u8>, trusted: &[NodeId]| {
            std::fs::write(&file, bytes).expect("written");
            load(std::slice::from_ref(&file), trusted)
                .expect_err("refused")
                .to_string()
        };
        let trusted = [publisher().id()];
        assert!(try_with(sealed(5), &[NodeId([1; 32])]).contains("trusted_publishers"));
        let mut flipped = sealed(5);
        *flipped.last_mut().expect("bytes") ^= 1;
        assert!(try_with(flipped, &trusted).contains("signature"));
        assert!(try_with(vec![1; Manifest::MAX_BYTES + 9], &trusted).contains("limit"));
        let missing = load(&[dir.path().join("none")], &trusted).expect_err("missing");
        assert!(matches!(missing, ReleaseError::Read { .. }));
    }

    #[test]
    fn one_name_is_one_artifact() {
        let dir = tempfile::tempdir().expect("a folder");
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, sealed(5)).expect("written");
        std::fs::write(&b, sealed(6)).expect("written");
        let error = load(&[a, b], &[publisher().id()]).expect_err("two artifacts");
        assert!(matches!(error, ReleaseError::Twice { .. }), "{error}");
    }
}
