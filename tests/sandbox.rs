//! What a provider is told of the sandbox on his machine, as root and as somebody else. (WRK-3)

#[path = "support/mod.rs"]
mod support;

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use support::{not_run, skip, tether};

/// A user without any privilege.
const NOBODY: &str = "65534";

fn report(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// Nothing that holds was passed, and what does not hold is told by name.
fn check(output: &Output) {
    let report = report(output);
    let attempts = report["findings"]["attempts"].as_array().expect("attempts");
    assert!(attempts.len() > 25);
    for shield in report["findings"]["shields"].as_array().expect("shields") {
        if shield["enforced"] != true {
            not_run(&format!(
                "{} against {}",
                shield["missing"], shield["protection"]
            ));
            continue;
        }
        let those = attempts
            .iter()
            .filter(|tried| tried["protection"] == shield["protection"]);
        for tried in those {
            assert_eq!(tried["stopped"], true, "{tried}");
        }
    }
    let code = if report["holds"] == true { 0 } else { 20 };
    assert_eq!(output.status.code(), Some(code));
}

#[test]
fn every_attempt_to_escape_is_stopped_by_what_the_machine_has() {
    let output = Command::new(tether())
        .args(["worker", "doctor", "--json"])
        .output();
    check(&output.expect("it runs"));
}

#[test]
fn a_user_without_privileges_is_protected_as_well() {
    let setpriv = Path::new("/usr/bin/setpriv");
    if !rustix::process::geteuid().is_root() {
        return not_run("only root can become somebody else; the other scenario is run as a user");
    }
    if !setpriv.exists() {
        return skip("setpriv is missing: it is part of util-linux");
    }
    // Where everybody may read it and run it.
    let dir = tempfile::tempdir().expect("a folder");
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).expect("opened");
    let binary = dir.path().join("tether");
    std::fs::copy(tether(), &binary).expect("copied");
    let output = Command::new(setpriv)
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
        .arg(&binary)
        .args(["worker", "doctor", "--json"])
        .env("TMPDIR", dir.path())
        .current_dir(dir.path())
        .output();
    check(&output.expect("it runs"));
}
