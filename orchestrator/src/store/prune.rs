//! For how long what is kept is kept, and the statements that forget it.

use super::database::Statement;
use super::jobs::OPEN;
use super::leases;
use super::letters::MAX_DEAD_LETTERS;
use std::sync::LazyLock;

/// For how long what is kept is kept, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Jobs, after their end; no shorter than their dead letters.
    pub job_ms: u64,
    /// Answers to requests whose caller gave a key; no longer than jobs.
    pub answer_ms: u64,
    /// Answers to others: only a gateway can come again for them.
    pub unkeyed_ms: u64,
    /// Dead letters.
    pub dead_letter_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            job_ms: 24 * 3_600_000,
            answer_ms: 24 * 3_600_000,
            unkeyed_ms: 10 * 60_000,
            dead_letter_ms: 7 * 24 * 3_600_000,
        }
    }
}

impl Retention {
    /// Unix milliseconds until which a job is remembered, of which something happens now.
    pub(super) fn job_until(&self, now_ms: u64) -> u64 {
        now_ms.saturating_add(self.job_ms)
    }
}

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Jobs, and with them their answers.
    pub jobs: usize,
    /// Answers whose jobs stay.
    pub answers: usize,
    /// Dead letters.
    pub dead_letters: usize,
}

impl Pruned {
    /// Whether there may be more than was allowed at once.
    #[must_use]
    pub fn may_be_more(&self, limit: u32) -> bool {
        let most = self.jobs.max(self.answers).max(self.dead_letters);
        most >= limit as usize
    }
}

/// Forgets at most `limit` of each kind: jobs, answers, dead letters, and dead letters of which there
/// are too many. A job stays as long as its dead letter: a replay goes on with its seed and fence.
///
/// Each condition stands twice: PostgreSQL looks again at a row that somebody else changed meanwhile,
/// but only by what stands outside. A job that began anew stays, and what failed again.
pub(super) fn prune(now_ms: u64, limit: u32) -> [Statement; 5] {
    static JOBS: LazyLock<String> = LazyLock::new(|| {
        let is_over = format!("keep_until_ms < $1 AND state NOT IN ({})", &*OPEN);
        format!(
            "DELETE FROM jobs WHERE correlation_id IN (SELECT correlation_id FROM jobs
                WHERE {is_over} AND NOT EXISTS (SELECT 1 FROM dead_letters
                    WHERE dead_letters.correlation_id = jobs.correlation_id) LIMIT $2)
             AND {is_over} RETURNING fence"
        )
    });
    let params = || [now_ms.into(), limit.into()];
    [
        Statement::new(&JOBS, params()),
        Statement::new(
            "DELETE FROM results WHERE correlation_id IN (SELECT correlation_id FROM results
                WHERE keep_until_ms < $1 LIMIT $2) AND keep_until_ms < $1 RETURNING fence",
            params(),
        ),
        Statement::new(
            "DELETE FROM dead_letters WHERE correlation_id IN (SELECT correlation_id
                FROM dead_letters WHERE keep_until_ms < $1 LIMIT $2)
             AND keep_until_ms < $1 RETURNING fence",
            params(),
        ),
        Statement::new(
            "DELETE FROM dead_letters WHERE (correlation_id, created_ms) IN
                (SELECT correlation_id, created_ms FROM dead_letters
                    ORDER BY created_ms DESC, correlation_id DESC LIMIT $2 OFFSET $1)
             RETURNING fence",
            [MAX_DEAD_LETTERS.into(), limit.into()],
        ),
        leases::forget(now_ms),
    ]
}
