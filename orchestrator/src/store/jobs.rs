//! Statements about jobs and their reservations. From where a step may be taken, and where it leads,
//! they have from [`crate::job`].

use super::database::{Columns, Param, Row, Rows, Statement};
use super::leases::LIVES;
use super::prune::Retention;
use super::{Grounds, Holder, OpenJob, Released, Reserved, StoreError, TakeOver};
use crate::job::{Job, JobState, NewJob, Step, StepKind, bounded_error};
use std::sync::LazyLock;
use tether_wire::infer::{Finish, Usage};
use tether_wire::{CorrelationId, Digest, NodeId, TenantId};

const COLUMNS: &str = "correlation_id, tenant, retry_token, keyed, request_hash, model, digest,
    numerics_class, seed, state, owner, lease_until_ms, deadline_ms, fence, attempts, worker,
    failures, streamed, prompt_tokens, completion_tokens, finish, error, created_ms, updated_ms,
    keep_until_ms, (SELECT max_tokens FROM reservations
        WHERE reservations.correlation_id = jobs.correlation_id)";

/// A list of states for SQL. The names are ours, never text from outside.
pub(super) fn names(states: impl IntoIterator<Item = JobState>) -> String {
    let names = states.into_iter().map(|it| format!("'{}'", it.as_str()));
    names.collect::<Vec<_>>().join(", ")
}

fn states(which: impl Fn(&JobState) -> bool) -> String {
    names(JobState::ALL.into_iter().filter(which))
}

/// Those that are under way, as the partial index of them has it.
pub(super) static OPEN: LazyLock<String> = LazyLock::new(|| states(|it| it.is_open()));

pub(super) fn read(row: Row) -> Result<Job, StoreError> {
    let mut row = row.read("a job");
    Ok(Job {
        correlation: CorrelationId(row.bytes()?),
        tenant: row.parsed::<TenantId>()?,
        retry_token: row.text()?,
        keyed: row.flag()?,
        request_hash: Digest(row.bytes()?),
        model: row.parsed()?,
        digest: row.maybe(Columns::bytes)?.map(Digest),
        numerics_class: row.maybe(Columns::text)?,
        seed: row.u64()?,
        state: row.named(JobState::from_name)?,
        owner: NodeId(row.bytes()?),
        lease_until_ms: row.u64()?,
        deadline_ms: row.maybe(Columns::u64)?,
        fence: row.u64()?,
        attempts: row.u32()?,
        worker: row.maybe(Columns::bytes)?.map(NodeId),
        failures: row.u32()?,
        streamed: row.flag()?,
        usage: Usage {
            prompt_tokens: row.u32()?,
            completion_tokens: row.u32()?,
        },
        finish: row.maybe(|row| row.named(finish_named))?,
        error: row.maybe(Columns::text)?,
        created_ms: row.u64()?,
        updated_ms: row.u64()?,
        keep_until_ms: row.u64()?,
        max_tokens: row.maybe(Columns::u32)?,
    })
}

fn finish_named(name: &str) -> Option<Finish> {
    Finish::ALL.into_iter().find(|it| it.as_str() == name)
}

/// The job with an id.
pub(super) fn find(id: CorrelationId) -> Statement {
    static SQL: LazyLock<String> =
        LazyLock::new(|| format!("SELECT {COLUMNS} FROM jobs WHERE correlation_id = $1"));
    Statement::new(&SQL, [id.into()])
}

/// A page of all jobs, by their ids.
pub(super) fn page(behind: &[u8], limit: u32) -> Statement {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "SELECT {COLUMNS} FROM jobs WHERE correlation_id > $1 ORDER BY correlation_id LIMIT $2"
        )
    });
    Statement::new(&SQL, [behind.into(), limit.into()])
}

