//! `tether fleet` and `tether topics`, of an orchestrator that runs.

use crate::operator::{FAILURE, NOT_READY, Operator, USAGE, fails, stderr, text};
use crate::support::{self, Process, Tether, eventually};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// An orchestrator and what it needs.
struct Scene {
    operator: Operator,
    _bootstrap: Process,
    orchestrator: Option<Process>,
    admin: String,
}

impl Scene {
    fn new() -> Self {
        let operator = Operator::new();
        let mut command = Command::new(support::tether());
        command.args(["bootstrap", "--json"]);
        command.args(["--listen", "127.0.0.1:0"].repeat(3));
        let bootstrap = Process::start(command, &operator.path("bootstrap.log"));
        assert!(operator.issue("o", "orchestrator", &[]).status.success());
        let config = format!(
            "[node]\nkey = \"o\"\ngrant = \"o.grant\"\nmesh = \"{}\"\nregion = \"eu\"\n\
             data_dir = \"data\"\nlisten = \"127.0.0.1:0\"\ndht_listen = \"127.0.0.1:0\"\n\
             bootstrap = {}\n",
            operator.mesh, bootstrap.ready["bootstrap"]
        );
        let written = std::fs::write(operator.path("o.toml"), config)
            .and_then(|()| std::fs::write(operator.path("tenants.toml"), ""));
        written.expect("written");
        // A port that was free a moment ago: the orchestrator comes back where it was.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let mut scene = Self {
            operator,
            _bootstrap: bootstrap,
            orchestrator: None,
            admin: free.expect("a port").to_string(),
        };
        scene.start();
        scene
    }

    fn start(&mut self) {
        let mut command = Command::new(support::tether());
        let config = self.operator.path("o.toml");
        command.args(["orchestrator", "--json", "--config", text(&config)]);
        command.args(["--admin", &self.admin]);
        let log = self.operator.path("orchestrator.log");
        self.orchestrator = Some(Process::start(command, &log));
    }

    fn stop(&mut self) {
        let process = self.orchestrator.take().expect("it runs");
        assert_eq!(process.stop(), Some(0));
    }

    /// A command line with where the orchestrator is.
    fn line(&self, command: &[&str]) -> Vec<String> {
        let token = self.operator.path("data/admin.token");
        let admin = format!("http://{}", self.admin);
        let place = ["--admin", &admin, "--token-file", text(&token)];
        let all = command.iter().chain(&place);
        all.map(|it| (*it).to_owned()).collect()
    }

    fn ok(&self, command: &[&str]) -> String {
        let line = self.line(command);
        Tether::ok(&line.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn fails(&self, command: &[&str], code: i32, words: &[&str]) {
        let line = self.line(command);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        fails(&line, code, words);
    }
}

/// A command that goes on, and its lines.
fn watch(line: &[String], log: &Path) -> (Child, Receiver<String>) {
    let mut child = Command::new(support::tether())
        .args(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(log).expect("a log"))
        .spawn()
        .expect("it starts");
    let stdout = child.stdout.take().expect("piped");
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (child, lines)
}

#[test]
fn what_cannot_be_asked_of_a_fleet_is_refused_before_anybody_is_asked() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let nothing = text(dir.path());
    let all = ["starting", "suspect", "unroutable"];
    fails(&["fleet", "--state", "asleep"], USAGE, &all);
    fails(&["fleet", "--region", "No Region"], USAGE, &["--region"]);
    fails(&["fleet", "--model", "tiny@one"], USAGE, &["--model"]);
    fails(&["fleet", "--limit", "0"], USAGE, &["--limit"]);
    fails(&["fleet", "explain"], USAGE, &["<WORKER>"]);
    fails(&["fleet", "explain", "me"], USAGE, &["64 hex digits"]);
    let up = "start it with `tether up`";
    fails(&["fleet", "--data-dir", nothing], NOT_READY, &[up]);
    fails(
        &["fleet", "--watch", "--data-dir", nothing],
        NOT_READY,
        &[up],
    );
    fails(
        &["fleet", "explain", "aa", "--data-dir", nothing],
        NOT_READY,
        &[up],
    );
    fails(&["topics", "--data-dir", nothing], NOT_READY, &[up]);
    for command in [
        &["fleet", "--help"][..],
        &["fleet", "explain", "--help"],
        &["topics", "--help"],
    ] {
        assert!(Tether::ok(command).contains("Examples:"), "{command:?}");
    }
}

