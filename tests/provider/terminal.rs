//! `tether worker init` on a terminal, which `script` of util-linux makes.

use crate::operator::text;
use crate::{support, token};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// A hang guard.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_token_is_not_shown_while_it_is_typed_and_an_answer_that_cannot_be_is_asked_for_again() {
    if Command::new("script").arg("--version").output().is_err() {
        return support::skip("`script`, of util-linux");
    }
    let dir = tempfile::tempdir().expect("a folder");
    let (home, token) = (dir.path().join("w"), token(&dir.path().join("mesh")));
    let command = format!(
        "'{}' worker init --data-dir '{}'",
        text(support::tether()),
        text(&home)
    );
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut keys = script.stdin.take().expect("piped");
    let mut screen = script.stdout.take().expect("piped");
    let (sender, shown) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4_096];
        while let Ok(count @ 1..) = screen.read(&mut bytes) {
            let _ = sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
        }
    });
    let (mut seen, mut all) = (String::new(), String::new());
    let answers = [
        ("Token of the invite", token.as_str()),
        ("Folder of a packed model", ""),
        ("Requests that run at once", "0"),
        ("worker.slots must be", ""),
        ("Memory for loaded models", ""),
        ("Class of the accelerator", ""),
        ("Accelerators", ""),
        ("Price in micro-credits", ""),
        ("Next:", ""),
    ];
    for (question, answer) in answers {
        while !seen.contains(question) {
            let more = shown.recv_timeout(PATIENCE);
            let more = more.unwrap_or_else(|_| panic!("no {question} in {seen}"));
            seen += &more;
            all += &more;
        }
        // The next question is after this one.
        seen.drain(..seen.find(question).map_or(0, |at| at + question.len()));
        let _ = writeln!(keys, "{answer}");
    }
    assert!(script.wait().expect("it ends").success());
    assert!(!all.contains(&token[..40]), "a secret is not shown: {all}");
    let kept = std::fs::read_to_string(home.join("join.token")).expect("kept");
    assert_eq!(kept.trim(), token);
    let written = std::fs::read_to_string(home.join("worker.toml")).expect("written");
    assert!(written.contains("slots = 4"), "{written}");
}
