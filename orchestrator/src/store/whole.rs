//! The store over any database: what each operation asks, and what the answers mean.

use super::database::{Database, Row, Statement};
use super::keys::{self, Keys, Sealed};
use super::seal;
use super::{
    Holder, KnownModel, Lease, LetterMark, MetadataStore, OpenJob, Pruned, Released, Reserved,
    Retention, StoreError, StoreFuture, StoredLetter, TakeOver, answers, jobs, leases, letters,
    models, prune,
};
use crate::job::{Answer, Job, JobState, NewJob, Repeat, Step};
use tether_wire::{CorrelationId, ModelRef, NodeId, TenantId};

/// How often a reservation is tried whose job changes under it.
const MAX_TRIES: usize = 8;

/// A store over a database of some kind.
pub struct Store<D> {
    pub(super) database: D,
    pub(super) keys: Keys,
    pub(super) retention: Retention,
}

impl<D: Database> Store<D> {
    /// Runs one statement and gives its rows, each read.
    async fn run<T>(
        &self,
        statement: Statement,
        read: impl Fn(Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.database.run(vec![statement]).await?;
        rows.into_iter().flatten().map(read).collect()
    }

    /// The same of one that changes nothing.
    async fn read<T>(
        &self,
        statement: Statement,
        read: impl Fn(Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = self.database.read(statement).await?;
        rows.into_iter().map(read).collect()
    }

    async fn find(&self, id: CorrelationId) -> Result<Option<Job>, StoreError> {
        Ok(self.read(jobs::find(id), jobs::read).await?.pop())
    }

    async fn try_reserve(&self, job: &NewJob) -> Result<Reserved, StoreError> {
        if job.correlation != CorrelationId::derive(&job.tenant, &job.retry_token) {
            return Err(StoreError::Refused {
                job: job.correlation,
                asked: "the reservation",
                found: "its id does not follow from tenant and key".to_owned(),
            });
        }
        for _ in 0..MAX_TRIES {
            let mut rows = self
                .database
                .run(jobs::reserve(job, &self.retention))
                .await?;
            if let Some(reserved) = jobs::reserved(rows.swap_remove(0))? {
                return Ok(reserved);
            }
            // It is there and may not begin anew; unless that changed meanwhile.
            let Some(earlier) = self.find(job.correlation).await? else {
                continue;
            };
            match earlier.repeated_by(&job.request_hash) {
                Repeat::BeginAnew => {}
                repeat => return Ok(Reserved::Repeated(repeat, Box::new(earlier))),
            }
        }
        let why = format!(
            "job {} changes faster than it can be reserved",
            job.correlation
        );
        Err(StoreError::Disk(why))
    }

    async fn take(&self, holder: Holder, step: &Step, now_ms: u64) -> Result<(), StoreError> {
        let mut statements = vec![jobs::step(&holder, step, now_ms, &self.retention)];
        if !step.state().is_open() {
            statements.push(jobs::close_reservation(&holder, step.state(), now_ms));
        }
        let mut kept_for = None;
        match step {
            Step::Done { answer, .. } => {
                statements.push(letters::answered(&holder));
                if let Some(answer) = answer {
                    let (tenant, text) = (answer.tenant(), answer.encoded());
                    let sealed = self.sealed(&holder, answers::TABLE, tenant, text, now_ms);
                    if let Some(sealed) = sealed.await? {
                        kept_for = Some(tenant);
                        statements.push(answers::keep(&holder, sealed, now_ms, &self.retention));
                    }
                }
            }
            Step::Failed {
                letter: Some(letter),
                ..
            } if letter.fits() => {
                let (tenant, text) = (&letter.tenant, letter.encoded_secret());
                let sealed = self.sealed(&holder, letters::TABLE, tenant, &text, now_ms);
                if let Some(sealed) = sealed.await? {
                    kept_for = Some(tenant);
                    let kept = letters::keep(&holder, letter, sealed, now_ms, &self.retention);
                    statements.push(kept);
                }
            }
            _ => {}
        }
        let rows = self.database.run(statements).await?;
        if rows.first().is_none_or(Vec::is_empty) {
            let found = self.find(holder.job).await?;
            let asked = step.kind().asked();
            return Err(jobs::refused(holder.job, asked, found.as_ref(), &holder));
        }
        if let Some(tenant) = kept_for
            && rows.last().is_none_or(Vec::is_empty)
        {
            // Its key was forgotten by somebody else. The job ended all the same.
            self.keys.forget(tenant);
            tracing::warn!(job = %holder.job, "not kept: the tenant's key is gone");
        }
        Ok(())
    }

    /// Seals what a job keeps. A tenant whose key cannot be read keeps nothing, and the job ends
    /// nevertheless.
    async fn sealed(
        &self,
        holder: &Holder,
        table: &str,
        tenant: &TenantId,
        text: &[u8],
        now_ms: u64,
    ) -> Result<Option<Sealed>, StoreError> {
        let place = seal::place(table, tenant, holder.job, holder.fence);
        let sealed = self.keys.seal(&self.database, tenant, &place, text, now_ms);
        match sealed.await {
            Ok(sealed) => Ok(Some(sealed)),
            Err(error @ (StoreError::Unreadable(_) | StoreError::KeyGone(_))) => {
                tracing::error!(job = %holder.job, %error, "not kept");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn unsealed_answer(
        &self,
        tenant: TenantId,
        job: CorrelationId,
        now_ms: u64,
    ) -> Result<Option<Answer>, StoreError> {
        let found = self.read(answers::find(&tenant, job, now_ms), answers::read);
        let Some((fence, sealed, wrapped)) = found.await?.pop() else {
            return Ok(None);
        };
        answers::unseal(tenant, job, fence, &sealed, wrapped, &self.keys).map(Some)
    }

    async fn unsealed_letter(
        &self,
        job: CorrelationId,
    ) -> Result<Option<(StoredLetter, Vec<u8>)>, StoreError> {
        let found = self.read(letters::find(job), letters::read_whole);
        let whole = found.await?.pop();
        whole.map(|it| letters::unseal(it, &self.keys)).transpose()
    }
}

/// Nothing of the rows is looked at.
fn nothing(_: Row) -> Result<(), StoreError> {
    Ok(())
}

impl<D: Database> MetadataStore for Store<D> {
    fn reserve(&self, job: NewJob) -> StoreFuture<'_, Reserved> {
        Box::pin(async move { self.try_reserve(&job).await })
    }

    fn step(&self, holder: Holder, step: Step, now_ms: u64) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.take(holder, &step, now_ms).await })
    }

    fn job(&self, id: CorrelationId) -> StoreFuture<'_, Option<Job>> {
        Box::pin(self.find(id))
    }

