//! Statements about dead letters: jobs that failed, kept for an operator. (RSV-3)

use super::database::{Columns, Row, Statement};
use super::keys::{Keys, Sealed};
use super::prune::Retention;
use super::{Holder, StoreError, seal};
use crate::job::kept::{MAX_ATTEMPTS_BYTES, read_secret};
use crate::job::{DeadLetter, FailedAttempt};
use std::sync::LazyLock;
use tether_wire::{CorrelationId, ModelRef, TenantId, codec};

/// The table, which what is sealed is bound to.
pub(super) const TABLE: &str = "dead_letters";
/// Dead letters that are kept; of more, the newest. An outage makes one for each request.
pub const MAX_DEAD_LETTERS: u32 = 10_000;

/// A dead letter as the store holds it, without the request. Nothing in it needs the tenant's key, but
/// the words of its attempts, where they were opened with the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLetter {
    /// The job.
    pub correlation: CorrelationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The model.
    pub model: ModelRef,
    /// The code of the error that the tenant was told.
    pub code: String,
    /// Why the job failed, in words of ours.
    pub reason: String,
    /// What was tried.
    pub attempts: Vec<FailedAttempt>,
    /// Unix milliseconds at which it failed last.
    pub created_ms: u64,
    /// Unix milliseconds until which it is kept.
    pub keep_until_ms: u64,
    /// How often it was run again.
    pub replays: u32,
    /// Unix milliseconds of the last time.
    pub replayed_ms: Option<u64>,
}

impl StoredLetter {
    /// Where the next page begins, behind this one.
    #[must_use]
    pub fn mark(&self) -> LetterMark {
        LetterMark {
            created_ms: self.created_ms,
            correlation: self.correlation,
        }
    }
}

/// The place of a dead letter in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LetterMark {
    /// Unix milliseconds at which it failed.
    pub created_ms: u64,
    /// The job.
    pub correlation: CorrelationId,
}

const COLUMNS: &str =
    "dead_letters.correlation_id, dead_letters.tenant, model, code, reason, attempts,
    dead_letters.created_ms, keep_until_ms, replays, replayed_ms";

/// Keeps a dead letter of a job that this holder ended as failed, as [`super::answers::keep`]. One
/// that fails again keeps how often it was run again.
pub(super) fn keep(
    holder: &Holder,
    letter: &DeadLetter,
    sealed: Sealed,
    now_ms: u64,
    keep: &Retention,
) -> Statement {
    let mut params = holder.params(now_ms);
    params.extend([
        crate::job::bounded_error(&letter.code).into(),
        letter.encoded_attempts().into(),
        sealed.bytes.into(),
        now_ms.saturating_add(keep.dead_letter_ms).into(),
        (&sealed.tenant).into(),
        sealed.wrapped_key.into(),
    ]);
    Statement::new(
        "INSERT INTO dead_letters (correlation_id, tenant, model, fence, code, reason, attempts,
            sealed, created_ms, keep_until_ms)
         SELECT correlation_id, tenant, model, fence, $5, error, $6, $7, $4, $8 FROM jobs
         WHERE correlation_id = $1 AND owner = $2 AND fence = $3 AND state = 'failed'
            AND updated_ms = $4 AND tenant = $9 AND EXISTS (SELECT 1 FROM tenant_keys
                WHERE tenant_keys.tenant = $9 AND tenant_keys.wrapped = $10)
         ON CONFLICT (correlation_id) DO UPDATE SET model = excluded.model,
            fence = excluded.fence, code = excluded.code, reason = excluded.reason,
            attempts = excluded.attempts, sealed = excluded.sealed,
            created_ms = excluded.created_ms, keep_until_ms = excluded.keep_until_ms
         RETURNING fence",
        params,
    )
}

/// Forgets the dead letter of a job that was answered after all.
pub(super) fn answered(holder: &Holder) -> Statement {
    Statement::new(
        "DELETE FROM dead_letters WHERE correlation_id = $1 AND EXISTS (SELECT 1 FROM jobs
            WHERE jobs.correlation_id = $1 AND jobs.owner = $2 AND jobs.fence = $3
                AND jobs.state = 'done')",
        [holder.job.into(), holder.owner.into(), holder.fence.into()],
    )
}

