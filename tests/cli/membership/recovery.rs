//! What stands when the recovery key revokes the first key of the mesh.

use super::id;
use crate::operator::{FAILURE, NOT_READY, Operator, USAGE, fails, stderr, text};
use crate::support::Tether;
use std::path::{Path, PathBuf};

/// An operator whose recovery key was moved away, and whose first key revoked some.
struct Robbed {
    operator: Operator,
    recovery: PathBuf,
}

impl Robbed {
    fn new() -> Self {
        let operator = Operator::new();
        std::fs::create_dir(operator.path("safe")).expect("made");
        let recovery = operator.path("safe/recovery.key");
        std::fs::rename(operator.path("mesh/recovery.key"), &recovery).expect("moved");
        let robbed = Self { operator, recovery };
        robbed.revoked("mesh", &[&id(7), "--reason", "banned"]);
        robbed.revoked("mesh", &["--serial", "4711", "--issuer", &id(8)]);
        robbed.revoked("mesh", &[&id(9), "--keep-issued"]);
        // Its own serial falls with it.
        robbed.revoked("mesh", &["--serial", "4712"]);
        robbed
    }

    /// By the first key in a folder, into a file that nobody brings.
    fn revoked(&self, folder: &str, what: &[&str]) {
        let count = std::fs::read_dir(self.operator.path(""))
            .expect("read")
            .count();
        let out = self.operator.path(&format!("{count}.control"));
        let key = self.operator.path(folder);
        let by = [
            "revoke",
            "--operator",
            text(&key),
            "--yes",
            "--out",
            text(&out),
        ];
        Tether::ok(&[&by[..], what].concat());
    }

    fn args<'a>(&'a self, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let by = [
            "revoke",
            &self.operator.mesh,
            "--operator",
            text(&self.recovery),
        ];
        [&by[..], &["--yes", "--out", text(out)], more].concat()
    }

    /// Revokes the first key; what was said, and the lines of the file.
    fn recover(&self, out: &str, more: &[&str]) -> (String, Vec<String>) {
        let out = self.operator.path(out);
        let output = Tether::output(&self.args(&out, more));
        assert!(output.status.success(), "{}", stderr(&output));
        let written = std::fs::read_to_string(&out).expect("written");
        (
            stderr(&output),
            written.lines().map(str::to_owned).collect(),
        )
    }
}

/// What the messages of a file say, in their order.
fn comments(lines: &[String]) -> Vec<&str> {
    let lines = lines.iter().filter_map(|line| line.strip_prefix("# "));
    lines.collect()
}

