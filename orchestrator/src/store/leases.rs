//! Who lives, and who may take over a job. (FED-1)

use super::database::{Row, Statement};
use super::{Holder, StoreError};
use tether_wire::{ModelRef, NodeId, Region};

/// That a job's owner lives at a time, which is to follow with a closing parenthesis.
pub(super) const LIVES: &str = "EXISTS (SELECT 1 FROM orchestrators
    WHERE orchestrators.id = jobs.owner AND orchestrators.lease_until_ms";

/// How long a lease is remembered after it was over, in milliseconds.
const REMEMBERED_MS: u64 = 24 * 3_600_000;

/// An orchestrator that lives for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which.
    pub orchestrator: NodeId,
    /// Where it stands.
    pub region: Region,
    /// Unix milliseconds of its start: a later one is another run, which has nothing in memory.
    pub started_ms: u64,
    /// Unix milliseconds until which it lives, unless it renews.
    pub until_ms: u64,
}

/// Why a job may be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grounds {
    /// Its own lease is over, or its owner lives no more. The store looks.
    LeaseOver,
    /// Who submitted it names its owner as lost: the gateway knows that its link is down, before
    /// the owner's lease is over.
    NamedLost,
    /// It is ours, and nobody here runs it: it was left open before we started, or taken over from
    /// somebody else without a request.
    Ours,
}

impl Grounds {
    /// Their name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeaseOver => "lease-over",
            Self::NamedLost => "named-lost",
            Self::Ours => "ours",
        }
    }
}

/// An open job is to change hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeOver {
    /// The job, and who had it when it was looked at.
    pub from: Holder,
    /// Who takes it.
    pub by: NodeId,
    /// Why that may be.
    pub grounds: Grounds,
    /// The model that it runs as from now on; nothing where it stays as it is.
    pub model: Option<ModelRef>,
    /// Unix milliseconds until which the new owner holds it, at most.
    pub lease_until_ms: u64,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// Says that one lives.
pub(super) fn renew(lease: &Lease) -> Statement {
    Statement::new(
        "INSERT INTO orchestrators (id, region, started_ms, lease_until_ms)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (id) DO UPDATE SET region = excluded.region,
            started_ms = excluded.started_ms, lease_until_ms = excluded.lease_until_ms",
        [
            lease.orchestrator.into(),
            lease.region.as_str().into(),
            lease.started_ms.into(),
            lease.until_ms.into(),
        ],
    )
}

/// Says that one lives no more.
pub(super) fn retire(orchestrator: NodeId) -> Statement {
    let sql = "DELETE FROM orchestrators WHERE id = $1";
    Statement::new(sql, [orchestrator.into()])
}

/// Those that live.
pub(super) fn live(now_ms: u64) -> Statement {
    Statement::new(
        "SELECT id, region, started_ms, lease_until_ms FROM orchestrators
         WHERE lease_until_ms >= $1 ORDER BY id",
        [now_ms.into()],
    )
}

/// What [`live`] found.
pub(super) fn read(row: Row) -> Result<Lease, StoreError> {
    let mut row = row.read("an orchestrator");
    Ok(Lease {
        orchestrator: NodeId(row.bytes()?),
        region: row.parsed()?,
        started_ms: row.u64()?,
        until_ms: row.u64()?,
    })
}

/// Forgets those that are gone for long.
pub(super) fn forget(now_ms: u64) -> Statement {
    Statement::new(
        "DELETE FROM orchestrators WHERE lease_until_ms < $1",
        [now_ms.saturating_sub(REMEMBERED_MS).into()],
    )
}
