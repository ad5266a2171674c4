//! Where a fetch writes: a folder of its own, in which what came survives the process that wrote it.
//!
//! A file is written as `NAME.part` and gets its name when all of it came and was compared with its
//! digest. What was left in the middle is hashed again when it is taken up, so that a byte that
//! changed meanwhile is found at the end of the file.

use crate::error::ArtifactError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tether_wire::manifest::FileEntry;
use tether_wire::{Digest, Manifest};
use tokio_util::sync::CancellationToken;

/// Bytes that are hashed at once.
const BUFFER_BYTES: usize = 256 * 1024;
const PART: &str = ".part";

/// Told of bytes that are there, of bytes in all.
pub(crate) type Tell = dyn Fn(u64, u64) + Send + Sync;

/// Where one artifact is being written. Cheap to clone.
#[derive(Clone)]
pub struct Place(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    manifest: Manifest,
    done: AtomicU64,
    total: u64,
    tell: Box<Tell>,
    cancel: CancellationToken,
}

/// A file that is being written.
pub struct Fetching {
    place: Place,
    entry: FileEntry,
    file: File,
    hasher: blake3::Hasher,
    offset: u64,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Place({})", self.0.dir.display())
    }
}

impl std::fmt::Debug for Fetching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetching({} from {})", self.entry.path, self.offset)
    }
}

impl Place {
    pub(crate) fn new(
        dir: PathBuf,
        manifest: Manifest,
        tell: Box<Tell>,
        cancel: CancellationToken,
    ) -> Self {
        let total = total(&manifest);
        Self(Arc::new(Inner {
            dir,
            manifest,
            done: AtomicU64::new(0),
            total,
            tell,
            cancel,
        }))
    }

    /// What is fetched.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Begins a file of the manifest, or goes on with it; nothing when it is there already. Blocks.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn begin(&self, index: usize) -> Result<Option<Fetching>, ArtifactError> {
        self.check()?;
        let Some(entry) = self.0.manifest.files.get(index).cloned() else {
            return Ok(None);
        };
        let whole = self.0.dir.join(&entry.path);
        if fs::symlink_metadata(&whole).is_ok_and(|it| it.len() == entry.size_bytes) {
            // It has its name only since it was found right.
            self.came(entry.size_bytes);
            return Ok(None);
        }
        let part = part(&whole);
        let io = |error| ArtifactError::io(&part, error);
        if let Some(parent) = part.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&part)
            .map_err(io)?;
        let mut hasher = blake3::Hasher::new();
        let mut offset = 0;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            self.check()?;
            let count = file.read(&mut buffer).map_err(io)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            offset += count as u64;
            self.came(count as u64);
        }
        Ok(Some(Fetching {
            place: self.clone(),
            entry,
            file,
            hasher,
            offset,
        }))
    }

    fn check(&self) -> Result<(), ArtifactError> {
        if self.0.cancel.is_cancelled() {
            return Err(ArtifactError::Cancelled);
        }
        Ok(())
    }

    fn came(&self, bytes: u64) {
        let done = self.0.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (self.0.tell)(done, self.0.total);
    }
}

impl Fetching {
    /// What it has to be.
    #[must_use]
    pub fn entry(&self) -> &FileEntry {
        &self.entry
    }

    /// How much of it is there.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the bytes that follow. Blocks.
    ///
    /// # Errors
    /// When there are more than there may be, the disk is full, or the fetch was cancelled.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        self.place.check()?;
        let offset = self.offset.saturating_add(bytes.len() as u64);
        if offset > self.entry.size_bytes {
            return Err(self.wrong_size(offset));
        }
        (self.file.write_all(bytes)).map_err(|error| self.refused(error))?;
        self.hasher.update(bytes);
        self.offset = offset;
        self.place.came(bytes.len() as u64);
        Ok(())
    }

    /// Compares the file with its digest and gives it its name. One that is wrong is removed, so
    /// that the next try begins it anew. Blocks.
    ///
    /// # Errors
    /// When it is not what its manifest says.
    pub fn finish(self) -> Result<(), ArtifactError> {
        let whole = self.place.0.dir.join(&self.entry.path);
        let part = part(&whole);
        let wrong = if self.offset != self.entry.size_bytes {
            Some(self.wrong_size(self.offset))
        } else if Digest(*self.hasher.finalize().as_bytes()) != self.entry.digest {
            Some(ArtifactError::CorruptFile(self.entry.path.clone()))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let _ = fs::remove_file(&part);
            return Err(wrong);
        }
        self.file.sync_all().map_err(|error| self.refused(error))?;
        fs::rename(&part, &whole).map_err(|error| ArtifactError::io(&whole, error))
    }

    fn wrong_size(&self, found: u64) -> ArtifactError {
        ArtifactError::WrongSize {
            path: self.entry.path.clone(),
            expected: self.entry.size_bytes,
            found,
        }
    }

    fn refused(&self, error: io::Error) -> ArtifactError {
        let place = &self.place.0;
        let missing = place
            .total
            .saturating_sub(place.done.load(Ordering::Relaxed));
        refused(&place.dir, missing, error)
    }
}

/// A disk that is full has its own error.
pub(crate) fn refused(dir: &Path, needed: u64, error: io::Error) -> ArtifactError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ArtifactError::DiskFull {
            path: dir.to_owned(),
            needed,
            free: free(dir),
        },
        _ => ArtifactError::io(dir, error),
    }
}

/// Bytes that are free for us on the disk of a folder.
pub(crate) fn free(dir: &Path) -> u64 {
    rustix::fs::statvfs(dir).map_or(u64::MAX, |it| it.f_bavail.saturating_mul(it.f_frsize))
}

pub(crate) fn total(manifest: &Manifest) -> u64 {
    let sizes = manifest.files.iter().map(|file| file.size_bytes);
    sizes.fold(0, u64::saturating_add)
}

fn part(whole: &Path) -> PathBuf {
    let mut name = whole.as_os_str().to_owned();
    name.push(PART);
    PathBuf::from(name)
}
