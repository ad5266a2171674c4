//! Every file of an artifact against its manifest, before anything parses one of them. (ART-1)

use crate::error::ArtifactError;
use crate::manifest_file::{MANIFEST_FILE, Trust, read_manifest};
use crate::regular::{self, Progress};
use crate::touched::Seen;
use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tether_wire::manifest::Format;
use tether_wire::{Digest, Manifest, NodeId};
use tokio_util::sync::CancellationToken;

/// Most names of unlisted files that are reported; a full download folder is not worth more.
pub const MAX_UNLISTED: usize = 32;

/// An artifact whose files were all found to be what a trusted publisher signed. Only [`verify`]
/// makes one.
///
/// It says what the bytes were when they were read. Whoever may write to the directory afterwards
/// can change them, so the directory belongs to the worker's user alone.
#[derive(Clone, Debug)]
pub struct VerifiedArtifact {
    root: PathBuf,
    digest: Digest,
    publisher: NodeId,
    manifest: Manifest,
    unlisted: Vec<String>,
    /// Its files, as they were when they began to be read.
    seen: Vec<Seen>,
}

impl VerifiedArtifact {
    /// The directory, absolute.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The model's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
    /// Who signed it.
    #[must_use]
    pub fn publisher(&self) -> NodeId {
        self.publisher
    }
    /// What it is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }
    /// Files in the directory that the manifest does not list, at most [`MAX_UNLISTED`]. They are
    /// not loaded, and were not read.
    #[must_use]
    pub fn unlisted(&self) -> &[String] {
        &self.unlisted
    }
    /// Whether its files are still those that were verified, by what the file system says of them: no
    /// byte is read, and whoever writes to a file or puts another in its place is noticed. Blocks.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.seen.iter().all(Seen::is_untouched)
    }
}

/// Verifies the artifact in `dir`: manifest, signer, signature, digest where one is expected,
/// then for each file that it is there, a regular file, of the right size and content.
///
/// Blocks while it reads every byte: not for an async thread.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    dir: &Path,
    trust: &Trust,
    expect: Option<&Digest>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<VerifiedArtifact, ArtifactError> {
    verify_until(dir, trust, expect, &CancellationToken::new(), progress)
}

/// The same, until it is cancelled.
///
/// # Errors
/// The first thing that is wrong, or [`ArtifactError::Cancelled`].
pub fn verify_until(
    dir: &Path,
    trust: &Trust,
    expect: Option<&Digest>,
    cancel: &CancellationToken,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<VerifiedArtifact, ArtifactError> {
    let (digest, manifest) = read_manifest(dir, trust)?;
    if let Some(expected) = expect.filter(|expected| **expected != digest) {
        return Err(ArtifactError::WrongDigest {
            expected: *expected,
            found: digest,
        });
    }
    if manifest.format == Format::Unknown {
        return Err(ArtifactError::UnsupportedFormat(
            "the manifest names a format of weights that this version does not know".to_owned(),
        ));
    }
    let root = fs::canonicalize(dir).map_err(|error| ArtifactError::io(dir, error))?;
    let bytes_total = manifest
        .files
        .iter()
        .fold(0_u64, |sum, file| sum.saturating_add(file.size_bytes));
    let files = manifest.files.len();

    // First, since it costs nothing, and a truncated download is the most common fault.
    complete(&root, &manifest)?;
    let mut bytes_done = 0;
    let mut seen = Vec::new();
    for (file, entry) in manifest.files.iter().enumerate() {
        let (open, _) = regular::open(&root, &entry.path)?;
        let path = entry.path.as_str();
        // Before it is read, so that who writes to it meanwhile is noticed.
        seen.push(Seen::of(&open, root.join(path))?);
        let tell = |count| {
            bytes_done += count;
            progress(Progress {
                path,
                file,
                files,
                bytes_done,
                bytes_total,
            });
            match cancel.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let limit = entry.size_bytes.saturating_add(1);
        let (found, read) = regular::hash(open, limit, tell)
            .map_err(|error| ArtifactError::io(&root.join(path), error))?;
        if cancel.is_cancelled() {
            return Err(ArtifactError::Cancelled);
        }
        if read != entry.size_bytes {
            return Err(wrong_size(entry.path.clone(), entry.size_bytes, read));
        }
        if found != entry.digest {
            return Err(ArtifactError::CorruptFile(entry.path.clone()));
        }
    }
    let unlisted = unlisted(&root, &manifest);
    Ok(VerifiedArtifact {
        unlisted,
        seen,
        root,
        digest,
        publisher: manifest.signer(),
        manifest: manifest.into_inner(),
    })
}

/// Whether each file of a manifest is in `dir`, as a regular file of the right size; what is in them is
/// not read.
///
/// # Errors
/// The first thing that is wrong.
pub fn complete(dir: &Path, manifest: &Manifest) -> Result<(), ArtifactError> {
    for entry in &manifest.files {
        let (_, found) = regular::open(dir, &entry.path)?;
        if found != entry.size_bytes {
            return Err(wrong_size(entry.path.clone(), entry.size_bytes, found));
        }
    }
    Ok(())
}

fn wrong_size(path: String, expected: u64, found: u64) -> ArtifactError {
    ArtifactError::WrongSize {
        path,
        expected,
        found,
    }
}

/// Names at the top of the directory that no file of the manifest is at or below.
fn unlisted(root: &Path, manifest: &Manifest) -> Vec<String> {
    let known: BTreeSet<&str> = manifest
        .files
        .iter()
        .filter_map(|file| file.path.split('/').next())
        .chain([MANIFEST_FILE])
        .collect();
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !known.contains(name.as_str()))
        .take(MAX_UNLISTED)
        .collect();
    names.sort();
    names
}
