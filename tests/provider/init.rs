//! `tether worker init` without a terminal: by options, checked, and with what is left to do.

use crate::operator::{grant, pack_model, text};
use crate::support::{Process, Tether, tether as program};
use crate::{CONFIG, FAILURE, NOT_RUNNING, USAGE, tether, token};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No work: its exit code.
const NO_WORK: i32 = 5;

/// A model of a publisher, whose id is given.
fn packed(dir: &Path) -> (PathBuf, String) {
    let (model, key) = (dir.join("model"), dir.join("publisher.key"));
    let publisher = Tether::ok(&["keys", "new", text(&key)]);
    pack_model(&model, "tiny@1.0", &key);
    (model, publisher)
}

#[test]
fn a_configuration_is_made_by_options_checked_and_never_overwritten() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let (packed, publisher) = packed(dir.path());
    let publisher = publisher.as_str();
    let mesh = "11".repeat(32);
    let home = at("w");
    let base = [
        "worker",
        "init",
        "--data-dir",
        text(&home),
        "--mesh",
        &mesh,
        "--region",
        "eu",
        "--bootstrap",
        "192.0.2.10:49737",
        "--model",
        text(&packed),
    ];
    let init = |more: &[&str]| tether(&[base.as_slice(), more].concat());

    // Nobody can be asked here; trust is never guessed; a setting that cannot be is named.
    let (code, said) = init(&["--publisher", publisher]);
    assert_eq!((code, said.contains("--yes")), (USAGE, true), "{said}");
    let (code, said) = init(&["--yes"]);
    assert_eq!((code, said.contains(publisher)), (FAILURE, true), "{said}");
    let (code, said) = init(&["--yes", "--publisher", publisher, "--slots", "0"]);
    assert_eq!((code, said.contains("slots")), (CONFIG, true), "{said}");
    assert!(!home.join("worker.toml").exists(), "nothing was written");
    let (code, said) = tether(&["worker", "init", "--data-dir", text(&home), "--yes"]);
    assert_eq!(
        (code, said.contains("give a token")),
        (USAGE, true),
        "{said}"
    );

    let settings = [
        "--yes",
        "--publisher",
        publisher,
        "--slots",
        "8",
        "--price",
        "250",
        "--json",
    ];
    let (code, said) = init(&settings);
    assert_eq!(code, 0, "{said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["models"][0]["model"], "tiny@1.0");
    assert_eq!(said["models"][0]["publisher"], publisher);
    assert!(
        said["next"]
            .as_str()
            .expect("a command")
            .starts_with("tether worker ")
    );
    let written = std::fs::read_to_string(home.join("worker.toml")).expect("written");
    for setting in ["slots = 8", "price_per_1k_micro = 250", "region = \"eu\""] {
        assert!(written.contains(setting), "{setting} in {written}");
    }

    let (code, said) = init(&settings);
    assert_eq!((code, said.contains("--force")), (FAILURE, true), "{said}");
    let again = [settings.as_slice(), &["--force"]].concat();
    assert_eq!(init(&again).0, 0);
    // It does not run, and that is said.
    let (code, said) = tether(&["worker", "status", "--data-dir", text(&home)]);
    assert!(said.contains("no worker runs"), "{said}");
    assert_eq!(code, NOT_RUNNING, "{said}");
}

