//! The metadata store: jobs, reservations, models that were seen. (RSV-1, RSV-2, RSV-4)
//!
//! Decisions that must survive a crash live here and nowhere else. A future that resolves well
//! means that what was asked is on the disk. Futures are lazy and can be run side by side; the
//! store commits what waits together.

pub mod sqlite;

use crate::job::{Job, JobState, NewJob, Repeat, Step};
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use tether_wire::{CorrelationId, Digest, ModelRef, NodeId};

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
    /// The disk or the database failed; nothing of the operation is kept.
    #[error("the store failed: {0}")]
    Disk(String),
    /// A record that this version cannot read.
    #[error("the store holds a record that cannot be read: {0}")]
    Corrupt(String),
    /// The job is not in a state from which the step leads, or belongs to somebody else by now.
    #[error("job {job} does not take the step to `{step}`: {found}", step = step.as_str())]
    Refused {
        /// The job.
        job: CorrelationId,
        /// Where the step leads.
        step: JobState,
        /// What was found instead.
        found: String,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// What came of a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The job is recorded and may run.
    New {
        /// To be shown with each step.
        fence: u64,
        /// What the answer is a function of: that of the first run, where there was one.
        seed: u64,
    },
    /// The key was used before and must not run again.
    Repeated(Repeat, Box<Job>),
}

/// Who takes a step: only the owner with the current fence may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The job.
    pub job: CorrelationId,
    /// The orchestrator.
    pub owner: NodeId,
    /// The fence that it was given.
    pub fence: u64,
}

/// A model that a trusted worker offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownModel {
    /// Name and version.
    pub model: ModelRef,
    /// Its artifact.
    pub digest: Digest,
    /// Unix milliseconds.
    pub first_seen_ms: u64,
    /// Unix milliseconds at which it was offered last, to the hour.
    pub last_offered_ms: u64,
    /// The worker that brought it, where that was noted.
    pub offered_by: Option<NodeId>,
}

/// What the start of an orchestrator found open and released. (RSV-4)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Jobs of which nothing had been given: the same key may run again.
    pub unanswered: usize,
    /// Jobs of which part of the answer had been given.
    pub partly_answered: usize,
}

/// What an operation of the store gives.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// The metadata store. One suite of tests holds for each kind.
pub trait MetadataStore: Send + Sync + 'static {
    /// Records a job and its reservation, or says what its key means.
    fn reserve(&self, job: NewJob) -> StoreFuture<'_, Reserved>;
    /// Takes a step, compare-and-set on owner, fence and state.
    fn step(&self, holder: Holder, step: Step, now_ms: u64) -> StoreFuture<'_, ()>;
    /// A job.
    fn job(&self, id: CorrelationId) -> StoreFuture<'_, Option<Job>>;
    /// Fails every open job of this owner, and of owners whose lease is over, under a higher fence.
    fn release_open(&self, owner: NodeId, reason: String, now_ms: u64)
    -> StoreFuture<'_, Released>;
    /// At most `limit` open jobs of this owner, and of owners whose lease is over.
    fn open_jobs(&self, owner: NodeId, limit: u32, now_ms: u64) -> StoreFuture<'_, Vec<Holder>>;
    /// Remembers models, one artifact of each; one that is there keeps the time when it was first
    /// seen.
    fn note_models(&self, models: Vec<KnownModel>) -> StoreFuture<'_, ()>;
    /// Forgets models.
    fn forget_models(&self, models: Vec<ModelRef>) -> StoreFuture<'_, ()>;
    /// All models that are remembered, the first seen first.
    fn known_models(&self) -> StoreFuture<'_, Vec<KnownModel>>;
    /// Forgets at most `limit` jobs that ended before a time, and says how many.
    fn prune(&self, before_ms: u64, limit: u32) -> StoreFuture<'_, usize>;
    /// How many jobs are in each state. Asked for at every scrape, so it counts none of them then,
    /// and waits for no commit.
    fn counts(&self) -> StoreFuture<'_, Vec<(JobState, usize)>>;
    /// Finishes what waits and closes it.
    fn close(&self) -> StoreFuture<'_, ()>;
}