/// Records a job that is new or begins anew, and its reservation. The fence begins at the time, so that
/// it is higher than any that the job had before it was forgotten: workers may remember it.
pub(super) fn reserve(job: &NewJob, keep: &Retention) -> Vec<Statement> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "INSERT INTO jobs (correlation_id, tenant, retry_token, keyed, request_hash, model, seed,
                state, owner, lease_until_ms, deadline_ms, fence, created_ms, updated_ms,
                keep_until_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'reserved', $8, $9, $10, $11, $11, $11, $12)
             ON CONFLICT (correlation_id) DO UPDATE SET keyed = excluded.keyed,
                model = excluded.model, state = excluded.state,
                digest = CASE WHEN jobs.streamed = 1 THEN jobs.digest END,
                numerics_class = CASE WHEN jobs.streamed = 1 THEN jobs.numerics_class END,
                owner = excluded.owner, lease_until_ms = excluded.lease_until_ms,
                deadline_ms = excluded.deadline_ms, fence = jobs.fence + 1, attempts = 0,
                worker = NULL, finish = NULL, error = NULL, updated_ms = excluded.updated_ms,
                keep_until_ms = excluded.keep_until_ms
             WHERE jobs.state IN ({}) AND jobs.request_hash = excluded.request_hash
             RETURNING fence, seed, created_ms",
            states(|it| it.begun_anew().is_some())
        )
    });
    let recorded = Statement::new(
        &SQL,
        [
            job.correlation.into(),
            (&job.tenant).into(),
            job.retry_token.as_str().into(),
            job.keyed.into(),
            job.request_hash.into(),
            job.model.to_string().as_str().into(),
            job.seed.into(),
            job.owner.into(),
            job.lease_until_ms.into(),
            job.deadline_ms.into(),
            job.now_ms.into(),
            keep.job_until(job.now_ms).into(),
        ],
    );
    let reservation = Statement::new(
        "INSERT INTO reservations (correlation_id, tenant, fence, max_tokens, opened_ms)
         SELECT correlation_id, tenant, fence, $2, $3 FROM jobs
         WHERE correlation_id = $1 AND state = 'reserved'
         ON CONFLICT (correlation_id) DO UPDATE SET fence = excluded.fence,
            max_tokens = excluded.max_tokens, opened_ms = excluded.opened_ms, closed_ms = NULL,
            outcome = NULL
         WHERE reservations.fence < excluded.fence",
        [
            job.correlation.into(),
            job.max_tokens.map(u64::from).into(),
            job.now_ms.into(),
        ],
    );
    vec![recorded, reservation]
}

/// What [`reserve`] did, where the job may run.
pub(super) fn reserved(rows: Rows) -> Result<Option<Reserved>, StoreError> {
    let read = |row: Row| {
        let mut row = row.read("a reserved job");
        Ok(Reserved::New {
            fence: row.u64()?,
            seed: row.u64()?,
            created_ms: row.u64()?,
        })
    };
    rows.into_iter().next().map(read).transpose()
}

/// The text of a step: what it sets, and from where to where it leads.
fn step_sql(kind: StepKind) -> String {
    // What an earlier run gave stays counted.
    const AT_LEAST: &str = "
        prompt_tokens = CASE WHEN prompt_tokens > $5 THEN prompt_tokens ELSE $5 END,
        completion_tokens = CASE WHEN completion_tokens > $6 THEN completion_tokens ELSE $6 END,
        streamed = CASE WHEN $6 > 0 THEN 1 ELSE streamed END";
    let sets = match kind {
        StepKind::Dispatched => {
            "worker = $5, digest = $6, attempts = $7, numerics_class = $8".to_owned()
        }
        StepKind::Streaming => "streamed = 1".to_owned(),
        StepKind::Done => "prompt_tokens = $5, completion_tokens = $6,
            streamed = CASE WHEN $6 > 0 THEN 1 ELSE streamed END, finish = $7, keep_until_ms = $8"
            .to_owned(),
        StepKind::Failed => {
            format!("{AT_LEAST}, error = $7, keep_until_ms = $8, failures = failures + 1")
        }
        StepKind::Refused => "error = $5, keep_until_ms = $6".to_owned(),
        StepKind::Cancelled => format!("{AT_LEAST}, keep_until_ms = $7"),
    };
    let also = if kind == StepKind::Dispatched {
        " AND attempts < $7"
    } else {
        ""
    };
    let leads: String = (kind.ways())
        .map(|(from, to)| format!(" WHEN '{}' THEN '{}'", from.as_str(), to.as_str()))
        .collect();
    let from = names(kind.ways().map(|(from, _)| from));
    format!(
        "UPDATE jobs SET state = CASE state{leads} END, updated_ms = $4, {sets}
         WHERE correlation_id = $1 AND owner = $2 AND fence = $3 AND state IN ({from}){also}
         RETURNING fence"
    )
}

