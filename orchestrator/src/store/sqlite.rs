//! The store in one SQLite file. The only module that knows SQLite's SQL.
//!
//! Write-ahead log, and a flush of the disk at each commit (`synchronous = FULL`): what was
//! answered for survives a power cut. One process at a time has the file, by a lock beside it.

mod counts;
mod models;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

pub use writer::{MAX_GROUP, MAX_PENDING, OnCommit};

use super::{Holder, KnownModel, MetadataStore, Released, Reserved, StoreError, StoreFuture};
use crate::job::{Job, JobState, NewJob, Repeat, Step, bounded_error};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, named_params, params};
use std::fs::File;
use std::path::Path;
use tether_wire::infer::{Finish, Usage};
use tether_wire::{CorrelationId, Digest, ModelRef, NodeId, TenantId};
use writer::Writer;

/// The store in one SQLite file.
pub struct SqliteStore {
    writer: Writer,
}

impl SqliteStore {
    /// Opens or makes the file and brings its schema up to date.
    ///
    /// # Errors
    /// When the file is in use, cannot be opened, or was made by a later version.
    pub fn open(path: &Path, now_ms: u64, on_commit: OnCommit) -> Result<Self, StoreError> {
        let open = |why: String| StoreError::Open {
            path: path.to_owned(),
            why,
        };
        let failed = |error: rusqlite::Error| {
            if is_damage(&error) {
                damaged(path, error.to_string())
            } else {
                open(error.to_string())
            }
        };
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension("lock"))
            .map_err(|error| open(error.to_string()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(StoreError::InUse(path.to_owned()));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(open(error.to_string())),
        }
        let mut conn = Connection::open(path).map_err(failed)?;
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF;",
        )
        .map_err(failed)?;
        schema::migrate(&mut conn, now_ms).map_err(|error| match error {
            StoreError::Damaged { why, .. } => damaged(path, why),
            error => error,
        })?;
        counts::follow(&conn).map_err(failed)?;
        conn.set_prepared_statement_cache_capacity(32);
        let writer =
            Writer::start(conn, lock, on_commit).map_err(|error| open(error.to_string()))?;
        Ok(Self { writer })
    }
}

fn disk(error: rusqlite::Error) -> StoreError {
    if is_damage(&error) {
        let path = Path::new(crate::orchestrator::STORE_FILE);
        return damaged(path, error.to_string());
    }
    StoreError::Disk(error.to_string())
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

fn damaged(path: &Path, why: String) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        why,
    }
}

fn sql_u64(value: u64) -> i64 {
    // Times and fences stay far below 2^63; seeds use every bit and come back by the same way.
    value.cast_signed()
}

const JOB_COLUMNS: &str = "correlation_id, tenant, retry_token, request_hash, model, digest, seed,
    state, owner, lease_until_ms, fence, attempts, worker, streamed, prompt_tokens,
    completion_tokens, finish, error, created_ms, updated_ms";

fn read_job(row: &Row<'_>) -> rusqlite::Result<Result<Job, StoreError>> {
    let text = |column: &str| row.get::<_, String>(column);
    let number = |column: &str| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let (tenant, model, state) = (text("tenant")?, text("model")?, text("state")?);
    let finish: Option<String> = row.get("finish")?;
    let corrupt = |what: &str| StoreError::Corrupt(format!("{what} of a job"));
    let job = Job {
        correlation: CorrelationId(row.get("correlation_id")?),
        tenant: match TenantId::new(tenant) {
            Ok(tenant) => tenant,
            Err(_) => return Ok(Err(corrupt("tenant"))),
        },
        retry_token: text("retry_token")?,
        request_hash: Digest(row.get("request_hash")?),
        model: match model.parse::<ModelRef>() {
            Ok(model) => model,
            Err(_) => return Ok(Err(corrupt("model"))),
        },
        digest: row.get::<_, Option<[u8; 32]>>("digest")?.map(Digest),
        seed: number("seed")?,
        state: match JobState::from_name(&state) {
            Some(state) => state,
            None => return Ok(Err(corrupt("state"))),
        },
        owner: NodeId(row.get("owner")?),
        lease_until_ms: number("lease_until_ms")?,
        fence: number("fence")?,
        attempts: row.get("attempts")?,
        worker: row.get::<_, Option<[u8; 32]>>("worker")?.map(NodeId),
        streamed: row.get("streamed")?,
        usage: Usage {
            prompt_tokens: row.get("prompt_tokens")?,
            completion_tokens: row.get("completion_tokens")?,
        },
        finish: finish.and_then(|name| {
            Finish::ALL
                .into_iter()
                .find(|finish| finish.as_str() == name)
        }),
        error: row.get("error")?,
        created_ms: number("created_ms")?,
        updated_ms: number("updated_ms")?,
    };
    Ok(Ok(job))
}

