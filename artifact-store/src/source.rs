//! Where artifacts come from. (ART-4)
//!
//! What a source says is believed of nobody: manifests are opened with a [`Trust`], and every byte
//! of a fetch is compared with its manifest by the [`Place`] that it is written into.

use crate::error::ArtifactError;
use crate::manifest_file::{self, MANIFEST_FILE, Trust};
use crate::place::{Fetching, Place};
use crate::regular;
use futures_util::future::BoxFuture;
use std::fmt;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tether_wire::{Digest, Manifest, Signed, Verified};

/// Most artifacts of a source that are listed.
const MAX_LISTED: usize = 4_096;
/// Bytes that are copied at once.
const BUFFER_BYTES: usize = 1024 * 1024;

/// A sealed manifest that a source has, not yet believed.
#[derive(Clone, Debug)]
pub struct Offered {
    sealed: Signed<Manifest>,
    digest: Digest,
}

impl Offered {
    /// As it came.
    #[must_use]
    pub fn new(sealed: Vec<u8>) -> Self {
        Self {
            digest: Digest::of(&sealed),
            sealed: Signed::from_bytes(sealed),
        }
    }

    /// The artifact's digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is written as `tether.manifest`.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        self.sealed.as_bytes()
    }

    /// The manifest, if a trusted publisher signed it; nothing of it is parsed before.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn open(&self, trust: &Trust) -> Result<Verified<Manifest>, ArtifactError> {
        let is_trusted = |signer: &_| trust.publishers.contains(signer);
        manifest_file::open_sealed(&self.sealed, is_trusted).map(|(_, manifest)| manifest)
    }
}

/// Something that has artifacts: a folder, and later peers, object storage, a hub.
pub trait Source: fmt::Debug + Send + Sync {
    /// What it is, for people.
    fn name(&self) -> String;

    /// The manifests of what it has now.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Offered>, ArtifactError>>;

    /// Brings the files of an artifact into a place, from where each of them was left the last
    /// time. The place checks what comes, and knows when the fetch was cancelled.
    fn fetch<'a>(
        &'a self,
        digest: &'a Digest,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<(), ArtifactError>>;
}

/// A folder whose folders are artifacts; or one artifact itself.
#[derive(Clone, Debug)]
pub struct DirectorySource {
    dir: PathBuf,
}

impl DirectorySource {
    /// The folder is looked into each time that it is asked.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn artifacts(&self) -> Result<Vec<(PathBuf, Offered)>, ArtifactError> {
        let io = |error| ArtifactError::io(&self.dir, error);
        let mut dirs = vec![self.dir.clone()];
        for entry in fs::read_dir(&self.dir).map_err(io)?.take(MAX_LISTED) {
            dirs.push(entry.map_err(io)?.path());
        }
        dirs.sort();
        let mut found = Vec::new();
        for dir in dirs {
            // What is no artifact is not one of them.
            if dir.join(MANIFEST_FILE).is_file()
                && let Ok(sealed) = manifest_file::read_sealed(&dir)
            {
                found.push((dir, Offered::new(sealed.as_bytes().to_vec())));
            }
        }
        Ok(found)
    }
}

impl Source for DirectorySource {
    fn name(&self) -> String {
        self.dir.display().to_string()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Offered>, ArtifactError>> {
        let this = self.clone();
        Box::pin(blocking(move || {
            let found = this.artifacts()?;
            Ok(found.into_iter().map(|(_, offered)| offered).collect())
        }))
    }

    fn fetch<'a>(
        &'a self,
        digest: &'a Digest,
        place: &'a Place,
    ) -> BoxFuture<'a, Result<(), ArtifactError>> {
        let (this, digest, place) = (self.clone(), *digest, place.clone());
        Box::pin(blocking(move || {
            let found = this.artifacts()?;
            let (dir, _) = found
                .iter()
                .find(|(_, offered)| offered.digest() == digest)
                .ok_or_else(|| ArtifactError::NotFound(digest.to_string()))?;
            let mut buffer = vec![0; BUFFER_BYTES];
            for index in 0..place.manifest().files.len() {
                if let Some(file) = place.begin(index)? {
                    copy(dir, file, &mut buffer)?;
                }
            }
            Ok(())
        }))
    }
}

/// One file, from where it was left.
fn copy(dir: &Path, mut file: Fetching, buffer: &mut [u8]) -> Result<(), ArtifactError> {
    let path = file.entry().path.clone();
    let io = |error| ArtifactError::io(&dir.join(&path), error);
    let (mut from, size) = regular::open(dir, &path)?;
    if size != file.entry().size_bytes {
        return Err(ArtifactError::WrongSize {
            expected: file.entry().size_bytes,
            found: size,
            path,
        });
    }
    from.seek(SeekFrom::Start(file.offset())).map_err(io)?;
    loop {
        match from.read(buffer) {
            Ok(0) => return file.finish(),
            Ok(count) => file.write(&buffer[..count])?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
}

/// Off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        let error = std::io::Error::other(error.to_string());
        Err(ArtifactError::io(Path::new("a thread"), error))
    })
}
