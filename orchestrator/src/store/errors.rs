//! Why a store did not do what was asked.

use std::path::PathBuf;
use tether_wire::{CorrelationId, TenantId};

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("the store {path} cannot be opened: {why}")]
    Open {
        /// Its file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// Its database cannot be reached.
    #[error("the store at {place} cannot be reached: {why}")]
    Connect {
        /// Where it is, without a password.
        place: String,
        /// The database's words.
        why: String,
    },
    /// Its file is damaged.
    #[error(
        "the store {path} is damaged: {why}; restore a backup of it, or move it away together with \
         the files `-wal` and `-shm` beside it and start again: jobs and the record of known models \
         are lost then, keys and models are not"
    )]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// The database's words.
        why: String,
    },
    /// Another process has it.
    #[error("the store {0} is in use by another process")]
    InUse(PathBuf),
    /// A later version of Tether made it.
    #[error(
        "the store has schema {found}, this version of tether knows up to {known}: use a newer one"
    )]
    Newer {
        /// Its schema.
        found: u32,
        /// The last one known here.
        known: u32,
    },
    /// It changed after the backup was made that is to replace it.
    #[error(
        "the store {0} changed after the backup was made: what came later would be forgotten, and \
         could run and be billed again"
    )]
    Later(PathBuf),
    /// An earlier version of Tether made it, and it is not to be changed now.
    #[error("the store has schema {found}, the latest is {known}: run `tether store migrate`")]
    Older {
        /// Its schema.
        found: u32,
        /// The last one known here.
        known: u32,
    },
    /// The file of a secret cannot be used: the store's key, or the database's password.
    #[error("{path}, which the store needs, cannot be used: {why}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The store has a key, and the file is not there.
    #[error(
        "what the store keeps is sealed under a key that is not in {0}: bring that file back, or copy \
         it from another orchestrator of this store"
    )]
    KeyMissing(PathBuf),
    /// The store was sealed under another key.
    #[error(
        "what the store keeps is sealed under another key than the one in {0}: bring the right file \
         back, or copy it from another orchestrator of this store"
    )]
    WrongKey(PathBuf),
    /// A tenant's key was dropped, or replaced by another.
    #[error("the key of tenant {0} is gone, and with it whatever was sealed under it")]
    KeyGone(TenantId),
    /// Something sealed is not what was sealed for this place.
    #[error("{0} cannot be unsealed: it was damaged, changed or moved")]
    Unreadable(String),
    /// The disk or the database failed; whether the operation is kept is not known where the
    /// connection broke, else nothing of it is.
    #[error("the store failed: {0}")]
    Disk(String),
    /// A record that this version cannot read.
    #[error("the store holds a record that cannot be read: {0}")]
    Corrupt(String),
    /// The job is not in a state that allows it, or belongs to somebody else by now.
    #[error("{asked} of job {job} is refused: {found}")]
    Refused {
        /// The job.
        job: CorrelationId,
        /// What was asked.
        asked: &'static str,
        /// What was found instead.
        found: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether the same may go well a moment later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Disk(_) | Self::Connect { .. })
    }
}
