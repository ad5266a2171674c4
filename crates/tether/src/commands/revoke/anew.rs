//! What is signed anew when the recovery key revokes the mesh's first key.
//!
//! From then on nothing counts that the first key signed, its revocations neither: a thief's are
//! void, and the operator's own would be. [T-CTL-3] The register of the first key tells which those
//! are. No other one does: a recovery key that is kept apart has a register of its own beside it.

use super::describe;
use super::standing::{newest, standing};
use crate::authority::issuer::{Issuer, RevocationOrder};
use crate::authority::mesh_dir::OPERATOR_KEY;
use crate::authority::mesh_id;
use crate::authority::register::{self, REGISTER, RevocationEntry};
use crate::exit::Usage;
use crate::stderr;
use anyhow::{Context, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use tether_wire::control::Target;
use tether_wire::membership::MAX_REVOKED;

/// Most registers of one command.
const MAX_REGISTERS: usize = 64;

/// What is signed anew, for `--help`.
pub(super) const HELP: &str = "\
A stolen first key (the one whose public id is the mesh's) is revoked with the recovery key. From then
on nothing that it signed counts: no grant, and no revocation, so that what a thief revoked is void. The
revocations in its register are therefore signed anew and told first: of keys, and of serials that others
gave. Those of its own serials fall with it. They are shown before anything is signed: what a thief
entered there would become final. Revocations by another copy of the key are in the register beside that
copy: give each with --register, or revoke again. Grant anew whoever is to stay.";

/// Where the revocations of the first key are known from.
#[derive(Debug, Args)]
pub(crate) struct AnewArgs {
    /// Where the first key's register is not beside the recovery key: the mesh's folder, or the file
    /// grants.jsonl beside a copy of the key; may be given several times
    #[arg(long, value_name = "PATH", conflicts_with_all = ["serial", "keep_issued"])]
    register: Vec<PathBuf>,
    /// Sign nothing anew where the first key's register is lost: what that key revoked counts no more
    #[arg(long, conflicts_with_all = ["register", "serial", "keep_issued"])]
    no_register: bool,
}

/// Revocations of the first key that are signed anew.
pub(super) struct Anew {
    entries: Vec<RevocationEntry>,
    from: Vec<PathBuf>,
    /// How many more there are than a mesh keeps.
    left_out: usize,
}

impl AnewArgs {
    /// What is signed anew, where this order ends what the first key signed.
    pub(super) fn find(
        &self,
        order: &RevocationOrder,
        issuer: &Issuer,
    ) -> anyhow::Result<Option<Anew>> {
        let first = issuer.mesh().id.operator();
        let ends = order.target == Target::Key(first) && !order.keeps_issued;
        if !ends || !issuer.is_recovery() {
            if self.no_register || !self.register.is_empty() {
                return Err(Usage(
                    "--register and --no-register are for revoking the mesh's first key with the recovery key",
                )
                .into());
            }
            return Ok(None);
        }
        if self.register.len() > MAX_REGISTERS {
            return Err(Usage("give --register at most 64 times").into());
        }
        let from = self.places(issuer)?;
        let mut entries = Vec::new();
        for path in &from {
            entries.extend(read(path, issuer)?);
        }
        let (entries, left_out) = newest(standing(entries, issuer.mesh()));
        Ok(Some(Anew {
            entries,
            from,
            left_out,
        }))
    }

    /// The registers of the first key.
    fn places(&self, issuer: &Issuer) -> anyhow::Result<Vec<PathBuf>> {
        if self.no_register {
            return Ok(Vec::new());
        }
        if self.register.is_empty() {
            let own = issuer.register();
            if !own.with_file_name(OPERATOR_KEY).exists() {
                return Err(Usage(
                    "the first key is not beside the recovery key, so that what it revoked is not known here, and would count no more: \
                     give --register with its mesh folder, or with a copy of the grants.jsonl in it; where that is lost, --no-register goes on without",
                )
                .into());
            }
            return Ok(vec![own.to_owned()]);
        }
        let place = |path: &PathBuf| {
            Ok(match path.is_dir() {
                true => register::path_in(path)?,
                false => path.clone(),
            })
        };
        self.register.iter().map(place).collect()
    }
}

/// The revocations in a register of the first key. One that is not there is none that is empty: it
/// may be elsewhere.
fn read(path: &Path, issuer: &Issuer) -> anyhow::Result<Vec<RevocationEntry>> {
    let mesh = issuer.mesh().id;
    if let Some(keys) = mesh_id::beside(path)?.filter(|keys| keys.id != mesh) {
        bail!(
            "{} is of mesh {}, and the key is of mesh {mesh}",
            path.display(),
            keys.id
        );
    }
    let (register, is_cut_off) = register::read_there(path).with_context(|| {
        format!(
            "what the first key revoked is not known: give --register with the {REGISTER} beside that key, or --no-register to go on without"
        )
    })?;
    if is_cut_off {
        stderr::line(format_args!(
            "warning: the last line of {} was cut off: see whether it is a revocation, and give that again",
            path.display()
        ));
    }
    Ok(register.revocations)
}

impl Anew {
    /// What is to be signed, the oldest first.
    pub(super) fn orders(&self) -> Vec<RevocationOrder> {
        self.entries.iter().map(order).collect()
    }

    /// Says what is about to be signed anew, and what is not.
    pub(super) fn warn(&self) {
        if self.from.is_empty() {
            stderr::line(
                "warning: nothing is signed anew (--no-register): whatever the first key revoked counts no more, banned keys of an open mesh neither. Revoke again what is to stay so.",
            );
            return;
        }
        if !self.entries.is_empty() {
            stderr::line("These are signed anew with the recovery key, and told first:");
        }
        for order in self.entries.iter().map(order) {
            stderr::line(format_args!("  {}", words(&order)));
        }
        if !self.entries.is_empty() {
            stderr::line(
                "warning: look through them, since what a thief entered becomes final: to leave a line out, give --register with a copy of the file without it.",
            );
        }
        if self.left_out > 0 {
            stderr::line(format_args!(
                "warning: {} more, the oldest, are not: a mesh keeps {MAX_REVOKED} revocations of one key.",
                self.left_out
            ));
        }
    }

    /// Says what was signed anew.
    pub(super) fn report(&self) {
        let from: Vec<_> = self
            .from
            .iter()
            .map(|it| it.display().to_string())
            .collect();
        let count = match self.entries.len() {
            1 => "1 revocation".to_owned(),
            count => format!("{count} revocations"),
        };
        stderr::line(format_args!(
            "{count} of the first key signed anew{}{}",
            if from.is_empty() { "" } else { ", from " },
            from.join(", ")
        ));
        stderr::line(
            "note: its other revocations are void, a thief's among them. What was rightly revoked with another copy of the key, whose register is elsewhere, must be revoked again.",
        );
    }
}

fn order(entry: &RevocationEntry) -> RevocationOrder {
    RevocationOrder {
        target: entry.target,
        keeps_issued: entry.keeps_issued,
        reason: entry.reason.clone(),
    }
}

fn words(order: &RevocationOrder) -> String {
    match order.reason.as_str() {
        "" => describe(order),
        // As a register says it, which a thief may have written.
        reason => format!("{} ({})", describe(order), reason.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::NodeId;

    #[test]
    fn a_reason_moves_no_cursor() {
        let order = RevocationOrder {
            target: Target::Key(NodeId([9; 32])),
            keeps_issued: false,
            reason: "\u{1b}[2Jstolen".to_owned(),
        };
        let said = words(&order);
        assert!(
            said.contains("stolen") && !said.contains('\u{1b}'),
            "{said}"
        );
    }
}
