//! What some scenarios need besides the Rust toolchain: found, or the scenario is skipped with a
//! line that names what is missing. `TETHER_TEST_REQUIRE=all` turns the skip into a failure.

use crate::support::{repository, skip};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The folder that `ops/ci/environment KIND` makes; nothing, after saying so, where it cannot.
pub(crate) fn environment(kind: &str) -> Option<PathBuf> {
    make(kind).map_err(|missing| skip(&missing)).ok()
}

fn make(kind: &str) -> Result<PathBuf, String> {
    let program = match kind {
        "python" => "python3",
        _ => "npm",
    };
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    if !found.is_ok_and(|output| output.status.success()) {
        return Err(format!("{program} is missing"));
    }
    let script = repository().join("ops/ci/environment");
    let output = Command::new("bash")
        .arg(script)
        .arg(kind)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("bash is missing: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().last() {
        Some(folder) if output.status.success() => Ok(PathBuf::from(folder)),
        _ => Err(format!(
            "the {kind} packages of the tests cannot be installed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
