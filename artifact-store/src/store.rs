//! A worker's own copies of artifacts, by digest, within a budget. (WRK-5)
//!
//! An artifact is fetched into `partial/DIGEST` and gets its place `DIGEST` in one step when all of
//! it is there, compared and on the disk. A fetch that was cut off, however, goes on where it was.
//! When a folder was last used is its own modification time, so there is no index that could be
//! wrong.
//!
//! What a fetch left that was cut off counts in the budget, and goes before anything that is whole when
//! there is no room; and where nobody went on with it for [`ABANDONED_AFTER`], when the store is opened.

use crate::damage::is_damage;
use crate::error::ArtifactError;
use crate::evict;
use crate::manifest_file::{self, MANIFEST_FILE, Trust};
use crate::place::{self, Place};
use crate::source::{Offered, Source, blocking};
use std::fs::{self, File, Metadata, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tether_wire::{Digest, Manifest};
use tokio_util::sync::CancellationToken;

const PARTIAL: &str = "partial";
const LOCK: &str = "lock";
/// Ends the name of what is being removed.
const GONE: &str = "gone";
/// Bytes that are left free on the disk, for whatever else is there.
const HEADROOM_BYTES: u64 = 64 * 1024 * 1024;
/// A fetch that was cut off and with which nobody went on for so long is not gone on with any more: its
/// model is not configured now, or no source has it.
const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// An artifact that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its digest.
    pub digest: Digest,
    /// Bytes of its files.
    pub bytes: u64,
    /// When it was last used.
    pub last_used: SystemTime,
    /// Whether all of it is there; else it is what a fetch left that was cut off.
    pub is_whole: bool,
}

/// The store. One process has it at a time.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    budget_bytes: u64,
    /// One fetch at a time, so that two do not count on the same room.
    fetching: tokio::sync::Mutex<()>,
    _lock: File,
}

impl Store {
    /// Opens the store in `dir`, which is made if need be. A budget of 0 is the disk's own. Blocks.
    ///
    /// # Errors
    /// When another process has it, or the file system refuses.
    pub fn open(dir: &Path, budget_bytes: u64) -> Result<Self, ArtifactError> {
        let io = |error| ArtifactError::io(dir, error);
        fs::create_dir_all(dir.join(PARTIAL)).map_err(io)?;
        let lock = File::create(dir.join(LOCK)).map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ArtifactError::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        for entry in fs::read_dir(dir.join(PARTIAL)).map_err(io)?.flatten() {
            let path = entry.path();
            // What was being removed when a process ended.
            let is_gone = path.extension().is_some_and(|it| it == GONE);
            let is_abandoned =
                || (last_change(&path).elapsed()).is_ok_and(|age| age >= ABANDONED_AFTER);
            if is_gone || is_abandoned() {
                fs::remove_dir_all(path).map_err(io)?;
            }
        }
        Ok(Self {
            dir: fs::canonicalize(dir).map_err(io)?,
            budget_bytes,
            fetching: tokio::sync::Mutex::new(()),
            _lock: lock,
        })
    }