#[test]
fn an_orchestrator_tells_of_its_fleet_its_topics_and_itself() {
    let scene = Scene::new();
    assert_eq!(scene.ok(&["fleet"]), "no workers");
    assert_eq!(scene.ok(&["fleet", "--json"]), "[]");
    assert_eq!(scene.ok(&["dlq", "ls"]), "there are no dead letters");
    assert_eq!(scene.ok(&["dlq", "ls", "--json"]), "[]");
    let none = "00000000000000000000000000000000";
    let unknown = "no such dead letter";
    scene.fails(&["dlq", "show", none], FAILURE, &[unknown]);
    scene.fails(&["dlq", "drop", none], FAILURE, &[unknown]);
    scene.fails(&["dlq", "replay", none], FAILURE, &["1 of 1"]);
    assert_eq!(
        scene.ok(&["fleet", "--state", "suspect", "--region", "us"]),
        "0 of 0 workers"
    );
    let nobody = ["fleet", "explain", "00000000000000000000"];
    scene.fails(
        &nobody,
        FAILURE,
        &["nothing is heard of a node 0000", "`tether fleet` lists"],
    );
    let topics = scene.ok(&["topics"]);
    let id = scene.orchestrator.as_ref().expect("it runs").ready["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for part in [
        &format!("orchestrator {id}"),
        "tether/control/eu",
        "announced",
        "again in",
        "no other orchestrators are known",
    ] {
        assert!(topics.contains(part), "{part} in\n{topics}");
    }
    let topics: Value =
        serde_json::from_str(&scene.ok(&["topics", "--lookup", "--json"])).expect("JSON");
    assert_eq!(topics["mesh"], scene.operator.mesh);
    let names = topics["topics"].as_array().expect("topics").iter();
    let names: Vec<&str> = names.filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["tether/control/eu", "tether/presence/eu"]);
    // It beats itself, so that it can be explained as any node.
    eventually("it hears itself", || {
        let line = scene.line(&["fleet", "explain", &id[..10]]);
        let output = Tether::output(&line.iter().map(String::as_str).collect::<Vec<_>>());
        String::from_utf8_lossy(&output.stdout).starts_with(&format!("orchestrator {id}"))
    });
    let other = scene.operator.path("other.token");
    std::fs::write(&other, "0".repeat(64)).expect("written");
    let admin = format!("http://{}", scene.admin);
    let line = ["fleet", "--admin", &admin, "--token-file", text(&other)];
    fails(&line, FAILURE, &["belongs to another orchestrator"]);
}

#[test]
fn a_watch_outlives_its_orchestrator_and_ends_well_when_it_is_interrupted() {
    let mut scene = Scene::new();
    let line = scene.line(&["fleet", "--watch", "--json"]);
    let log = scene.operator.path("watch.log");
    let (mut child, lines) = watch(&line, &log);
    let said = || std::fs::read_to_string(&log).expect("a log");
    let next = || lines.recv_timeout(support::PATIENCE).expect("another line");
    assert_eq!(
        (next(), next()),
        ("[]".to_owned(), "[]".to_owned()),
        "one document on each line"
    );
    scene.stop();
    eventually("that it is gone is said", || {
        said().contains("no answer, tried again every 2 s")
    });
    scene.start();
    eventually("that it is back is said", || {
        said().contains("the orchestrator answers again")
    });
    while lines.try_recv().is_ok() {}
    assert_eq!(next(), "[]");
    assert_eq!(
        said().matches("no answer").count(),
        1,
        "once, not every 2 s"
    );
    support::signal(child.id(), "INT");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", said());
    scene.stop();
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let output = Tether::output(&line);
    assert_eq!(output.status.code(), Some(NOT_READY), "{}", stderr(&output));
}