/// Takes a step. Its row is there where it was taken; what else the end of a job does belongs
/// behind it.
pub(super) fn step(holder: &Holder, step: &Step, now_ms: u64, keep: &Retention) -> Statement {
    static SQL: LazyLock<Vec<String>> =
        LazyLock::new(|| StepKind::ALL.into_iter().map(step_sql).collect());
    let kind = step.kind();
    let at = StepKind::ALL.iter().position(|it| *it == kind);
    let sql = &SQL[at.expect("each kind is among all")];
    let until = || Param::from(keep.job_until(now_ms));
    let counts = |usage: &Usage| [usage.prompt_tokens.into(), usage.completion_tokens.into()];
    let mut params = holder.params(now_ms);
    match step {
        Step::Dispatched {
            worker,
            digest,
            attempt,
            numerics_class,
        } => params.extend([
            (*worker).into(),
            (*digest).into(),
            (*attempt).into(),
            numerics_class.as_str().into(),
        ]),
        Step::Streaming => {}
        Step::Done { finish, usage, .. } => {
            params.extend(counts(usage));
            params.extend([finish.as_str().into(), until()]);
        }
        Step::Failed { error, usage, .. } => {
            params.extend(counts(usage));
            params.extend([bounded_error(error).into(), until()]);
        }
        Step::Refused { error } => params.extend([bounded_error(error).into(), until()]),
        Step::Cancelled { usage } => {
            params.extend(counts(usage));
            params.push(until());
        }
    }
    Statement::new(sql, params)
}

impl Holder {
    /// `$1` to `$4` of what only the owner may do.
    pub(super) fn params(&self, now_ms: u64) -> Vec<Param> {
        let (job, owner) = (self.job.into(), self.owner.into());
        vec![job, owner, self.fence.into(), now_ms.into()]
    }
}

/// Closes the reservation of a job that this holder ended.
pub(super) fn close_reservation(holder: &Holder, ended: JobState, now_ms: u64) -> Statement {
    let mut params = holder.params(now_ms);
    params.push(ended.as_str().into());
    Statement::new(
        "UPDATE reservations SET closed_ms = $4, outcome = $5
         WHERE correlation_id = $1 AND closed_ms IS NULL AND EXISTS
            (SELECT 1 FROM jobs WHERE jobs.correlation_id = $1 AND jobs.owner = $2
                AND jobs.fence = $3 AND jobs.state = $5)",
        params,
    )
}

/// Why a step was not taken, by the job as it is now.
pub(super) fn refused(
    job: CorrelationId,
    asked: &'static str,
    found: Option<&Job>,
    holder: &Holder,
) -> StoreError {
    let found = match found {
        None => "there is no such job".to_owned(),
        Some(job) if job.owner != holder.owner => format!("it belongs to {}", job.owner),
        Some(job) if job.fence != holder.fence => {
            format!("its fence is {}, not {}", job.fence, holder.fence)
        }
        Some(job) => format!("it is {}, attempt {}", job.state.as_str(), job.attempts),
    };
    StoreError::Refused { job, asked, found }
}

