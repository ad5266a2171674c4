//! The socket in a worker's data folder on which it answers its provider: one JSON object to whoever
//! connects, if that is the user who runs the worker, or root.

use anyhow::Context;
use rustix::process::geteuid;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tether_worker::Worker;
use tether_worker::status::SOCKET;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

/// Askers at once.
const MAX_ASKERS: usize = 8;
/// How long one of them may take to read.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers until it is dropped.
pub(super) struct StatusSocket {
    path: PathBuf,
    _serving: AbortOnDropHandle<()>,
}

impl StatusSocket {
    /// Begins to answer in this data folder, which one worker at a time uses.
    pub(super) fn open(data_dir: &Path, worker: Arc<Worker>) -> anyhow::Result<Self> {
        let path = data_dir.join(SOCKET);
        let at = || format!("cannot open {}", path.display());
        // What a worker that was killed left.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(at);
            }
            _ => {}
        }
        let folder = File::open(data_dir).with_context(at)?;
        let listener = UnixListener::bind(short(&folder, &path)).with_context(at)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).with_context(at)?;
        let serving = tokio::spawn(serve(listener, worker));
        Ok(Self {
            path,
            _serving: AbortOnDropHandle::new(serving),
        })
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        // A file that stays answers nobody; the next worker removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// A path of the socket that is short enough wherever the folder lies: the system allows some
/// hundred bytes.
pub(crate) fn short(folder: &File, path: &Path) -> PathBuf {
    let through = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    if through.exists() {
        through.join(SOCKET)
    } else {
        path.to_owned()
    }
}

async fn serve(listener: UnixListener, worker: Arc<Worker>) {
    let askers = Arc::new(Semaphore::new(MAX_ASKERS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, say: the worker's own work comes first.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let Ok(permit) = askers.clone().try_acquire_owned() else {
            continue;
        };
        let worker = worker.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &worker)).await;
        });
    }
}

async fn answer(mut stream: UnixStream, worker: &Worker) -> io::Result<()> {
    let asker = stream.peer_cred()?.uid();
    if asker != geteuid().as_raw() && asker != 0 {
        tracing::warn!(uid = asker, "another user asked for this worker's status");
        return Ok(());
    }
    let report = serde_json::to_vec(&worker.report().await).map_err(io::Error::other)?;
    stream.write_all(&report).await?;
    stream.shutdown().await
}
