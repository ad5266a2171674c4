//! The register of the grants that were issued, beside the operator's key.
//!
//! A grant counts as issued when its line is whole, its end included: a last line without one was
//! cut off by a full disk or a crash, before anybody got the grant.
//!
//! Serials are drawn at random. A register counts only for the folder that it is in, and a key may
//! be copied: two registers of one mesh that counted up would give each serial twice, and a grant
//! could not be told by its serial from another.

use super::mesh_dir::OPERATOR_KEY;
use super::{AuthorityError, mesh_id};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use tether_wire::grant::{Role, Tier};
use tether_wire::{NodeId, Region};

/// File name of the register.
pub(crate) const REGISTER: &str = "grants.jsonl";

/// Highest serial: the highest integer that every reader of JSON keeps exact, and with it the
/// widest choice. Among a million grants of one mesh, two have the same by one chance in 18,000.
pub(crate) const MAX_SERIAL: u64 = (1 << 53) - 1;

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

/// A serial that no entry has.
pub(super) fn new_serial(entries: &[Entry], rng: &mut impl Rng) -> u64 {
    let taken: BTreeSet<u64> = entries.iter().map(|entry| entry.serial).collect();
    loop {
        let serial = rng.random_range(1..=MAX_SERIAL);
        if !taken.contains(&serial) {
            return serial;
        }
    }
}

/// The register of a mesh folder.
pub(crate) fn entries(dir: &Path) -> Result<Vec<Entry>, AuthorityError> {
    let path = mesh_id::place(&dir.join(OPERATOR_KEY))?.with_file_name(REGISTER);
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

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn a_serial_that_is_taken_is_drawn_again() {
        let seeded = || StdRng::seed_from_u64(7);
        let first = new_serial(&[], &mut seeded());
        let entry = Entry {
            serial: first,
            subject: NodeId([0; 32]),
            role: Role::Worker,
            region: None,
            tier: Tier::Trusted,
            not_before_ms: 0,
            expires_ms: 1,
        };
        let second = new_serial(&[entry], &mut seeded());
        assert_ne!(second, first);
        assert!((1..=MAX_SERIAL).contains(&second));
    }

    #[test]
    fn a_serial_is_exact_also_where_numbers_are_doubles() {
        let read = serde_json::from_str::<f64>(&MAX_SERIAL.to_string()).expect("a number");
        assert_eq!(format!("{read:.0}"), MAX_SERIAL.to_string());
    }
}