#[test]
fn what_the_first_key_revoked_is_signed_anew_before_it_is_revoked() {
    let robbed = Robbed::new();
    let mesh = robbed.operator.path("mesh");
    let (said, lines) = robbed.recover("lost.control", &["--register", text(&mesh)]);
    let expected = [
        format!("key {} is revoked, and all that rests on it", id(7)),
        format!("serial 4711 of {} is revoked", id(8)),
        format!(
            "key {} is revoked, and what it issued or was replaced by goes on",
            id(9)
        ),
        format!(
            "key {} is revoked, and all that rests on it",
            robbed.operator.mesh
        ),
    ];
    assert_eq!(lines[0], "messages 4");
    assert_eq!(comments(&lines), expected);
    for words in [
        "(banned)",
        "what a thief entered becomes final",
        "3 revocations of the first key signed anew, from ",
        "grants.jsonl",
        "its other revocations are void, a thief's among them",
        "another copy of the key",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
    let safe = std::fs::read_to_string(robbed.operator.path("safe/grants.jsonl")).expect("read");
    assert_eq!(safe.lines().count(), 4, "{safe}");
    // Whatever became of it, the same again says the same, and is entered once.
    let (_, again) = robbed.recover("again.control", &["--register", text(&mesh)]);
    assert_eq!(comments(&again), expected);
    let entered = std::fs::read_to_string(robbed.operator.path("safe/grants.jsonl"));
    assert_eq!(entered.expect("read"), safe);
    // All of them are sent, or none where the file was cut off.
    let (file, token) = (
        robbed.operator.path("lost.control"),
        robbed.operator.path("token"),
    );
    std::fs::write(&token, "x").expect("written");
    let to = [
        "--admin",
        "http://127.0.0.1:9",
        "--admin-token-file",
        text(&token),
    ];
    let send = [&["control", "send", text(&file)][..], &to].concat();
    fails(&send, NOT_READY, &["nobody took it"]);
    std::fs::write(&file, lines[..7].join("\n")).expect("cut");
    fails(&send, FAILURE, &["cut off", "3 messages of 4"]);
}

#[test]
fn a_recovery_key_beside_the_first_one_finds_its_register() {
    let robbed = Robbed::new();
    let back = robbed.operator.path("mesh/recovery.key");
    std::fs::rename(&robbed.recovery, &back).expect("moved");
    let robbed = Robbed {
        recovery: back,
        ..robbed
    };
    let (said, lines) = robbed.recover("lost.control", &[]);
    assert_eq!(lines[0], "messages 4", "{said}");
}

#[test]
fn registers_of_several_copies_of_the_key_are_taken_together() {
    let robbed = Robbed::new();
    let copy = robbed.operator.path("copy");
    std::fs::create_dir(&copy).expect("made");
    let first = robbed.operator.path("mesh/operator.key");
    std::fs::copy(first, copy.join("operator.key")).expect("copied");
    // One that both know, and which the other one meant more strictly.
    robbed.revoked("copy", &[&id(9)]);
    robbed.revoked("copy", &[&id(6)]);
    let (mesh, file) = (robbed.operator.path("mesh"), copy.join("grants.jsonl"));
    let both = ["--register", text(&mesh), "--register", text(&file)];
    let (said, lines) = robbed.recover("lost.control", &both);
    assert!(said.contains("4 revocations of the first key"), "{said}");
    let said = comments(&lines);
    let strict = format!("key {} is revoked, and all that rests on it", id(9));
    assert_eq!(said.iter().filter(|it| it.contains(&id(9))).count(), 1);
    assert!(said.contains(&strict.as_str()), "{said:?}");
    assert!(said.last().expect("some").contains(&robbed.operator.mesh));
}

#[test]
fn without_the_first_keys_register_it_goes_on_only_when_told_so() {
    let robbed = Robbed::new();
    let out = robbed.operator.path("lost.control");
    let refused = |more: &[&str], code: i32, words: &[&str]| {
        fails(&robbed.args(&out, more), code, words);
        assert!(!out.exists(), "nothing was signed");
    };
    let ways = ["would count no more", "--register", "--no-register"];
    refused(&[], USAGE, &ways);
    // A register of its own, beside the recovery key, is none of the first key.
    let elsewhere = robbed.operator.path("c");
    let by = ["revoke", &id(5), "--operator", text(&robbed.recovery)];
    Tether::ok(&[&by[..], &["--yes", "--out", text(&elsewhere)]].concat());
    assert!(robbed.operator.path("safe/grants.jsonl").exists());
    refused(&[], USAGE, &ways);
    let nowhere = robbed.operator.path("nowhere");
    refused(
        &["--register", text(&nowhere)],
        FAILURE,
        &["cannot read", "--no-register"],
    );
    let safe = robbed.operator.path("w");
    std::fs::create_dir(&safe).expect("made");
    refused(
        &["--register", text(&safe)],
        FAILURE,
        &["cannot read", "--no-register"],
    );
    std::fs::write(safe.join("grants.jsonl"), "nonsense\n").expect("written");
    refused(
        &["--register", text(&safe)],
        FAILURE,
        &["not a register of grants"],
    );
    let other = Operator::new();
    other.issue("w", "worker", &[]);
    let other_mesh = other.path("mesh");
    refused(
        &["--register", text(&other_mesh)],
        FAILURE,
        &["is of mesh", &other.mesh],
    );
    let mesh = robbed.operator.path("mesh");
    let both = ["--register", text(&mesh), "--no-register"];
    refused(&both, USAGE, &["cannot be used with"]);
    let kept = ["--register", text(&mesh), "--keep-issued"];
    refused(&kept, USAGE, &["cannot be used with"]);

    let (said, lines) = robbed.recover("lost.control", &["--no-register"]);
    assert_eq!(comments(&lines).len(), 1);
    for words in [
        "nothing is signed anew",
        "Revoke again what is to stay so",
        "0 revocations of the first key",
    ] {
        assert!(said.contains(words), "{words} in {said}");
    }
}

#[test]
fn nothing_is_signed_anew_where_the_first_key_stays_or_what_it_signed() {
    let robbed = Robbed::new();
    let (said, lines) = robbed.recover("kept.control", &["--keep-issued"]);
    assert_eq!(comments(&lines).len(), 1, "{said}");
    assert!(
        !said.contains("signed anew") && said.contains("nothing takes it back"),
        "{said}"
    );
    let (out, mesh) = (robbed.operator.path("c"), robbed.operator.path("mesh"));
    for key in [&robbed.recovery, &mesh] {
        let by = ["revoke", &id(5), "--operator", text(key), "--yes"];
        for more in [&["--no-register"][..], &["--register", text(&mesh)]] {
            let to = ["--out", text(&out)];
            let args = [&by[..], &to, more].concat();
            fails(&args, USAGE, &["revoking the mesh's first key"]);
        }
    }
    // What the first key revokes is final but for this.
    let by = ["revoke", &id(5), "--operator", text(&mesh)];
    let args = [&by[..], &["--yes", "--out", text(&out)]].concat();
    let said = stderr(&Tether::output(&args));
    assert!(
        said.contains("recovery key revokes the first key"),
        "{said}"
    );
    let help = Tether::ok(&["revoke", "--help"]);
    for words in [
        "signed anew and told first",
        "--no-register",
        "--register <PATH>",
    ] {
        assert!(help.contains(words), "{words} in {help}");
    }
}
