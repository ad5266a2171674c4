//! Descriptors that the worker was started with, and did not open: of a log, of a lock, of whatever a
//! service manager or a shell left open. What a worker opens itself is closed in a new program by the
//! kernel; these are not, and an engine would have them.

use std::io;
use std::os::fd::RawFd;

/// The first behind standard input, which is the worker's socket, and both outputs.
const FIRST: RawFd = 3;

/// Closes them all. To be called before anything is opened.
pub(super) fn close_inherited() -> io::Result<()> {
    // All names first: the folder itself is open while it is read.
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|fd| *fd >= FIRST) {
        // The only one that is closed already is the folder's.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}
