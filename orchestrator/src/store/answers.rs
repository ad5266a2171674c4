//! Statements about answers that are kept, sealed. (RSV-5)

use super::database::{Columns, Row, Statement};
use super::keys::{Keys, Sealed};
use super::prune::Retention;
use super::{Holder, StoreError, seal};
use crate::job::Answer;
use tether_wire::{CorrelationId, TenantId};

/// The table, which what is sealed is bound to.
pub(super) const TABLE: &str = "results";

/// Keeps the answer of a job that this holder ended as done, where its tenant still has the key that
/// it was sealed under. Its row is there where it was kept.
pub(super) fn keep(holder: &Holder, sealed: Sealed, now_ms: u64, keep: &Retention) -> Statement {
    let mut params = holder.params(now_ms);
    params.extend([
        (sealed.bytes.len() as u64).into(),
        sealed.bytes.into(),
        keep.answer_ms.into(),
        keep.unkeyed_ms.into(),
        (&sealed.tenant).into(),
        sealed.wrapped_key.into(),
    ]);
    Statement::new(
        "INSERT INTO results (correlation_id, fence, bytes, sealed, keep_until_ms)
         SELECT correlation_id, fence, $5, $6, $4 + CASE WHEN keyed = 1 THEN $7 ELSE $8 END
         FROM jobs WHERE correlation_id = $1 AND owner = $2 AND fence = $3 AND state = 'done'
            AND tenant = $9 AND EXISTS (SELECT 1 FROM tenant_keys
                WHERE tenant_keys.tenant = $9 AND tenant_keys.wrapped = $10)
         ON CONFLICT (correlation_id) DO NOTHING RETURNING fence",
        params,
    )
}

/// The answer of a tenant's job, with the tenant's key, as long as it is to be kept.
pub(super) fn find(tenant: &TenantId, job: CorrelationId, now_ms: u64) -> Statement {
    Statement::new(
        "SELECT results.fence, results.sealed, tenant_keys.wrapped FROM results
         JOIN jobs ON jobs.correlation_id = results.correlation_id
         LEFT JOIN tenant_keys ON tenant_keys.tenant = jobs.tenant
         WHERE results.correlation_id = $1 AND jobs.tenant = $2 AND jobs.state = 'done'
            AND results.keep_until_ms > $3",
        [job.into(), tenant.into(), now_ms.into()],
    )
}

/// An answer as it lies there: its fence, what is sealed, and the tenant's key, which is gone where it
/// is not there.
pub(super) type Lying = (u64, Vec<u8>, Option<Vec<u8>>);

/// What [`find`] found.
pub(super) fn read(row: Row) -> Result<Lying, StoreError> {
    let mut row = row.read("a kept answer");
    Ok((row.u64()?, row.blob()?, row.maybe(Columns::blob)?))
}

/// Opens an answer.
pub(super) fn unseal(
    tenant: TenantId,
    job: CorrelationId,
    fence: u64,
    sealed: &[u8],
    wrapped_key: Option<Vec<u8>>,
    keys: &Keys,
) -> Result<Answer, StoreError> {
    let place = seal::place(TABLE, &tenant, job, fence);
    let what = format!("the answer of job {job}");
    let text = keys.unseal(&tenant, wrapped_key, &place, sealed, &what)?;
    Answer::read(tenant, text).map_err(|_| StoreError::Unreadable(what))
}

/// A page of all answers, by their jobs: id, state, tenant, fence, what is sealed, the tenant's key.
pub(super) fn page(behind: &[u8], limit: u32) -> Statement {
    Statement::new(
        "SELECT results.correlation_id, jobs.state, jobs.tenant, results.fence, results.sealed,
            tenant_keys.wrapped FROM results
         JOIN jobs ON jobs.correlation_id = results.correlation_id
         LEFT JOIN tenant_keys ON tenant_keys.tenant = jobs.tenant
         WHERE results.correlation_id > $1 ORDER BY results.correlation_id LIMIT $2",
        [behind.into(), limit.into()],
    )
}