    /// Where an artifact lies that is here.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> Option<PathBuf> {
        let path = self.dir.join(digest.to_string());
        path.join(MANIFEST_FILE).is_file().then_some(path)
    }

    /// Everything that is here, whole or not. Blocks.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn contents(&self) -> Result<Vec<Stored>, ArtifactError> {
        let mut contents = self.below(&self.dir, true)?;
        contents.extend(self.below(&self.dir.join(PARTIAL), false)?);
        contents.sort_by_key(|it| it.digest);
        Ok(contents)
    }

    fn below(&self, dir: &Path, is_whole: bool) -> Result<Vec<Stored>, ArtifactError> {
        let io = |error| ArtifactError::io(&self.dir, error);
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let path = entry.path();
            let modified = entry.metadata().and_then(|it| it.modified());
            found.push(Stored {
                digest,
                bytes: bytes_below(&path),
                last_used: if is_whole {
                    modified.unwrap_or(SystemTime::UNIX_EPOCH)
                } else {
                    last_change(&path)
                },
                is_whole,
            });
        }
        Ok(found)
    }

    /// Notes that an artifact is used now; it goes later than those that were used before.
    pub fn touch(&self, digest: &Digest) {
        let now = SystemTime::now();
        // Only the order of what goes first depends on it.
        let _ = File::open(self.dir.join(digest.to_string()))
            .and_then(|folder| folder.set_modified(now));
    }

    /// Brings an artifact here, if it is not, and returns where it lies. What `keep` names stays
    /// whatever is needed. `tell` hears of bytes that came, of bytes in all. A second try goes on
    /// where a first one was cut off.
    ///
    /// # Errors
    /// When its manifest is not trusted, the source does not have it as the manifest says, there is
    /// no room, or `cancel` was called.
    pub async fn fetch(
        &self,
        offered: &Offered,
        trust: &Trust,
        source: &dyn Source,
        keep: impl Fn(&Digest) -> bool,
        tell: impl Fn(u64, u64) + Send + Sync + 'static,
        cancel: CancellationToken,
    ) -> Result<PathBuf, ArtifactError> {
        let manifest = offered.open(trust)?.into_inner();
        let _fetching = self.fetching.lock().await;
        let digest = offered.digest();
        if let Some(path) = self.path(&digest) {
            self.touch(&digest);
            return Ok(path);
        }
        self.make_room(&digest, place::total(&manifest), keep)?;
        let partial = self.dir.join(PARTIAL).join(digest.to_string());
        let (at, sealed) = (partial.clone(), offered.sealed().to_vec());
        let needed = manifest.clone();
        blocking(move || prepare(&at, &needed, &sealed)).await?;
        let place = Place::new(partial.clone(), manifest.clone(), Box::new(tell), cancel);
        match source.fetch(&digest, &place).await {
            Ok(()) => {}
            Err(error) => {
                // Half of what does not fit helps nobody, and takes the room from others.
                if matches!(error, ArtifactError::DiskFull { .. }) {
                    let _ = fs::remove_dir_all(&partial);
                }
                return Err(error);
            }
        }
        let whole = self.dir.join(digest.to_string());
        let dir = self.dir.clone();
        blocking(move || finish(&dir, &partial, &whole, &manifest).map(|()| whole)).await
    }

    /// Removes a copy that was refused, where the copy itself is to blame, so that the next fetch brings
    /// another one. Says whether it can be right at the next look. Nobody else may verify it now. Blocks.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn discard(&self, digest: &Digest, refused: &ArtifactError) -> Result<bool, ArtifactError> {
        let path = self.dir.join(digest.to_string());
        // First, since a fetch puts nothing over what is there.
        if !path.exists() {
            return Ok(true);
        }
        let sealed = manifest_file::read_sealed(&path);
        let is_manifest_right = sealed.is_ok_and(|sealed| Digest::of(sealed.as_bytes()) == *digest);
        if is_manifest_right && matches!(refused, ArtifactError::MissingManifest(_)) {
            // Somebody else brought it meanwhile.
            return Ok(true);
        }
        let is_to_blame = is_damage(refused, is_manifest_right);
        if is_to_blame {
            self.remove(digest)?;
        }
        Ok(is_to_blame)
    }

    /// Removes an artifact. Blocks.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn remove(&self, digest: &Digest) -> Result<(), ArtifactError> {
        self.remove_at(&self.dir.join(digest.to_string()), digest)
    }

    fn remove_at(&self, path: &Path, digest: &Digest) -> Result<(), ArtifactError> {
        // First out of its place: what is removed by half is not found.
        let gone = self.dir.join(PARTIAL).join(format!("{digest}.{GONE}"));
        let io = |error| ArtifactError::io(path, error);
        let _ = fs::remove_dir_all(&gone);
        fs::rename(path, &gone).map_err(io)?;
        fs::remove_dir_all(&gone).map_err(io)
    }

    /// Room for an artifact, of which some may be there already.
    fn make_room(
        &self,
        digest: &Digest,
        needed: u64,
        keep: impl Fn(&Digest) -> bool,
    ) -> Result<(), ArtifactError> {
        let mut others = self.contents()?;
        others.retain(|it| it.digest != *digest);
        for it in evict::victims(&others, needed, self.budget_bytes, keep)? {
            let (digest, is_whole) = (it.digest, it.is_whole);
            tracing::info!(%digest, is_whole, "artifact removed from the store to make room");
            let partial = self.dir.join(PARTIAL).join(digest.to_string());
            match is_whole {
                true => self.remove(&digest)?,
                false => self.remove_at(&partial, &digest)?,
            }
        }
        Ok(())
    }
}

/// Makes the folder of a fetch, unless there is one, and looks whether the rest would fit.
fn prepare(partial: &Path, manifest: &Manifest, sealed: &[u8]) -> Result<(), ArtifactError> {
    let io = |error| ArtifactError::io(partial, error);
    fs::create_dir_all(partial).map_err(io)?;
    let missing = place::total(manifest).saturating_sub(bytes_below(partial));
    let free = place::free(partial);
    let written = if missing.saturating_add(HEADROOM_BYTES) > free {
        Err(ArtifactError::DiskFull {
            path: partial.to_owned(),
            needed: missing,
            free,
        })
    } else {
        fs::write(partial.join(MANIFEST_FILE), sealed)
            .map_err(|error| place::refused(partial, missing, error))
    };
    if matches!(written, Err(ArtifactError::DiskFull { .. })) {
        let _ = fs::remove_dir_all(partial);
    }
    written
}

/// On the disk, then in its place.
fn finish(
    dir: &Path,
    partial: &Path,
    whole: &Path,
    manifest: &Manifest,
) -> Result<(), ArtifactError> {
    for file in &manifest.files {
        if !partial.join(&file.path).is_file() {
            return Err(ArtifactError::MissingFile(file.path.clone()));
        }
    }
    let sync = |path: &Path| File::open(path).and_then(|it| it.sync_all());
    let io = |error| ArtifactError::io(whole, error);
    sync(&partial.join(MANIFEST_FILE)).map_err(io)?;
    let parents = manifest
        .files
        .iter()
        .filter_map(|file| Path::new(&file.path).parent());
    for parent in parents {
        sync(&partial.join(parent)).map_err(io)?;
    }
    sync(partial).map_err(io)?;
    fs::rename(partial, whole).map_err(io)?;
    sync(dir).map_err(io)
}

/// Bytes of the files in a folder and its folders.
fn bytes_below(dir: &Path) -> u64 {
    let mut sum = 0_u64;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        sum = sum.saturating_add(match entry.metadata() {
            Ok(it) if it.is_dir() => bytes_below(&entry.path()),
            Ok(it) if it.is_file() => it.len(),
            _ => 0,
        });
    }
    sum
}

/// When something in a folder changed the last time: a fetch writes on in a file for long.
fn last_change(dir: &Path) -> SystemTime {
    let modified = |metadata: io::Result<Metadata>| metadata.and_then(|it| it.modified()).ok();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.filter_map(|entry| match entry.file_type() {
        Ok(it) if it.is_dir() => Some(last_change(&entry.path())),
        _ => modified(entry.metadata()),
    });
    let newest = below.chain(modified(fs::metadata(dir))).max();
    newest.unwrap_or(SystemTime::UNIX_EPOCH)
}
