//! The schema, as the migrations that lead to it, for each kind of database side by side. A
//! migration is never changed once released.
//!
//! Tables and columns have the same names and meanings in each kind, so that the statements are the
//! same. Numbers and flags are 64-bit integers.

use super::StoreError;

/// A migration.
pub(super) struct Migration {
    /// What it brings.
    pub(super) name: &'static str,
    /// How SQLite is brought there. Foreign keys are not looked at meanwhile.
    pub(super) sqlite: &'static str,
    /// How PostgreSQL is brought there.
    pub(super) postgres: &'static str,
}

/// Migrations in order; the version is the position, from 1.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "jobs, reservations, known models",
        sqlite: include_str!("migrations/sqlite-1.sql"),
        postgres: include_str!("migrations/postgres-1.sql"),
    },
    Migration {
        name: "when models were last offered, and by whom they came",
        sqlite: include_str!("migrations/sqlite-2.sql"),
        postgres: include_str!("migrations/postgres-2.sql"),
    },
    Migration {
        name: "refused jobs; answers and dead letters, sealed; who lives",
        sqlite: include_str!("migrations/sqlite-3.sql"),
        postgres: include_str!("migrations/postgres-3.sql"),
    },
];

/// The last version that is known here.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a list in this file, not longer than it"
)]
pub(super) const fn latest() -> u32 {
    MIGRATIONS.len() as u32
}

/// Refuses what a later version of Tether made.
pub(super) fn refuse_newer(found: u32) -> Result<(), StoreError> {
    if found > latest() {
        return Err(StoreError::Newer {
            found,
            known: latest(),
        });
    }
    Ok(())
}

/// Refuses what is not of the latest schema, where nothing is to be migrated.
pub(super) fn require_latest(found: u32) -> Result<(), StoreError> {
    refuse_newer(found)?;
    let known = latest();
    if found < known {
        return Err(StoreError::Older { found, known });
    }
    Ok(())
}

/// The migrations behind a version, each with its own, in order.
pub(super) fn behind(version: u32) -> impl Iterator<Item = (u32, &'static Migration)> {
    (1..).zip(MIGRATIONS).skip(version as usize)
}