#[test]
fn what_is_left_to_do_is_said_and_done_the_worker_starts_and_says_that_it_serves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, mesh_dir) = (dir.path().join("w"), dir.path().join("mesh"));
    let mesh = Tether::ok(&["mesh", "new", text(&mesh_dir)]);
    let recovery = Tether::ok(&["keys", "show", text(&mesh_dir.join("recovery.key"))]);
    let base = ["worker", "init", "--data-dir", text(&home), "--yes"];
    let by = ["--mesh", &mesh, "--recovery", &recovery, "--region", "eu"];
    let to = ["--bootstrap", "127.0.0.1:9", "--json"];
    let said = Tether::ok(&[&base[..], &by, &to].concat());
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let needs = said["needs"].as_array().expect("a list");
    let id = Tether::ok(&["keys", "show", text(&home.join("node.key"))]);
    let need = |nth: usize| needs[nth].as_str().expect("words");
    assert_eq!(needs.len(), 2, "{said}");
    for words in [id.as_str(), "tether grant issue", "node.grant"] {
        assert!(need(0).contains(words), "{words} in {said}");
    }
    assert!(need(1).contains("[[worker.models]]"), "{said}");

    grant(&mesh_dir, &id, "worker", &home.join("node.grant"));
    let next = said["next"].as_str().expect("a command");
    let mut words = next.split(' ');
    assert_eq!(words.next(), Some("tether"));
    let mut command = Command::new(program());
    command.args(words).arg("--json");
    let worker = Process::start(command, &dir.path().join("log"));
    let (code, said) = tether(&["worker", "status", "--data-dir", text(&home)]);
    assert_eq!((code, said.contains("no-model")), (NO_WORK, true), "{said}");
    assert_eq!(worker.stop(), Some(0));
}

#[test]
fn a_model_that_is_not_whole_or_given_twice_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, mesh) = (dir.path().join("w"), "11".repeat(32));
    let (model, publisher) = packed(dir.path());
    let copy = dir.path().join("copy");
    crate::operator::copy_dir(&model, &copy);
    let base = ["worker", "init", "--data-dir", text(&home), "--yes"];
    let by = ["--mesh", &mesh, "--region", "eu", "--publisher", &publisher];
    let init = |bootstrap: &str, models: &[&Path]| {
        let models = models.iter().flat_map(|it| ["--model", text(it)]);
        let more = ["--bootstrap", bootstrap].into_iter().chain(models);
        let args: Vec<&str> = base.into_iter().chain(by).chain(more).collect();
        tether(&args)
    };
    let (code, said) = init("192.0.2.10:49737", &[&model, &copy]);
    assert_eq!((code, said.contains("give it once")), (FAILURE, true));
    std::fs::remove_file(copy.join("tokenizer.json")).expect("removed");
    let (code, said) = init("192.0.2.10:49737", &[&copy]);
    assert_eq!(code, FAILURE, "{said}");
    for words in ["not whole", "tokenizer.json is missing"] {
        assert!(said.contains(words), "{words} in {said}");
    }
    // What its own reader refuses is named by the file that it would have become.
    let (code, said) = init("[2001:db8::1]:49737", &[&model]);
    assert_eq!((code, said.contains("draft")), (CONFIG, false), "{said}");
    assert!(said.contains("w/worker.toml") && said.contains("bootstrap"));
    assert!(!home.join("worker.toml").exists() && !home.join("node.key").exists());
}

#[test]
fn a_token_that_is_in_no_file_is_kept_for_the_command_that_comes_next() {
    let dir = tempfile::tempdir().expect("a folder");
    let (home, token) = (dir.path().join("w"), token(&dir.path().join("mesh")));
    let base = ["worker", "init", "--data-dir", text(&home), "--yes"];
    let said = Tether::ok(&[&base[..], &["--join", &token]].concat());
    let kept = home.join("join.token");
    let next = format!("tether worker --join-file {}", text(&kept));
    assert!(said.contains(&next) && !said.contains(&token), "{said}");
    let text_kept = std::fs::read_to_string(&kept).expect("kept");
    assert_eq!(text_kept.trim(), token);
    let mode = std::fs::metadata(&kept).expect("kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // One that is in a file stays there.
    let elsewhere = dir.path().join("w2");
    let args = ["worker", "init", "--data-dir", text(&elsewhere), "--yes"];
    let said = Tether::ok(&[&args[..], &["--join-file", text(&kept)]].concat());
    assert!(said.contains(&next), "{said}");
    assert!(!elsewhere.join("join.token").exists());
}
