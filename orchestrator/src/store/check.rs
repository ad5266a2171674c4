//! Whether a store is whole: each record can be read, what is sealed opens, and records agree with
//! each other.

use super::database::{Columns, Database, Row, Rows, Statement};
use super::keys::Keys;
use super::{Store, StoreError, answers, jobs, keys, letters, models};
use crate::job::{Answer, JobState};
use std::sync::LazyLock;
use tether_wire::{CorrelationId, TenantId};

/// Records that are looked at together; of those that hold answers or requests, fewer.
const PAGE: u32 = 500;
const SEALED_PAGE: u32 = 8;
/// Problems that are told; of more, how many.
pub const MAX_PROBLEMS: usize = 100;

/// What was found in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Jobs.
    pub jobs: usize,
    /// Those of them that are open.
    pub open_jobs: usize,
    /// Those of them whose answer is whole.
    pub done_jobs: usize,
    /// What all of them are billed with.
    pub billed: Billed,
    /// Answers that are kept.
    pub answers: usize,
    /// Dead letters.
    pub dead_letters: usize,
    /// Tenants that have a key.
    pub tenants: usize,
    /// Models that are remembered.
    pub models: usize,
    /// Answers and dead letters of tenants whose key was dropped: nobody reads them any more.
    pub unreadable: usize,
    /// What is wrong, the first [`MAX_PROBLEMS`].
    pub problems: Vec<String>,
    /// Problems beyond those.
    pub more_problems: usize,
}

/// Tokens that jobs are billed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Billed {
    /// Of prompts.
    pub prompt_tokens: u64,
    /// Of answers.
    pub completion_tokens: u64,
}

impl Report {
    /// Notes that something is wrong.
    pub(super) fn problem(&mut self, what: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(what.into());
        } else {
            self.more_problems += 1;
        }
    }

    /// Notes what is wrong with a record, if anything is.
    fn note<T>(&mut self, read: Result<T, StoreError>, of: &str) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(StoreError::KeyGone(_)) => {
                self.unreadable += 1;
                None
            }
            Err(error) => {
                self.problem(format!("{of}: {error}"));
                None
            }
        }
    }
}

impl<D: Database> Store<D> {
    /// Looks at every record.
    ///
    /// # Errors
    /// When the database fails; what is wrong with records is in the report.
    pub async fn check(&self) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let (database, keys) = (&self.database, &self.keys);
        each(database, PAGE, jobs::page, |id, row| {
            report.jobs += 1;
            if let Some(job) = report.note(jobs::read(row), &format!("job {id}")) {
                report.open_jobs += usize::from(job.state.is_open());
                report.done_jobs += usize::from(job.state == JobState::Done);
                report.billed.prompt_tokens += u64::from(job.usage.prompt_tokens);
                report.billed.completion_tokens += u64::from(job.usage.completion_tokens);
                let derived = CorrelationId::derive(&job.tenant, &job.retry_token);
                if derived != job.correlation {
                    report.problem(format!("job {id} has not the id that follows from its key"));
                }
            }
        })
        .await?;
        each(database, PAGE, disagreeing, |id, _| {
            report.problem(format!("job {id} and its reservation disagree"));
        })
        .await?;
        each(database, SEALED_PAGE, answers::page, |id, row| {
            report.answers += 1;
            report.note(
                check_answer(row, id, keys),
                &format!("the answer of job {id}"),
            );
        })
        .await?;
        each(database, SEALED_PAGE, letters::page_by_id, |id, row| {
            report.dead_letters += 1;
            let read =
                letters::read_whole(row).and_then(|whole| letters::unseal(whole, keys).map(|_| ()));
            report.note(read, &format!("the dead letter of job {id}"));
        })
        .await?;
        for row in database.read(models::known()).await? {
            report.models += 1;
            report.note(models::read(row), "a known model");
        }
        self.check_tenants(&mut report).await?;
        Ok(report)
    }

    async fn check_tenants(&self, report: &mut Report) -> Result<(), StoreError> {
        let mut behind = String::new();
        loop {
            let rows = self.database.read(keys::page(&behind, PAGE)).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for row in rows {
                report.tenants += 1;
                let mut row = row.read("the key of a tenant");
                behind = row.text()?;
                let key = behind.parse::<TenantId>();
                let key = key.map_err(|error| StoreError::Corrupt(error.to_string()));
                let key = key.and_then(|tenant| self.keys.unwrap(&tenant, &row.blob()?));
                report.note(key, "the key of a tenant");
            }
        }
    }
}

/// Looks at all records of a kind, by the id of their job, which is their first column.
async fn each(
    database: &impl Database,
    limit: u32,
    page: impl Fn(&[u8], u32) -> Statement,
    mut look: impl FnMut(CorrelationId, Row),
) -> Result<(), StoreError> {
    let mut behind = Vec::new();
    loop {
        let rows: Rows = database.read(page(&behind, limit)).await?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in rows {
            let id = CorrelationId(row.clone().read("the id of a job").bytes()?);
            behind = id.0.to_vec();
            look(id, row);
        }
    }
}

/// Jobs whose reservation is missing, open when they are not, closed when they are open, or closed as
/// something else.
fn disagreeing(behind: &[u8], limit: u32) -> Statement {
    static SQL: LazyLock<String> = LazyLock::new(|| {
        let open = &*jobs::OPEN;
        format!(
            "SELECT jobs.correlation_id FROM jobs
             LEFT JOIN reservations ON reservations.correlation_id = jobs.correlation_id
             WHERE jobs.correlation_id > $1 AND (reservations.correlation_id IS NULL
                OR (jobs.state IN ({open}) AND reservations.closed_ms IS NOT NULL)
                OR (jobs.state NOT IN ({open}) AND
                    (reservations.closed_ms IS NULL OR reservations.outcome <> jobs.state)))
             ORDER BY jobs.correlation_id LIMIT $2"
        )
    });
    Statement::new(&SQL, [behind.into(), limit.into()])
}

fn check_answer(row: Row, job: CorrelationId, keys: &Keys) -> Result<(), StoreError> {
    let mut row = row.read("a kept answer");
    let _id: [u8; 16] = row.bytes()?;
    let state = row.text()?;
    if state != "done" {
        return Err(StoreError::Corrupt(format!("its job is {state}, not done")));
    }
    let tenant: TenantId = row.parsed()?;
    let (fence, sealed) = (row.u64()?, row.blob()?);
    let wrapped = row.maybe(Columns::blob)?;
    answers::unseal(tenant, job, fence, &sealed, wrapped, keys).map(|_: Answer| ())
}
