//! Opening and hashing files that are files: no links, no devices, nothing outside the artifact.

use crate::error::ArtifactError;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tether_wire::Digest;

/// Bytes read at once. BLAKE3 is at its full speed from some 128 KiB on.
const BUFFER_BYTES: usize = 256 * 1024;

/// How far the hashing of an artifact is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Path inside the artifact of the file that is being read.
    pub path: &'a str,
    /// Which file this is, from 0.
    pub file: usize,
    /// Files in all.
    pub files: usize,
    /// Bytes read, over all files.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
}

/// Opens `path` (already known to be safe) below `root`. No component may be a link, so that a
/// name inside the artifact cannot be made to mean something outside of it.
///
/// The last component is opened with `O_NOFOLLOW`, and its kind is asked of the open file, so
/// that nothing can be swapped in between; `O_NONBLOCK` keeps a FIFO from holding us.
pub(crate) fn open(root: &Path, path: &str) -> Result<(File, u64), ArtifactError> {
    let missing_or = |error: io::Error, at: &Path| match error.kind() {
        io::ErrorKind::NotFound => ArtifactError::MissingFile(path.to_owned()),
        _ => ArtifactError::io(at, error),
    };
    let mut at = root.to_owned();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        let kind = fs::symlink_metadata(&at).map_err(|error| missing_or(error, &at))?;
        let is_folder = parts.peek().is_some();
        if kind.is_symlink() || (is_folder && !kind.is_dir()) {
            return Err(ArtifactError::NotARegularFile(path.to_owned()));
        }
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(&at)
        .map_err(|error| {
            if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
                ArtifactError::NotARegularFile(path.to_owned())
            } else {
                missing_or(error, &at)
            }
        })?;
    let metadata = file
        .metadata()
        .map_err(|error| ArtifactError::io(&at, error))?;
    if !metadata.is_file() {
        return Err(ArtifactError::NotARegularFile(path.to_owned()));
    }
    Ok((file, metadata.len()))
}

/// Hashes at most `limit` bytes; `on_bytes` is told how many came each time, and whether to go on is
/// what it says. Returns the digest and how many bytes were read.
pub(crate) fn hash(
    file: File,
    limit: u64,
    mut on_bytes: impl FnMut(u64) -> ControlFlow<()>,
) -> io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut reader = file.take(limit);
    let mut total = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..count]);
        total += count as u64;
        if on_bytes(count as u64).is_break() {
            break;
        }
    }
    Ok((Digest(*hasher.finalize().as_bytes()), total))
}
