//! `tether worker doctor`: what this machine can keep an engine from. (WRK-3)

use crate::config;
use crate::stdout;
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use tether_worker::EngineCommand;
use tether_worker::sandbox::doctor::{Findings, examine};
use tether_worker::sandbox::{Protection, SandboxConfig, Shield, lacking};

/// Something that is demanded does not hold.
const UNPROTECTED: u8 = 20;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether worker doctor
  tether worker doctor --config worker.toml
  tether worker doctor --json
  tether worker doctor --markdown > escapes.md

It starts engines' processes that are confined as those of models are, has each of them try to escape
in one way, and says what stopped it. Run it as the user who runs the worker.

Exit codes: 0 if every protection of worker.sandbox.require holds (without --config: every one that
there is) and every attempt against them was stopped, 20 if not.")]
pub(crate) struct DoctorArgs {
    /// The worker's configuration: what it demands is what has to hold
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print the attempts as a table for a document
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

impl DoctorArgs {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let sandbox = match &self.config {
            Some(file) => config::joining_worker(file)?.worker.sandbox,
            None => SandboxConfig {
                require: Protection::ALL.to_vec(),
                ..SandboxConfig::default()
            },
        };
        let command = EngineCommand {
            program: std::env::current_exe().context("cannot find this program's own file")?,
            args: vec!["engine".into()],
        };
        let dir = tempfile::tempdir().context("cannot make a folder for the attempts")?;
        let findings = super::runtime()?.block_on(examine(&command, &sandbox, dir.path()))?;
        let unmet = unmet(&sandbox, &findings);
        if self.json {
            let report = json!({
                "holds": unmet.is_empty(),
                "require": sandbox.require,
                "unmet": unmet,
                "findings": findings,
                "advice": advice(&findings.shields),
            });
            stdout::line(report)?;
        } else if self.markdown {
            stdout::write(table(&findings))?;
        } else {
            stdout::write(report(&sandbox, &findings, &unmet))?;
        }
        Ok(if unmet.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(UNPROTECTED)
        })
    }
}

/// What is demanded and does not hold.
fn unmet(sandbox: &SandboxConfig, findings: &Findings) -> Vec<String> {
    let mut unmet: Vec<String> = lacking(&sandbox.require, &findings.shields)
        .into_iter()
        .collect();
    let escaped = findings.attempts.iter().filter(|tried| {
        // Whatever else holds it.
        !tried.stopped && sandbox.require.contains(&tried.protection)
    });
    unmet.extend(escaped.map(|tried| format!("an engine can {}: {}", tried.what, tried.answer)));
    unmet
}

fn report(sandbox: &SandboxConfig, findings: &Findings, unmet: &[String]) -> String {
    let mut text = String::from("What an engine's process is kept from on this machine:\n");
    for shield in &findings.shields {
        let state = if shield.enforced {
            "enforced"
        } else {
            "NOT ENFORCED"
        };
        let demanded = if sandbox.require.contains(&shield.protection) {
            ""
        } else {
            " (not demanded)"
        };
        text += &format!("\n  {:<11}{state}{demanded}\n", shield.protection.as_str());
        for by in &shield.by {
            text += &format!("    + {by}\n");
        }
        for missing in &shield.missing {
            text += &format!("    - {missing}\n");
        }
    }
    text += "\nAttempts to escape, and what stopped them:\n\n";
    for tried in &findings.attempts {
        let state = if tried.stopped { "stopped" } else { "WORKED" };
        text += &format!(
            "  {:<16}{state:<9}{}: {}\n",
            tried.attempt, tried.by, tried.answer
        );
    }
    text += &format!(
        "\nConfining a process takes {:.1} ms of the {:.1} ms until it is ready to load.\n",
        findings.confine_ms, findings.start_ms
    );
    for line in advice(&findings.shields) {
        text += &format!("\nAdvice: {line}\n");
    }
    for line in unmet {
        text += &format!("\nNot met: {line}\n");
    }
    if unmet.is_empty() {
        text += "\nEverything that is demanded holds.\n";
    }
    text
}

fn table(findings: &Findings) -> String {
    let mut text = String::from("| attempt | stopped by | what it met |\n|---|---|---|\n");
    for tried in &findings.attempts {
        let by = if tried.stopped {
            &tried.by
        } else {
            "**nothing**"
        };
        text += &format!("| {} | {by} | {} |\n", tried.what, tried.answer);
    }
    text
}

/// How to get what is missing.
fn advice(shields: &[Shield]) -> Vec<String> {
    let missing = |word: &str| {
        let mut all = shields.iter().flat_map(|shield| &shield.missing);
        all.any(|why| why.contains(word))
    };
    let mut advice = Vec::new();
    if missing("only Linux has it") {
        advice.push("run workers whose models are not wholly trusted on Linux".to_owned());
        return advice;
    }
    if missing("namespace: ") || missing("namespaces: ") || missing("a root of its own: ") {
        advice.push(
            "let users make namespaces: `sysctl kernel.unprivileged_userns_clone=1` (Debian), `sysctl kernel.apparmor_restrict_unprivileged_userns=0` or an AppArmor profile for tether (Ubuntu), `sysctl user.max_user_namespaces=15000`; in a container, a seccomp profile that allows unshare and mount".to_owned(),
        );
    }
    if missing("Landlock") {
        advice.push(
            "switch Landlock on: a kernel from 5.13 with CONFIG_SECURITY_LANDLOCK, and `landlock` in the `lsm=` list of its command line (see /sys/kernel/security/lsm); 6.7 adds TCP, 6.12 signals".to_owned(),
        );
    }
    if missing("system call filter") {
        advice.push("use a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or aarch64".to_owned());
    }
    if missing("control group") {
        advice.push(
            "let the worker divide its control group, so that the kernel counts all memory of an engine: `Delegate=yes` in its systemd unit, on a machine with cgroup v2".to_owned(),
        );
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_that_may_be_missing_has_advice() {
        let shield = |why: &str| Shield::none(Protection::Files, why);
        for (why, word) in [
            ("namespaces: user namespace: EPERM", "unprivileged_userns"),
            ("Landlock: this kernel does not have it", "lsm="),
            ("system call filter: EINVAL", "CONFIG_SECCOMP_FILTER"),
            ("control group: none", "Delegate=yes"),
            ("only Linux has it", "Linux"),
        ] {
            let advice = advice(&[shield(why)]).join("\n");
            assert!(advice.contains(word), "{why}: {advice}");
        }
        assert!(advice(&[]).is_empty());
    }
}
