//! A policy in a file that people edit while the orchestrator runs. A file with a mistake changes
//! nothing: the last good one counts, which is told once in the log and for as long as it lasts in the
//! metrics.

use super::Policy;
use super::text::Mistake;
use crate::directory::serve::Directory;
use arc_swap::ArcSwap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tether_net::FollowedFile;
use tether_telemetry::metrics::OrchestratorMetrics;
use tokio_util::sync::CancellationToken;

/// Most bytes of the file: as much fits one update of the directory beside everything else.
pub const MAX_FILE_BYTES: u64 = 2 * 1024 * 1024;
/// How often it is looked at.
const POLL: Duration = Duration::from_secs(1);

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("the policy {path} cannot be read: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// It holds a mistake.
    #[error("the policy {path}, {mistake}")]
    Mistake {
        /// The file.
        path: PathBuf,
        /// Which, and where.
        mistake: Mistake,
    },
}

/// The file, and what was last read of it.
#[derive(Debug)]
pub struct PolicyFile(FollowedFile);

impl PolicyFile {
    /// A file that was not read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self(FollowedFile::new(path, MAX_FILE_BYTES))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Reads the file if it was changed since the last time; nothing if it was not.
    ///
    /// # Errors
    /// Why it is refused; told once for each change.
    pub fn poll(&mut self) -> Result<Option<Policy>, PolicyError> {
        let text = self.0.poll().map_err(|why| PolicyError::Read {
            path: self.0.path().to_owned(),
            why: why.to_string(),
        })?;
        let Some(text) = text else { return Ok(None) };
        let policy = Policy::read(&text).map_err(|mistake| PolicyError::Mistake {
            path: self.0.path().to_owned(),
            mistake,
        })?;
        Ok(Some(policy))
    }
}

/// Who has to know of a policy.
pub(crate) struct Follower {
    pub(crate) file: PolicyFile,
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) metrics: Arc<OrchestratorMetrics>,
}

impl Follower {
    /// Follows the file until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            let mut file = self.file;
            let polled = tokio::task::spawn_blocking(move || {
                let result = file.poll();
                (file, result)
            });
            let Ok((file, result)) = polled.await else {
                return;
            };
            self.file = file;
            match result {
                Ok(None) => {}
                Ok(Some(policy)) => {
                    tracing::info!(file = %self.file.path().display(), "the policy is read again");
                    self.policy.store(Arc::new(policy));
                    self.directory.policy_changed();
                    self.metrics.policy_read(true);
                }
                Err(error) => {
                    tracing::error!(%error, "the policy stays as it was");
                    self.metrics.policy_read(false);
                }
            }
        }
    }
}