/// A page of them, the newest first.
pub(super) fn page(behind: Option<LetterMark>, limit: u32) -> Statement {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {COLUMNS} FROM dead_letters WHERE (created_ms, correlation_id) < ($1, $2)
             ORDER BY created_ms DESC, correlation_id DESC LIMIT $3"
        )
    });
    let first = LetterMark {
        created_ms: i64::MAX.cast_unsigned(),
        correlation: CorrelationId([0; 16]),
    };
    let LetterMark {
        created_ms,
        correlation,
    } = behind.unwrap_or(first);
    Statement::new(&SQL, [created_ms.into(), correlation.into(), limit.into()])
}

/// With what is sealed, the request and workers' words, and the tenant's key.
const WHOLE: &str = "fence, sealed, wrapped FROM dead_letters
    LEFT JOIN tenant_keys ON tenant_keys.tenant = dead_letters.tenant";

/// One of them with its request.
pub(super) fn find(job: CorrelationId) -> Statement {
    static SQL: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {COLUMNS}, {WHOLE} WHERE correlation_id = $1"));
    Statement::new(&SQL, [job.into()])
}

/// A page of them with their requests, by their jobs.
pub(super) fn page_by_id(behind: &[u8], limit: u32) -> Statement {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {COLUMNS}, {WHOLE} WHERE correlation_id > $1 ORDER BY correlation_id LIMIT $2"
        )
    });
    Statement::new(&SQL, [behind.into(), limit.into()])
}

fn columns(row: &mut Columns) -> Result<StoredLetter, StoreError> {
    Ok(StoredLetter {
        correlation: CorrelationId(row.bytes()?),
        tenant: row.parsed()?,
        model: row.parsed()?,
        code: row.text()?,
        reason: row.text()?,
        attempts: codec::decode("attempts", &row.blob()?, MAX_ATTEMPTS_BYTES)
            .map_err(|error| StoreError::Corrupt(format!("a dead letter: {error}")))?,
        created_ms: row.u64()?,
        keep_until_ms: row.u64()?,
        replays: row.u32()?,
        replayed_ms: row.maybe(Columns::u64)?,
    })
}

/// What [`page`] found.
pub(super) fn read(row: Row) -> Result<StoredLetter, StoreError> {
    columns(&mut row.read("a dead letter"))
}

/// A dead letter with its fence, what is sealed of it, and its tenant's key, where that is there.
pub(super) type Whole = (StoredLetter, u64, Vec<u8>, Option<Vec<u8>>);

/// What [`find`] found.
pub(super) fn read_whole(row: Row) -> Result<Whole, StoreError> {
    let mut row = row.read("a dead letter");
    let letter = columns(&mut row)?;
    let (fence, sealed) = (row.u64()?, row.blob()?);
    Ok((letter, fence, sealed, row.maybe(Columns::blob)?))
}

/// Opens what is sealed of one: the words of its attempts, and the request.
pub(super) fn unseal(whole: Whole, keys: &Keys) -> Result<(StoredLetter, Vec<u8>), StoreError> {
    let (mut letter, fence, sealed, wrapped_key) = whole;
    let (tenant, job) = (&letter.tenant, letter.correlation);
    let place = seal::place(TABLE, tenant, job, fence);
    let what = format!("the dead letter of job {job}");
    let text = keys.unseal(tenant, wrapped_key, &place, &sealed, &what)?;
    let (words, payload) =
        read_secret(&text).map_err(|error| StoreError::Corrupt(format!("{what}: {error}")))?;
    for (attempt, words) in letter.attempts.iter_mut().zip(words) {
        attempt.message = words;
    }
    Ok((letter, payload))
}

/// Notes that one is run again.
pub(super) fn mark_replayed(job: CorrelationId, replays: u32, now_ms: u64) -> Statement {
    Statement::new(
        "UPDATE dead_letters SET replays = replays + 1, replayed_ms = $3
         WHERE correlation_id = $1 AND replays = $2 RETURNING replays",
        [job.into(), replays.into(), now_ms.into()],
    )
}

/// Forgets one.
pub(super) fn forget(job: CorrelationId) -> Statement {
    let sql = "DELETE FROM dead_letters WHERE correlation_id = $1 RETURNING fence";
    Statement::new(sql, [job.into()])
}
