//! Nobody reads standard error any more: what runs runs on.

use crate::operator::{FAILURE, text};
use crate::support::{self, START_PATIENCE, eventually, is_alive, signal};
use serde_json::Value;
use std::io::{BufRead, BufReader, PipeReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// A child that does not outlive its test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command whose standard error is a pipe, and the end from which it is read.
fn command(args: &[&str]) -> (Command, PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut command = Command::new(support::tether());
    command.args(args).stdin(Stdio::null()).stderr(writer);
    (command, reader)
}

/// Starts `tether up` and waits for its ready line.
#[track_caller]
fn ready(mut command: Command) -> (Guarded, Value) {
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = Guarded(child.expect("the binary starts"));
    let mut stdout = BufReader::new(child.0.stdout.take().expect("piped"));
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let _ = stdout.read_line(&mut line);
        let _ = sender.send(line);
    });
    let line = lines.recv_timeout(START_PATIENCE);
    let line = line.expect("it is ready or ends");
    let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("ended: {line:?}"));
    (child, ready)
}

/// SIGTERM, and what a drain leaves behind.
#[track_caller]
fn drains((mut child, ready): (Guarded, Value), data: &Path) {
    let worker = u32::try_from(ready["workers"][0]["pid"].as_u64().expect("a pid")).expect("a pid");
    let log = ready["workers"][0]["log"]
        .as_str()
        .expect("a log")
        .to_owned();
    assert!(is_alive(worker));
    signal(child.0.id(), "TERM");
    let mut status = None;
    eventually("it ends", || {
        status = child.0.try_wait().expect("a child");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0));
    assert!(
        !data.join("run.json").exists(),
        "it says no more that it runs"
    );
    assert!(!is_alive(worker));
    let said = std::fs::read_to_string(log).expect("the worker's log");
    assert!(said.contains("draining"), "asked, and not killed: {said}");
}

#[test]
fn a_mesh_starts_and_drains_where_nobody_reads_what_it_says_on_the_way() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let up = |more: &[&'static str]| {
        let args = ["up", "--json", "--gateway", "127.0.0.1:0", "--data-dir"];
        command(&[&args[..], &[text(dir.path())], more].concat())
    };
    // `tether up … 2>&1 >ready | head -1`; its log lines find nobody either.
    let (from_the_start, reader) = up(&["-v"]);
    drop(reader);
    drains(ready(from_the_start), dir.path());
    // Whoever started it was gone once it was ready.
    let (later, reader) = up(&[]);
    let running = ready(later);
    drop(reader);
    drains(running, dir.path());
}

#[test]
fn a_command_that_fails_unheard_still_says_so_by_its_exit_code() {
    let (mut command, reader) = command(&["keys", "show", "/nonexistent"]);
    drop(reader);
    let status = command.status().expect("the binary runs");
    assert_eq!(status.code(), Some(FAILURE));
}
