//! The register of the grants that were issued, beside the operator's key.
//!
//! A grant counts as issued when its line is whole, its end included: a last line without one was
//! cut off by a full disk or a crash, before anybody got the grant.

use super::AuthorityError;
use super::mesh_dir::OPERATOR_KEY;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use tether_wire::grant::{Role, Tier};
use tether_wire::{NodeId, Region};

/// File name of the register.
pub(crate) const REGISTER: &str = "grants.jsonl";

/// One grant in the register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) serial: u64,
    pub(crate) subject: NodeId,
    pub(crate) role: Role,
    pub(crate) region: Option<Region>,
    pub(crate) tier: Tier,
    pub(crate) not_before_ms: u64,
    pub(crate) expires_ms: u64,
}

/// The register of a mesh folder.
pub(crate) fn entries(dir: &Path) -> Result<Vec<Entry>, AuthorityError> {
    let path = dir.join(REGISTER);
    match File::open(&path) {
        Ok(file) => Ok(read_entries(&file, &path)?.0),
        // A mesh that has issued nothing yet has no register.
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && dir.join(OPERATOR_KEY).exists() =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(AuthorityError::io(
            "cannot read the register of grants",
            path,
        )(error)),
    }
}

/// The entries, and the length of their lines: what follows is a line that was cut off.
pub(super) fn read_entries(file: &File, path: &Path) -> Result<(Vec<Entry>, u64), AuthorityError> {
    let mut reader = BufReader::new(file);
    let (mut entries, mut whole_bytes) = (Vec::new(), 0);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader
            .read_until(b'\n', &mut line)
            .map_err(AuthorityError::io(
                "cannot read the register of grants",
                path,
            ))?;
        if line.last() != Some(&b'\n') {
            return Ok((entries, whole_bytes));
        }
        entries.push(
            serde_json::from_slice(&line).map_err(|error| AuthorityError::Malformed {
                path: path.to_owned(),
                what: "a register of grants",
                why: format!("line {}: {error}", entries.len() + 1),
            })?,
        );
        whole_bytes += read as u64;
    }
}
