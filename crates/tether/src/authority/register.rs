//! The register of what was issued and revoked, beside the operator's key: one line of JSON each.
//!
//! A grant or an invite counts as issued when its line is whole, its end included: a last line
//! without one was cut off by a full disk or a crash, before anybody got it.
//!
//! Serials are drawn at random. A register counts only for the folder that it is in, and a key may
//! be copied: two registers of one mesh that counted up would give each serial twice, and a grant
//! could not be told by its serial from another.

use super::mesh_dir::OPERATOR_KEY;
use super::{AuthorityError, mesh_id};
use crate::stderr;
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use tether_wire::control::Target;
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
    /// Whose key signed it; registers of before do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<NodeId>,
    pub(crate) subject: NodeId,
    pub(crate) role: Role,
    pub(crate) region: Option<Region>,
    pub(crate) tier: Tier,
    pub(crate) not_before_ms: u64,
    pub(crate) expires_ms: u64,
}

/// One invite in the register; never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InviteEntry {
    pub(crate) serial: u64,
    pub(crate) issuer: NodeId,
    pub(crate) region: Region,
    pub(crate) tier: Tier,
    pub(crate) uses: u32,
    pub(crate) not_before_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) grant_life_ms: u64,
}

/// One revocation that somebody took, or that was written to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RevocationEntry {
    pub(crate) target: Target,
    pub(crate) keeps_issued: bool,
    pub(crate) reason: String,
    pub(crate) issued_ms: u64,
}

impl RevocationEntry {
    /// What it takes back, for sorting: a serial of its issuer, or a key.
    pub(crate) fn number(&self) -> (NodeId, Option<u64>) {
        match self.target {
            Target::Key(key) => (key, None),
            Target::Serial { issuer, serial } => (issuer, Some(serial)),
        }
    }
}

/// A line. That of a grant is known by having no kind.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Tagged {
    Invite(InviteEntry),
    Revocation(RevocationEntry),
}

/// What is entered.
#[derive(Debug)]
pub(crate) enum Line {
    Grant(Entry),
    Invite(InviteEntry),
    Revocation(RevocationEntry),
}

/// What a register holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Register {
    pub(crate) grants: Vec<Entry>,
    pub(crate) invites: Vec<InviteEntry>,
    pub(crate) revocations: Vec<RevocationEntry>,
}

impl Register {
    /// Who gave a serial, as far as the register says.
    pub(crate) fn issuer_of(&self, serial: u64) -> Option<NodeId> {
        let grant = self.grants.iter().find(|entry| entry.serial == serial);
        let invite = self.invites.iter().find(|entry| entry.serial == serial);
        (grant.and_then(|entry| entry.issuer)).or(invite.map(|entry| entry.issuer))
    }

    /// Whether a grant was taken back, or the key that has it.
    pub(crate) fn is_revoked(&self, entry: &Entry) -> bool {
        self.revocations
            .iter()
            .any(|revocation| match revocation.target {
                Target::Key(key) => {
                    key == entry.subject || (entry.issuer == Some(key) && !revocation.keeps_issued)
                }
                Target::Serial { issuer, serial } => {
                    serial == entry.serial && entry.issuer.is_none_or(|own| own == issuer)
                }
            })
    }

    /// Whether an invite was taken back, or the key that signed it.
    pub(crate) fn is_invite_revoked(&self, entry: &InviteEntry) -> bool {
        self.revocations
            .iter()
            .any(|revocation| match revocation.target {
                Target::Key(key) => key == entry.issuer && !revocation.keeps_issued,
                Target::Serial { issuer, serial } => {
                    (serial, issuer) == (entry.serial, entry.issuer)
                }
            })
    }

    fn new_serial(&self, rng: &mut impl Rng) -> u64 {
        let grants = self.grants.iter().map(|entry| entry.serial);
        let taken: BTreeSet<u64> = grants
            .chain(self.invites.iter().map(|entry| entry.serial))
            .collect();
        loop {
            let serial = rng.random_range(1..=MAX_SERIAL);
            if !taken.contains(&serial) {
                return serial;
            }
        }
    }

    fn add(&mut self, line: &[u8]) -> serde_json::Result<()> {
        let value: serde_json::Value = serde_json::from_slice(line)?;
        if value.get("kind").is_none() {
            self.grants.push(serde_json::from_value(value)?);
            return Ok(());
        }
        match serde_json::from_value(value)? {
            Tagged::Invite(entry) => self.invites.push(entry),
            Tagged::Revocation(entry) => self.revocations.push(entry),
        }
        Ok(())
    }
}

/// The grants of a mesh folder.
#[cfg(test)]
pub(crate) fn entries(dir: &Path) -> Result<Vec<Entry>, AuthorityError> {
    Ok(read(dir)?.grants)
}