fn find(
    conn: &Connection,
    by: &str,
    params: impl rusqlite::Params,
) -> Result<Option<Job>, StoreError> {
    conn.prepare_cached(&format!("SELECT {JOB_COLUMNS} FROM jobs WHERE {by}"))
        .map_err(disk)?
        .query_row(params, read_job)
        .optional()
        .map_err(disk)?
        .transpose()
}

fn reserve(conn: &Connection, job: &NewJob) -> Result<Reserved, StoreError> {
    // By id or by key: the id follows from the key, so that both find the same job.
    let earlier = find(
        conn,
        "correlation_id = ?1 OR (tenant = ?2 AND retry_token = ?3)",
        params![job.correlation.0, job.tenant.as_str(), job.retry_token],
    )?;
    let (fence, seed) = match earlier {
        None => (1, job.seed),
        Some(earlier) => match earlier.repeated_by(&job.request_hash) {
            Repeat::BeginAnew => (earlier.fence + 1, earlier.seed),
            repeat => return Ok(Reserved::Repeated(repeat, Box::new(earlier))),
        },
    };
    conn.prepare_cached(
        "INSERT INTO jobs (correlation_id, tenant, retry_token, request_hash, model, seed, state,
            owner, lease_until_ms, fence, created_ms, updated_ms)
         VALUES (:id, :tenant, :token, :hash, :model, :seed, 'reserved', :owner, :lease, :fence,
            :now, :now)
         ON CONFLICT (correlation_id) DO UPDATE SET model = :model, digest = NULL,
            state = 'reserved', owner = :owner, lease_until_ms = :lease, fence = :fence,
            attempts = 0, worker = NULL, prompt_tokens = 0, finish = NULL, error = NULL,
            updated_ms = :now",
    )
    .map_err(disk)?
    .execute(named_params! {
        ":id": job.correlation.0, ":tenant": job.tenant.as_str(), ":token": job.retry_token,
        ":hash": job.request_hash.0, ":model": job.model.to_string(), ":seed": sql_u64(seed),
        ":owner": job.owner.0, ":lease": sql_u64(job.lease_until_ms), ":fence": sql_u64(fence),
        ":now": sql_u64(job.now_ms),
    })
    .map_err(disk)?;
    conn.prepare_cached(
        "INSERT OR REPLACE INTO reservations
            (correlation_id, tenant, fence, max_tokens, opened_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
    )
    .map_err(disk)?
    .execute(params![
        job.correlation.0,
        job.tenant.as_str(),
        sql_u64(fence),
        job.max_tokens,
        sql_u64(job.now_ms)
    ])
    .map_err(disk)?;
    Ok(Reserved::New { fence, seed })
}

