//! The record of models that trusted workers offered.

use super::{disk, sql_u64};
use crate::store::{KnownModel, StoreError};
use rusqlite::{Connection, params};
use tether_wire::{Digest, ModelRef, NodeId};

/// Remembers models, one artifact of each.
pub(super) fn note(conn: &Connection, models: &[KnownModel]) -> Result<(), StoreError> {
    let mut others = conn
        .prepare_cached(
            "DELETE FROM known_models WHERE name = ?1 AND version = ?2 AND digest != ?3",
        )
        .map_err(disk)?;
    let mut statement = conn
        .prepare_cached(
            "INSERT INTO known_models
                (name, version, digest, first_seen_ms, last_offered_ms, offered_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (name, version, digest) DO UPDATE SET
                last_offered_ms = max(last_offered_ms, excluded.last_offered_ms)",
        )
        .map_err(disk)?;
    for known in models {
        let (name, version) = (known.model.name.as_str(), known.model.version.as_str());
        others
            .execute(params![name, version, known.digest.0])
            .map_err(disk)?;
        statement
            .execute(params![
                name,
                version,
                known.digest.0,
                sql_u64(known.first_seen_ms),
                sql_u64(known.last_offered_ms),
                known.offered_by.map(|id| id.0),
            ])
            .map_err(disk)?;
    }
    Ok(())
}

/// Forgets models.
pub(super) fn forget(conn: &Connection, models: &[ModelRef]) -> Result<(), StoreError> {
    let mut statement = conn
        .prepare_cached("DELETE FROM known_models WHERE name = ?1 AND version = ?2")
        .map_err(disk)?;
    for model in models {
        statement
            .execute([model.name.as_str(), model.version.as_str()])
            .map_err(disk)?;
    }
    Ok(())
}

/// All models that are remembered, the first seen first.
pub(super) fn known(conn: &Connection) -> Result<Vec<KnownModel>, StoreError> {
    let mut statement = conn
        .prepare_cached(
            "SELECT name || '@' || version, digest, first_seen_ms, last_offered_ms, offered_by
             FROM known_models ORDER BY first_seen_ms, name, version, digest",
        )
        .map_err(disk)?;
    let rows = statement
        .query_map([], |row| {
            let digest = Digest(row.get(1)?);
            let first_seen_ms = row.get::<_, i64>(2)?.cast_unsigned();
            let last_offered_ms = row.get::<_, i64>(3)?.cast_unsigned();
            let offered_by = row.get::<_, Option<[u8; 32]>>(4)?.map(NodeId);
            let model = row.get::<_, String>(0)?.parse::<ModelRef>();
            Ok(model.map(|model| KnownModel {
                model,
                digest,
                first_seen_ms,
                last_offered_ms,
                offered_by,
            }))
        })
        .map_err(disk)?;
    rows.map(|row| {
        (row.map_err(disk)?).map_err(|error| StoreError::Corrupt(format!("a known model: {error}")))
    })
    .collect()
}
