//! What the operator of a mesh of several machines has at hand: a model that a publisher signed, and
//! the grants of nodes. (NET-8)
#![allow(dead_code, reason = "each scenario uses a part of it")]

use crate::support::{Tether, repository};
use std::path::Path;

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// A copy of the small model, signed with this key.
#[track_caller]
pub(crate) fn pack_model(dir: &Path, model: &str, key: &Path) {
    copy_dir(&repository().join("crates/tiny-model/model"), dir);
    let (dir, key) = (text(dir), text(key));
    Tether::ok(&["artifact", "pack", dir, "--model", model, "--key", key]);
}

/// Grants a role in region `eu` by the operator's key, or the folder that holds it; the serial.
#[track_caller]
pub(crate) fn grant(operator: &Path, subject: &str, role: &str, out: &Path) -> String {
    let by = ["grant", "issue", "--operator", text(operator)];
    let what = ["--subject", subject, "--role", role, "--region", "eu"];
    let how = ["--tier", "trusted", "--out", text(out)];
    Tether::ok(&[&by[..], &what, &how].concat())
}