fn step(conn: &Connection, holder: &Holder, step: &Step, now_ms: u64) -> Result<(), StoreError> {
    let next = step.state();
    // The names are ours, never text from outside.
    let from: Vec<String> = step
        .from_states()
        .map(|state| format!("'{}'", state.as_str()))
        .collect();
    let (worker, digest, attempt) = match step {
        Step::Dispatched {
            worker,
            digest,
            attempt,
        } => (Some(worker.0), Some(digest.0), Some(*attempt)),
        _ => (None, None, None),
    };
    let usage = match step {
        Step::Done { usage, .. } | Step::Failed { usage, .. } | Step::Cancelled { usage } => {
            Some(*usage)
        }
        _ => None,
    };
    let (finish, error) = match step {
        Step::Done { finish, .. } => (Some(finish.as_str()), None),
        Step::Failed { error, .. } => (None, Some(bounded_error(error))),
        _ => (None, None),
    };
    let changed = conn
        .prepare_cached(&format!(
            "UPDATE jobs SET
                state = CASE WHEN :state = 'dispatched' AND state = 'streaming' THEN state
                    ELSE :state END, updated_ms = :now,
                worker = coalesce(:worker, worker), digest = coalesce(:digest, digest),
                attempts = coalesce(:attempt, attempts),
                streamed = streamed OR :streamed,
                prompt_tokens = coalesce(:prompt, prompt_tokens),
                completion_tokens = coalesce(:completion, completion_tokens),
                finish = :finish, error = :error
             WHERE correlation_id = :id AND owner = :owner AND fence = :fence AND state IN ({})",
            from.join(", ")
        ))
        .map_err(disk)?
        .execute(named_params! {
            ":state": next.as_str(), ":now": sql_u64(now_ms), ":worker": worker,
            ":digest": digest, ":attempt": attempt,
            ":streamed": next == JobState::Streaming || usage.is_some_and(|u| u.completion_tokens > 0),
            ":prompt": usage.map(|u| u.prompt_tokens),
            ":completion": usage.map(|u| u.completion_tokens),
            ":finish": finish, ":error": error, ":id": holder.job.0, ":owner": holder.owner.0,
            ":fence": sql_u64(holder.fence),
        })
        .map_err(disk)?;
    if changed == 0 {
        return Err(refused(conn, holder, next)?);
    }
    if !next.is_open() {
        close_reservation(conn, &holder.job, next, now_ms)?;
    }
    Ok(())
}

fn refused(conn: &Connection, holder: &Holder, step: JobState) -> Result<StoreError, StoreError> {
    let found = match find(conn, "correlation_id = ?1", [holder.job.0])? {
        None => "there is no such job".to_owned(),
        Some(job) if job.owner != holder.owner => format!("it belongs to {}", job.owner),
        Some(job) if job.fence != holder.fence => {
            format!("its fence is {}, not {}", job.fence, holder.fence)
        }
        Some(job) => format!("it is {}", job.state.as_str()),
    };
    Ok(StoreError::Refused {
        job: holder.job,
        step,
        found,
    })
}

fn close_reservation(
    conn: &Connection,
    job: &CorrelationId,
    outcome: JobState,
    now_ms: u64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE reservations SET closed_ms = ?2, outcome = ?3
         WHERE correlation_id = ?1 AND closed_ms IS NULL",
    )
    .map_err(disk)?
    .execute(params![job.0, sql_u64(now_ms), outcome.as_str()])
    .map_err(disk)?;
    Ok(())
}

fn release_open(
    conn: &Connection,
    owner: &NodeId,
    reason: &str,
    now_ms: u64,
) -> Result<Released, StoreError> {
    let mut statement = conn
        .prepare_cached(
            "UPDATE jobs SET state = 'failed', owner = ?1, fence = fence + 1, error = ?2,
                updated_ms = ?3
             WHERE state IN ('reserved', 'dispatched', 'streaming')
               AND (owner = ?1 OR lease_until_ms < ?3)
             RETURNING correlation_id, streamed",
        )
        .map_err(disk)?;
    let rows = statement
        .query_map(
            params![owner.0, bounded_error(reason), sql_u64(now_ms)],
            |row| Ok((CorrelationId(row.get(0)?), row.get::<_, bool>(1)?)),
        )
        .map_err(disk)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(disk)?;
    let mut released = Released::default();
    for (job, streamed) in rows {
        close_reservation(conn, &job, JobState::Failed, now_ms)?;
        if streamed {
            released.partly_answered += 1;
        } else {
            released.unanswered += 1;
        }
    }
    Ok(released)
}