/// Gives an open job to another owner.
pub(super) fn take_over(order: &TakeOver) -> Vec<Statement> {
    fn sql(grounds: Grounds) -> String {
        let may = match grounds {
            Grounds::LeaseOver => {
                format!("owner <> $4 AND (lease_until_ms < $6 OR NOT {LIVES} >= $6))")
            }
            Grounds::NamedLost => "owner <> $4".to_owned(),
            Grounds::Ours => "owner = $4".to_owned(),
        };
        let open = &*OPEN;
        format!(
            "UPDATE jobs SET owner = $4, fence = fence + 1, lease_until_ms = $5, updated_ms = $6,
             model = coalesce($7, model)
             WHERE correlation_id = $1 AND owner = $2 AND fence = $3 AND state IN ({open}) AND {may}
             RETURNING {COLUMNS}"
        )
    }
    static SQL: LazyLock<[String; 3]> =
        LazyLock::new(|| [Grounds::LeaseOver, Grounds::NamedLost, Grounds::Ours].map(sql));
    let sql = match order.grounds {
        Grounds::LeaseOver => &SQL[0],
        Grounds::NamedLost => &SQL[1],
        Grounds::Ours => &SQL[2],
    };
    let taken = Statement::new(
        sql,
        [
            order.from.job.into(),
            order.from.owner.into(),
            order.from.fence.into(),
            order.by.into(),
            order.lease_until_ms.into(),
            order.now_ms.into(),
            order.model.as_ref().map(ToString::to_string).into(),
        ],
    );
    let reservation = Statement::new(
        "UPDATE reservations SET fence = fence + 1
         WHERE correlation_id = $1 AND closed_ms IS NULL AND fence < (SELECT jobs.fence FROM jobs
            WHERE jobs.correlation_id = reservations.correlation_id)",
        [order.from.job.into()],
    );
    vec![taken, reservation]
}

/// Fails every open job of an owner.
pub(super) fn release_open(
    owner: NodeId,
    reason: &str,
    now_ms: u64,
    keep: &Retention,
) -> Vec<Statement> {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        format!(
            "UPDATE jobs SET state = 'failed', fence = fence + 1, error = $2, updated_ms = $3,
                keep_until_ms = $4, failures = failures + 1
             WHERE owner = $1 AND state IN ({}) RETURNING streamed",
            &*OPEN
        )
    });
    let released = Statement::new(
        &SQL,
        [
            owner.into(),
            bounded_error(reason).into(),
            now_ms.into(),
            keep.job_until(now_ms).into(),
        ],
    );
    let reservations = Statement::new(
        "UPDATE reservations SET closed_ms = $2, outcome = 'failed'
         WHERE closed_ms IS NULL AND EXISTS (SELECT 1 FROM jobs
            WHERE jobs.correlation_id = reservations.correlation_id AND jobs.owner = $1
                AND jobs.state = 'failed')",
        [owner.into(), now_ms.into()],
    );
    vec![released, reservations]
}

/// What [`release_open`] did.
pub(super) fn released(rows: Rows) -> Result<Released, StoreError> {
    let mut released = Released::default();
    for row in rows {
        if row.read("a released job").flag()? {
            released.partly_answered += 1;
        } else {
            released.unanswered += 1;
        }
    }
    Ok(released)
}

/// Open jobs of an owner, and of those who lost them.
pub(super) fn open_jobs(owner: NodeId, limit: u32, over_by_ms: u64) -> Statement {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let open = &*OPEN;
        format!(
            "SELECT correlation_id, owner, fence, state, updated_ms FROM jobs
             WHERE state IN ({open})
                AND (owner = $1 OR lease_until_ms < $2 OR NOT {LIVES} >= $2)) LIMIT $3"
        )
    });
    Statement::new(&SQL, [owner.into(), over_by_ms.into(), limit.into()])
}

/// What [`open_jobs`] found.
pub(super) fn open(row: Row) -> Result<OpenJob, StoreError> {
    let mut row = row.read("an open job");
    Ok(OpenJob {
        holder: Holder {
            job: CorrelationId(row.bytes()?),
            owner: NodeId(row.bytes()?),
            fence: row.u64()?,
        },
        state: row.named(JobState::from_name)?,
        updated_ms: row.u64()?,
    })
}
