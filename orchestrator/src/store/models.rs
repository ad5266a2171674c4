//! Statements about the models that trusted workers offered.

use super::StoreError;
use super::database::{Columns, Row, Statement};
use tether_wire::{Digest, ModelRef, NodeId};

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

/// Remembers models, one artifact of each.
pub(super) fn note(models: &[KnownModel]) -> Vec<Statement> {
    let one = |known: &KnownModel| {
        let name = || known.model.name.as_str().into();
        let version = || known.model.version.as_str().into();
        let others = Statement::new(
            "DELETE FROM known_models WHERE name = $1 AND version = $2 AND digest <> $3",
            [name(), version(), known.digest.into()],
        );
        let noted = Statement::new(
            "INSERT INTO known_models
                (name, version, digest, first_seen_ms, last_offered_ms, offered_by)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (name, version, digest) DO UPDATE SET last_offered_ms =
                CASE WHEN known_models.last_offered_ms > excluded.last_offered_ms
                THEN known_models.last_offered_ms ELSE excluded.last_offered_ms END",
            [
                name(),
                version(),
                known.digest.into(),
                known.first_seen_ms.into(),
                known.last_offered_ms.into(),
                known.offered_by.into(),
            ],
        );
        [others, noted]
    };
    models.iter().flat_map(one).collect()
}

/// Forgets models.
pub(super) fn forget(models: &[ModelRef]) -> Vec<Statement> {
    let one = |model: &ModelRef| {
        Statement::new(
            "DELETE FROM known_models WHERE name = $1 AND version = $2",
            [model.name.as_str().into(), model.version.as_str().into()],
        )
    };
    models.iter().map(one).collect()
}

/// All models that are remembered, the first seen first.
pub(super) fn known() -> Statement {
    Statement::new(
        "SELECT name || '@' || version, digest, first_seen_ms, last_offered_ms, offered_by
         FROM known_models ORDER BY first_seen_ms, name, version, digest",
        [],
    )
}

/// What [`known`] found.
pub(super) fn read(row: Row) -> Result<KnownModel, StoreError> {
    let mut row = row.read("a known model");
    Ok(KnownModel {
        model: row.parsed()?,
        digest: Digest(row.bytes()?),
        first_seen_ms: row.u64()?,
        last_offered_ms: row.u64()?,
        offered_by: row.maybe(Columns::bytes)?.map(NodeId),
    })
}