fn open_jobs(
    conn: &Connection,
    owner: &NodeId,
    limit: u32,
    now_ms: u64,
) -> Result<Vec<Holder>, StoreError> {
    conn.prepare_cached(
        "SELECT correlation_id, owner, fence FROM jobs
         WHERE state IN ('reserved', 'dispatched', 'streaming')
           AND (owner = ?1 OR lease_until_ms < ?2) LIMIT ?3",
    )
    .map_err(disk)?
    .query_map(params![owner.0, sql_u64(now_ms), limit], |row| {
        Ok(Holder {
            job: CorrelationId(row.get(0)?),
            owner: NodeId(row.get(1)?),
            fence: row.get::<_, i64>(2)?.cast_unsigned(),
        })
    })
    .map_err(disk)?
    .collect::<Result<_, _>>()
    .map_err(disk)
}

fn prune(conn: &Connection, before_ms: u64, limit: u32) -> Result<usize, StoreError> {
    conn.prepare_cached(
        "DELETE FROM jobs WHERE correlation_id IN (SELECT correlation_id FROM jobs
            WHERE state IN ('done', 'failed', 'cancelled') AND updated_ms < ?1 LIMIT ?2)",
    )
    .map_err(disk)?
    .execute(params![sql_u64(before_ms), limit])
    .map_err(disk)
}

impl MetadataStore for SqliteStore {
    fn reserve(&self, job: NewJob) -> StoreFuture<'_, Reserved> {
        Box::pin(self.writer.run(move |conn| reserve(conn, &job)))
    }
    fn step(&self, holder: Holder, taken: Step, now_ms: u64) -> StoreFuture<'_, ()> {
        Box::pin(
            self.writer
                .run(move |conn| step(conn, &holder, &taken, now_ms)),
        )
    }
    fn job(&self, id: CorrelationId) -> StoreFuture<'_, Option<Job>> {
        Box::pin(
            self.writer
                .run(move |conn| find(conn, "correlation_id = ?1", [id.0])),
        )
    }
    fn release_open(
        &self,
        owner: NodeId,
        reason: String,
        now_ms: u64,
    ) -> StoreFuture<'_, Released> {
        Box::pin(
            self.writer
                .run(move |conn| release_open(conn, &owner, &reason, now_ms)),
        )
    }
    fn open_jobs(&self, owner: NodeId, limit: u32, now_ms: u64) -> StoreFuture<'_, Vec<Holder>> {
        Box::pin(
            self.writer
                .run(move |conn| open_jobs(conn, &owner, limit, now_ms)),
        )
    }
    fn note_models(&self, noted: Vec<KnownModel>) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.run(move |conn| models::note(conn, &noted)))
    }
    fn forget_models(&self, forgotten: Vec<ModelRef>) -> StoreFuture<'_, ()> {
        Box::pin(
            self.writer
                .run(move |conn| models::forget(conn, &forgotten)),
        )
    }
    fn known_models(&self) -> StoreFuture<'_, Vec<KnownModel>> {
        Box::pin(self.writer.run(models::known))
    }
    fn prune(&self, before_ms: u64, limit: u32) -> StoreFuture<'_, usize> {
        Box::pin(self.writer.run(move |conn| prune(conn, before_ms, limit)))
    }
    fn counts(&self) -> StoreFuture<'_, Vec<(JobState, usize)>> {
        Box::pin(std::future::ready(self.writer.counts()))
    }
    fn close(&self) -> StoreFuture<'_, ()> {
        Box::pin(self.writer.close())
    }
}
