//! Joining by a token, as far as it comes without a mesh that answers.

use super::NOWHERE;
use crate::operator::{CONFIG, FAILURE, NOT_READY, Operator, USAGE, fails, mode, stderr, text};
use crate::support::{self, Tether};
use std::process::{Command, Stdio};

/// Exit codes of joining.
const MALFORMED: i32 = 10;
const OVER: i32 = 11;
const OTHER_MESH: i32 = 14;

#[test]
fn each_token_that_lets_nobody_in_is_refused_for_its_own_reason() {
    let operator = Operator::new();
    let (token, _) = operator.invite(&[]);
    let home = operator.path("w");
    let join = |token: &str, code: i32, words: &[&str]| {
        fails(
            &["worker", "--join", token, "--data-dir", text(&home)],
            code,
            words,
        );
    };
    for cut in [
        &token[..token.len() - 1],
        &token[..60],
        "tether-join-1-",
        "nonsense",
    ] {
        join(cut, MALFORMED, &["token", "copied whole?"]);
    }
    join(
        &token.replace("join-1", "join-2"),
        MALFORMED,
        &["tether-join-1-"],
    );
    join(&"a".repeat(5_000), MALFORMED, &["token"]);
    assert!(!home.exists(), "nothing was made for it");
    let (over, _) = operator.invite(&["--ttl", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    join(&over, OVER, &["the invite", "expired"]);
    let shown = Tether::output(&["worker", "--join", &token[..80], "--data-dir", text(&home)]);
    assert!(
        !stderr(&shown).contains(&token[20..80]),
        "a secret is not repeated"
    );
}

#[test]
fn a_token_is_given_once_and_not_with_a_configuration() {
    let operator = Operator::new();
    let (token, _) = operator.invite(&[]);
    let file = operator.path("token");
    std::fs::write(&file, format!("{token}\n")).expect("written");
    let config = operator.worker_config("w.toml", |t| t);
    let home = operator.path("home");
    for (args, words) in [
        (&["--join", &token, "--join-file", text(&file)][..], "once"),
        (&["--join", &token, "--config", text(&config)], "--data-dir"),
        (
            &["--config", text(&config), "--data-dir", text(&home)],
            "cannot be used with",
        ),
        (&["--data-dir", text(&home), "--model", "x"], "--model"),
        (&[], "--config"),
    ] {
        fails(&[&["worker"][..], args].concat(), USAGE, &[words]);
    }
    fails(
        &[
            "worker",
            "--join-file",
            text(&operator.path("none")),
            "--data-dir",
            text(&home),
        ],
        FAILURE,
        &["cannot read the token"],
    );
    fails(
        &["worker", "--data-dir", text(&home)],
        CONFIG,
        &["worker.toml"],
    );
    assert!(!home.exists());
}

/// Runs a worker that finds no mesh, with a token, until it has made what it makes before.
fn join_nobody(home: &std::path::Path, token: &str, how: &str) {
    let mut command = Command::new(support::tether());
    command.args(["worker", "--data-dir", text(home)]);
    command.env("TETHER_NODE__LISTEN", "127.0.0.1:0");
    command.env("TETHER_NODE__DHT_LISTEN", "127.0.0.1:0");
    match how {
        "environment" => drop(command.env("TETHER_JOIN", token)),
        _ => drop(command.args(["--join-file", "-"])),
    }
    let log = home.with_extension("log");
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(std::fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("it runs");
    if how == "pipe" {
        use std::io::Write;
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(token.as_bytes()).expect("written");
    }
    support::eventually("it looks for the mesh", || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(!log.contains("error:"), "{log}");
        log.contains("joining a mesh")
    });
    child.kill().expect("killed");
    child.wait().expect("ended");
}

#[test]
fn a_worker_that_was_killed_while_it_joined_goes_on_with_the_same_key() {
    let operator = Operator::new();
    let (token, _) = operator.invite(&[]);
    let home = operator.path("home");
    join_nobody(&home, &token, "environment");
    let (key, config) = (home.join("node.key"), home.join("worker.toml"));
    assert_eq!((mode(&home), mode(&key)), (0o700, 0o600));
    let id = Tether::ok(&["keys", "show", text(&key)]);
    let written = std::fs::read_to_string(&config).expect("read");
    for words in [
        &format!("mesh = \"{}\"", operator.mesh),
        &format!("recovery = \"{}\"", operator.recovery()),
        "region = \"eu\"",
        NOWHERE,
    ] {
        assert!(written.contains(words), "{words} in {written}");
    }
    assert!(!home.join("node.grant").exists());
    assert!(
        !written.contains(&token[token.len() - 64..]),
        "no secret is kept"
    );
    join_nobody(&home, &token, "pipe");
    assert_eq!(Tether::ok(&["keys", "show", text(&key)]), id);
    // It has not joined, and cannot start as if it had.
    fails(
        &["worker", "--data-dir", text(&home)],
        CONFIG,
        &["node.grant"],
    );
    // Another mesh's token, and one of another region, are not for this folder.
    let other = Operator::new();
    let (theirs, _) = other.invite(&[]);
    let join = ["worker", "--data-dir", text(&home), "--join"];
    fails(
        &[&join[..], &[&theirs]].concat(),
        OTHER_MESH,
        &[&other.mesh, &operator.mesh, "another --data-dir"],
    );
    let us = Tether::ok(&[
        "invite",
        "new",
        "--operator",
        text(&operator.path("mesh")),
        "--region",
        "us",
        "--bootstrap",
        NOWHERE,
    ]);
    fails(
        &[&join[..], &[&us]].concat(),
        FAILURE,
        &["region us", "says eu"],
    );
    let model = ["--model", "x"];
    fails(
        &[&join[..], &[&token], &model].concat(),
        FAILURE,
        &["write models"],
    );
}

#[test]
fn who_finds_no_mesh_is_told_so_and_may_try_again() {
    let operator = Operator::new();
    let (token, _) = operator.invite(&[]);
    let home = operator.path("home");
    let output = Command::new(support::tether())
        .args(["worker", "--join", &token, "--data-dir", text(&home)])
        .env("TETHER_NODE__LISTEN", "127.0.0.1:0")
        .env("TETHER_NODE__DHT_LISTEN", "127.0.0.1:0")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(NOT_READY), "{}", stderr(&output));
    for words in ["no orchestrator of region eu", "30 s", NOWHERE, "goes on"] {
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
