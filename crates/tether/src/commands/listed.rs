//! Entries of the register, as `tether grant ls` and `tether invite ls` show them.

use super::lifetime::left_text;
use crate::stdout;
use anyhow::Context;
use serde::Serialize;

/// An entry, and whether it was taken back.
#[derive(Serialize)]
pub(super) struct Listed<'a, E> {
    #[serde(flatten)]
    pub(super) entry: &'a E,
    pub(super) revoked: bool,
}

impl<E> Listed<'_, E> {
    /// For how long it holds yet, in a table.
    pub(super) fn left(&self, expires_ms: u64, now_ms: u64) -> String {
        if self.revoked {
            "revoked".to_owned()
        } else {
            left_text(expires_ms, now_ms)
        }
    }
}

/// Prints a JSON array.
pub(super) fn print_json<E: Serialize>(rows: &[Listed<'_, E>]) -> anyhow::Result<()> {
    let text = serde_json::to_string(rows).context("cannot encode the register")?;
    Ok(stdout::line(text)?)
}