    fn take_over(&self, order: TakeOver) -> StoreFuture<'_, Job> {
        Box::pin(async move {
            let mut rows = self.database.run(jobs::take_over(&order)).await?;
            if let Some(row) = rows.swap_remove(0).pop() {
                return jobs::read(row);
            }
            let job = order.from.job;
            let found = self.find(job).await?;
            Err(jobs::refused(
                job,
                "the take-over",
                found.as_ref(),
                &order.from,
            ))
        })
    }

    fn release_open(
        &self,
        owner: NodeId,
        reason: String,
        now_ms: u64,
    ) -> StoreFuture<'_, Released> {
        Box::pin(async move {
            let statements = jobs::release_open(owner, &reason, now_ms, &self.retention);
            let mut rows = self.database.run(statements).await?;
            jobs::released(rows.swap_remove(0))
        })
    }

    fn open_jobs(
        &self,
        owner: NodeId,
        limit: u32,
        over_by_ms: u64,
    ) -> StoreFuture<'_, Vec<OpenJob>> {
        Box::pin(self.read(jobs::open_jobs(owner, limit, over_by_ms), jobs::open))
    }

    fn answer(
        &self,
        tenant: TenantId,
        job: CorrelationId,
        now_ms: u64,
    ) -> StoreFuture<'_, Option<Answer>> {
        Box::pin(self.unsealed_answer(tenant, job, now_ms))
    }

    fn dead_letters(
        &self,
        behind: Option<LetterMark>,
        limit: u32,
    ) -> StoreFuture<'_, Vec<StoredLetter>> {
        Box::pin(self.read(letters::page(behind, limit), letters::read))
    }

    fn dead_letter_as_listed(&self, job: CorrelationId) -> StoreFuture<'_, Option<StoredLetter>> {
        Box::pin(async move {
            let found = self.read(letters::find(job), letters::read_whole).await?;
            Ok(found.into_iter().next().map(|(letter, ..)| letter))
        })
    }

    fn dead_letter(&self, job: CorrelationId) -> StoreFuture<'_, Option<(StoredLetter, Vec<u8>)>> {
        Box::pin(self.unsealed_letter(job))
    }

    fn mark_replayed(&self, job: CorrelationId, replays: u32, now_ms: u64) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let marked = self.run(letters::mark_replayed(job, replays, now_ms), nothing);
            if !marked.await?.is_empty() {
                return Ok(());
            }
            let found = self.read(letters::find(job), letters::read_whole).await?;
            let found = found.first().map_or_else(
                || "there is no such dead letter".to_owned(),
                |(letter, ..)| format!("it was run again {} times, not {replays}", letter.replays),
            );
            let asked = "the replay";
            Err(StoreError::Refused { job, asked, found })
        })
    }

    fn drop_dead_letter(&self, job: CorrelationId) -> StoreFuture<'_, bool> {
        Box::pin(async move { Ok(!self.run(letters::forget(job), nothing).await?.is_empty()) })
    }

    fn forget_key(&self, tenant: TenantId) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let gone = self.run(keys::forget(&tenant), nothing).await?;
            self.keys.forget(&tenant);
            Ok(!gone.is_empty())
        })
    }

    fn renew(&self, lease: Lease) -> StoreFuture<'_, ()> {
        let renew = leases::renew(&lease);
        Box::pin(async move { self.database.run_volatile(renew).await.map(|_| ()) })
    }

    fn retire(&self, orchestrator: NodeId) -> StoreFuture<'_, ()> {
        let retire = leases::retire(orchestrator);
        Box::pin(async move { self.database.run_volatile(retire).await.map(|_| ()) })
    }

    fn live(&self, now_ms: u64) -> StoreFuture<'_, Vec<Lease>> {
        Box::pin(self.read(leases::live(now_ms), leases::read))
    }

    fn note_models(&self, noted: Vec<KnownModel>) -> StoreFuture<'_, ()> {
        Box::pin(async move { self.database.run(models::note(&noted)).await.map(|_| ()) })
    }

    fn forget_models(&self, forgotten: Vec<ModelRef>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            self.database
                .run(models::forget(&forgotten))
                .await
                .map(|_| ())
        })
    }

    fn known_models(&self) -> StoreFuture<'_, Vec<KnownModel>> {
        Box::pin(self.read(models::known(), models::read))
    }

    fn prune(&self, now_ms: u64, limit: u32) -> StoreFuture<'_, Pruned> {
        Box::pin(async move {
            let rows = self
                .database
                .run(prune::prune(now_ms, limit).into())
                .await?;
            let gone = |at: usize| rows.get(at).map_or(0, Vec::len);
            Ok(Pruned {
                jobs: gone(0),
                answers: gone(1),
                dead_letters: gone(2) + gone(3),
            })
        })
    }

    fn counts(&self) -> StoreFuture<'_, Vec<(JobState, usize)>> {
        self.database.counts()
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.database.close()
    }
}