/// Where the register of a mesh folder is.
pub(crate) fn path_in(dir: &Path) -> Result<PathBuf, AuthorityError> {
    Ok(mesh_id::place(&dir.join(OPERATOR_KEY))?.with_file_name(REGISTER))
}

/// The register of a mesh folder.
pub(crate) fn read(dir: &Path) -> Result<Register, AuthorityError> {
    let path = path_in(dir)?;
    if dir.join(OPERATOR_KEY).exists() {
        return read_file(&path);
    }
    Ok(read_there(&path)?.0)
}

/// A register that must be there, and whether its last line was cut off.
pub(crate) fn read_there(path: &Path) -> Result<(Register, bool), AuthorityError> {
    let fail = |error| AuthorityError::io("cannot read the register of grants", path)(error);
    let file = File::open(path).map_err(fail)?;
    let (register, whole_bytes) = read_lines(&file, path)?;
    let bytes = file.metadata().map_err(fail)?.len();
    Ok((register, bytes > whole_bytes))
}

/// A register of its own path; one where nothing was issued yet is not there.
pub(super) fn read_file(path: &Path) -> Result<Register, AuthorityError> {
    match File::open(path) {
        Ok(file) => Ok(read_lines(&file, path)?.0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Register::default()),
        Err(error) => Err(AuthorityError::io(
            "cannot read the register of grants",
            path,
        )(error)),
    }
}

/// Enters what is made under a new serial; the register is locked meanwhile. Nothing is entered
/// where making it fails.
pub(super) fn enter<T>(
    path: &Path,
    make: impl FnOnce(u64, &Register) -> Result<(Line, T), AuthorityError>,
) -> Result<T, AuthorityError> {
    append(path, |register| {
        let serial = register.new_serial(&mut rand::rng());
        let (line, made) = make(serial, register)?;
        Ok((vec![line], made))
    })
}

/// Enters revocations, each that is not there yet.
pub(super) fn note(path: &Path, entries: &[RevocationEntry]) -> Result<(), AuthorityError> {
    let said = |it: &RevocationEntry| (it.number(), it.keeps_issued);
    let new = |register: &Register| -> Vec<Line> {
        let mut known: BTreeSet<_> = register.revocations.iter().map(said).collect();
        (entries.iter())
            .filter(|entry| known.insert(said(entry)))
            .map(|entry| Line::Revocation(entry.clone()))
            .collect()
    };
    // A register that can only be read stops nobody from saying the same again.
    if new(&read_file(path)?).is_empty() {
        return Ok(());
    }
    append(path, |register| Ok((new(register), ())))
}

/// Adds lines, all or none where no crash comes between; the register is locked meanwhile.
fn append<T>(
    path: &Path,
    make: impl FnOnce(&Register) -> Result<(Vec<Line>, T), AuthorityError>,
) -> Result<T, AuthorityError> {
    let fail = |doing| AuthorityError::io(doing, path);
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(fail("cannot open the register of grants"))?;
    file.lock()
        .map_err(fail("cannot lock the register of grants"))?;
    let (register, whole_bytes) = read_lines(&file, path)?;
    // Under the lock, so that what is cut off is no other process's line being written.
    let bytes = file
        .metadata()
        .map_err(fail("cannot read the register of grants"))?
        .len();
    if bytes > whole_bytes {
        stderr::line(format_args!(
            "warning: the last line of {} was cut off and is removed: that grant was never given",
            path.display()
        ));
        file.set_len(whole_bytes)
            .map_err(fail("cannot mend the register of grants"))?;
    }
    let (lines, made) = make(&register)?;
    let mut text = Vec::new();
    for line in lines {
        let line = match line {
            Line::Grant(entry) => serde_json::to_vec(&entry),
            Line::Invite(entry) => serde_json::to_vec(&Tagged::Invite(entry)),
            Line::Revocation(entry) => serde_json::to_vec(&Tagged::Revocation(entry)),
        };
        text.extend(line.map_err(|error| AuthorityError::Issue(error.to_string()))?);
        text.push(b'\n');
    }
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(fail("cannot write the register of grants"))?;
    Ok(made)
}

/// What is entered, and the length of its lines: what follows is a line that was cut off.
fn read_lines(file: &File, path: &Path) -> Result<(Register, u64), AuthorityError> {
    let mut reader = BufReader::new(file);
    let (mut register, mut whole_bytes, mut number) = (Register::default(), 0, 0);
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
            return Ok((register, whole_bytes));
        }
        number += 1;
        register
            .add(&line)
            .map_err(|error| AuthorityError::Malformed {
                path: path.to_owned(),
                what: "a register of grants",
                why: format!("line {number}: {error}"),
            })?;
        whole_bytes += read as u64;
    }
}

#[cfg(test)]
mod tests;
