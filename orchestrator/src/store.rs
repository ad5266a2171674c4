//! The metadata store: jobs and reservations, answers and dead letters, who lives, models that were
//! seen. (RSV-1 to RSV-5)
//!
//! Decisions that must survive a crash live here and nowhere else. A future that resolves well
//! means that what was asked is on the disk. Futures are lazy and can be run side by side; the
//! store commits what waits together. An operation whose fate a broken connection left open ends as
//! [`StoreError::Disk`]: asking again is harmless, since each is compare-and-set.
//!
//! # Layout
//!
//! * [`MetadataStore`] – what it does; [`Store`] does it over any [`database::Database`]
//! * `jobs`, `answers`, `letters`, `leases`, `models`, `prune` – the statements of each, once for
//!   all kinds
//! * `migrations` – the schema of each kind
//! * [`keys`], [`seal`] – who can read what is a tenant's
//! * `check` – whether each record is whole
//! * [`sqlite`] – one file, one process; the default
//! * [`postgres`] – for several orchestrators
//! * `suite` – the tests that hold for each kind

mod answers;
mod check;
pub mod database;
mod errors;
mod jobs;
pub mod keys;
mod leases;
mod letters;
mod migrations;
mod models;
mod patience;
pub mod postgres;
mod prune;
pub mod seal;
pub mod sqlite;
#[cfg(test)]
mod suite;
mod whole;

pub use check::{MAX_PROBLEMS, Report};
pub use errors::StoreError;
pub use leases::{Grounds, Lease, TakeOver};
pub use letters::{LetterMark, MAX_DEAD_LETTERS, StoredLetter};
pub use models::KnownModel;
pub(crate) use patience::{Patience, patiently};
pub use prune::{Pruned, Retention};
pub use whole::Store;

use crate::job::{Answer, Job, JobState, NewJob, Repeat, Step};
use futures_util::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tether_wire::{CorrelationId, ModelRef, NodeId, TenantId};

/// Operations that wait for a store at most; callers wait beyond.
pub const MAX_PENDING: usize = 1_024;
/// Operations that share one commit at most.
pub const MAX_GROUP: usize = 256;

/// Told of each commit that changed something: how many operations it held and how long it took.
/// One that only read flushes nothing.
pub type OnCommit = Box<dyn Fn(usize, Duration) + Send>;

/// How a store is opened.
pub struct Opening {
    /// Unix milliseconds.
    pub now_ms: u64,
    /// The file of the store's key, made with a new store.
    pub key_file: PathBuf,
    /// For how long what is kept is kept.
    pub retention: Retention,
    /// Told of each commit.
    pub on_commit: OnCommit,
}

impl Opening {
    /// With the key in this folder, and nobody told of commits.
    #[must_use]
    pub fn in_folder(folder: &Path, now_ms: u64) -> Self {
        Self {
            now_ms,
            key_file: folder.join(keys::KEY_FILE),
            retention: Retention::default(),
            on_commit: Box::new(|_, _| ()),
        }
    }
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
        /// Unix milliseconds of when it was first taken.
        created_ms: u64,
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

/// A job that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenJob {
    /// Who holds it.
    pub holder: Holder,
    /// Where it stands.
    pub state: JobState,
    /// Unix milliseconds of its last step.
    pub updated_ms: u64,
}

/// What the start of an orchestrator found open and released. (RSV-4)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Jobs of which nothing had been given.
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
    /// Takes a step, compare-and-set on owner, fence and state. What it keeps, an answer or a dead
    /// letter, is in the same commit.
    fn step(&self, holder: Holder, step: Step, now_ms: u64) -> StoreFuture<'_, ()>;
    /// A job.
    fn job(&self, id: CorrelationId) -> StoreFuture<'_, Option<Job>>;
    /// Gives an open job to another owner, compare-and-set on owner and fence: of several that try,
    /// one gets it, as it stands and under a higher fence.
    fn take_over(&self, order: TakeOver) -> StoreFuture<'_, Job>;
    /// Fails every open job of this owner under a higher fence: at its start, those of before.
    fn release_open(&self, owner: NodeId, reason: String, now_ms: u64)
    -> StoreFuture<'_, Released>;
    /// At most `limit` open jobs of this owner, and of owners who lost them before `over_by_ms`: by
    /// the job's own lease, or since they live no more.
    fn open_jobs(
        &self,
        owner: NodeId,
        limit: u32,
        over_by_ms: u64,
    ) -> StoreFuture<'_, Vec<OpenJob>>;

    /// The answer of a tenant's job, as long as it is kept.
    fn answer(
        &self,
        tenant: TenantId,
        job: CorrelationId,
        now_ms: u64,
    ) -> StoreFuture<'_, Option<Answer>>;
    /// At most `limit` dead letters, the newest first, behind the mark of the last one that is known.
    /// What is sealed of them stays so: the requests, and the words of workers.
    fn dead_letters(
        &self,
        behind: Option<LetterMark>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredLetter>>;
    /// A dead letter as the list has it, also where nobody can open the rest any more.
    fn dead_letter_as_listed(&self, job: CorrelationId) -> StoreFuture<'_, Option<StoredLetter>>;
    /// A dead letter with the words of workers, and its request as it was encoded on the wire.
    fn dead_letter(&self, job: CorrelationId) -> StoreFuture<'_, Option<(StoredLetter, Vec<u8>)>>;
    /// Notes that a dead letter is run again, compare-and-set on how often it was before: of
    /// several that try at once, one may.
    fn mark_replayed(&self, job: CorrelationId, replays: u32, now_ms: u64) -> StoreFuture<'_, ()>;
    /// Forgets a dead letter, and says whether it was there.
    fn drop_dead_letter(&self, job: CorrelationId) -> StoreFuture<'_, bool>;
    /// Forgets a tenant's key: what is kept of the tenant can never be read again, by anybody.
    fn forget_key(&self, tenant: TenantId) -> StoreFuture<'_, bool>;

    /// Says that an orchestrator lives.
    fn renew(&self, lease: Lease) -> StoreFuture<'_, ()>;
    /// Says that one lives no more.
    fn retire(&self, orchestrator: NodeId) -> StoreFuture<'_, ()>;
    /// Those that live.
    fn live(&self, now_ms: u64) -> StoreFuture<'_, Vec<Lease>>;

    /// Remembers models, one artifact of each; one that is there keeps the time when it was first
    /// seen.
    fn note_models(&self, models: Vec<KnownModel>) -> StoreFuture<'_, ()>;
    /// Forgets models.
    fn forget_models(&self, models: Vec<ModelRef>) -> StoreFuture<'_, ()>;
    /// All models that are remembered, the first seen first.
    fn known_models(&self) -> StoreFuture<'_, Vec<KnownModel>>;

    /// Forgets what was kept for its time, at most `limit` of each kind, and says how many.
    fn prune(&self, now_ms: u64, limit: u32) -> StoreFuture<'_, Pruned>;
    /// How many jobs are in each state. Asked for at every scrape, so it waits for no commit.
    fn counts(&self) -> StoreFuture<'_, Vec<(JobState, usize)>>;
    /// Finishes what waits and closes it.
    fn close(&self) -> StoreFuture<'_, ()>;
}
