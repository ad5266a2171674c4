//! Landlock: the same view of files as the root of its own, kept by another part of the kernel, and
//! available where namespaces are not. Also no TCP, and no signal or abstract socket to the outside.

use super::Step;
use super::root::MODEL;
use super::view::{Entry, View};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::path::Path;

/// The newest that these rules were written for. What an older kernel lacks of it is gone without,
/// and said.
const KNOWN: ABI = ABI::V6;

/// What became of it.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) files: Step,
    pub(super) ports: Step,
    pub(super) scope: Step,
}

/// Restricts this thread and all that come from it.
pub(super) fn restrict(view: &View, has_root: bool) -> Files {
    let missing =
        |what: &str, error: &RulesetError| Step::Missing(format!("Landlock {what}: {error}"));
    // One after the other, so that each is told of by itself: rules for files have been there
    // longest.
    let files = match &view.excess {
        Some(excess) if !has_root => Step::Missing(format!("Landlock for files: {excess}")),
        _ => match restrict_files(view, has_root) {
            Ok(RulesetStatus::FullyEnforced) => {
                Step::Done("Landlock: reads what it is shown, writes nothing".to_owned())
            }
            Ok(RulesetStatus::PartiallyEnforced) => Step::Done(
                "Landlock, of an older kernel: reads what it is shown, writes nothing".to_owned(),
            ),
            Ok(RulesetStatus::NotEnforced) => Step::Missing(absent()),
            Err(error) => missing("for files", &error),
        },
    };
    let ports = match restrict_ports() {
        Ok(()) => Step::Done("Landlock: no TCP".to_owned()),
        Err(error) => missing("for TCP (Linux 6.7)", &error),
    };
    let scope = match restrict_scope() {
        Ok(()) => Step::Done("Landlock: no signal to others, no abstract socket".to_owned()),
        Err(error) => missing("for signals (Linux 6.12)", &error),
    };
    Files {
        files,
        ports,
        scope,
    }
}

fn absent() -> String {
    "Landlock: this kernel does not have it, or its `lsm=` list does not name `landlock`".to_owned()
}

fn restrict_files(view: &View, has_root: bool) -> Result<RulesetStatus, RulesetError> {
    let read = BitFlags::from(AccessFs::ReadFile);
    let list = read | AccessFs::ReadDir;
    // Libraries are mapped as code, which the kernel counts as reading; running them is another right.
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .create()?;
    if has_root {
        rules = allow(rules, Path::new(MODEL), list)?;
    } else {
        for folder in &view.folders {
            rules = rules.add_rule(PathBeneath::new(&folder.file, AccessFs::ReadDir))?;
        }
        for file in &view.files {
            rules = rules.add_rule(PathBeneath::new(&file.file, read))?;
        }
    }
    let access = |entry: &Entry| if entry.is_folder { list } else { read };
    for entry in &view.system {
        rules = allow(rules, &entry.path, access(entry))?;
    }
    for entry in view.devices.iter().chain(&view.null) {
        rules = allow(rules, &entry.path, device)?;
    }
    Ok(rules.restrict_self()?.ruleset)
}

/// What is not there needs no rule.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(file) => rules.add_rule(PathBeneath::new(file, access)),
        Err(_) => Ok(rules),
    }
}

fn restrict_ports() -> Result<(), RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::from_all(KNOWN))?
        .create()?
        .restrict_self()?;
    Ok(())
}

fn restrict_scope() -> Result<(), RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .restrict_self()?;
    Ok(())
}
