//! Node's own `hyperdht` and our DHT are one network: each finds what the other announced. (NET-2, NET-3)
//!
//! `tests/interop/dht.mjs` drives Node's library, pinned in `tests/interop/package-lock.json`.

mod environment;
mod support;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use support::{Mesh, Process, Tether, eventually, repository, tether};
use tether_wire::grant::{Access, Mesh as MeshOf};
use tether_wire::record::Record;
use tether_wire::{Region, Topic};

/// Nodes of Node's test network: small ones are unreliable.
const TESTNET_NODES: u32 = 10;

/// Node's HyperDHT in a process of its own; it ends with its standard input.
struct Node {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Node {
    /// Starts it; nothing where Node is missing.
    fn start() -> Option<Self> {
        let folder = environment::environment("node")?;
        let mut child = Command::new("node")
            .arg(repository().join("tests/interop/dht.mjs"))
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Node runs");
        Some(Self {
            requests: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().expect("piped")),
            child,
        })
    }

    #[track_caller]
    fn ask(&mut self, request: &Value) -> Value {
        let requests = self.requests.as_mut().expect("open until dropped");
        writeln!(requests, "{request}").expect("Node reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("Node answers");
        let answer: Value = serde_json::from_str(&line).expect("a line of JSON");
        assert!(answer["error"].is_null(), "{request}: {}", answer["error"]);
        answer
    }

    /// The keys that Node's library finds under a topic's key, sorted.
    fn lookup(&mut self, bootstrap: &Value, topic: &str) -> Vec<String> {
        let answer = self.ask(&json!({"do": "lookup", "bootstrap": bootstrap, "topic": topic}));
        serde_json::from_value(answer["keys"].clone()).expect("a list of keys")
    }

    /// A node's record, read by Node's library, which checks its signature.
    fn record(&mut self, bootstrap: &Value, key: &str) -> Option<Record> {
        let answer = self.ask(&json!({"do": "record", "bootstrap": bootstrap, "key": key}));
        let bytes = hex::decode(answer["value"].as_str()?).expect("hex");
        Some(Record::decode(&bytes).expect("a record of ours"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Closing its input ends it; one that hangs is not waited for.
        drop(self.requests.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The key of a topic, from the ready line.
fn topic_key(mesh: &Mesh, name: &str) -> String {
    let topics = mesh.ready["topics"].as_array().expect("topics");
    let topic = topics.iter().find(|topic| topic["name"] == name);
    topic.unwrap_or_else(|| panic!("{name} is in the ready line"))["key"]
        .as_str()
        .expect("hex")
        .to_owned()
}

#[test]
fn node_finds_exactly_our_workers_on_our_bootstrap_nodes() {
    let Some(mut node) = Node::start() else {
        return;
    };
    let mesh = Mesh::start(&["--workers", "2"]);
    let bootstrap = mesh.ready["bootstrap"].clone();
    let mut workers: Vec<String> = mesh.workers().into_iter().map(|(id, _)| id).collect();
    workers.sort();

    let presence = topic_key(&mesh, "tether/presence/local");
    eventually("Node finds both workers and nobody else", || {
        node.lookup(&bootstrap, &presence) == workers
    });
    let model = topic_key(&mesh, "tether/models/tether-tiny/1.0/local");
    eventually("Node finds both workers on the model's topic", || {
        node.lookup(&bootstrap, &model) == workers
    });
    let control = topic_key(&mesh, "tether/control/local");
    eventually("Node finds the orchestrator on the control topic", || {
        node.lookup(&bootstrap, &control).len() == 1
    });
    assert!(!workers.contains(&node.lookup(&bootstrap, &control)[0]));

    for worker in &workers {
        let record = node
            .record(&bootstrap, worker)
            .expect("a worker has a record");
        assert!(!record.addresses.is_empty(), "it says where it is");
    }
}

/// Makes a mesh's key and a worker's key, grant and configuration, all in a folder.
fn worker_files(dir: &Path, bootstrap: &Value) -> (String, MeshOf) {
    let path = |name: &str| dir.join(name).to_str().expect("UTF-8").to_owned();
    let mesh = Tether::ok(&["mesh", "new", &path("mesh")]);
    let id = Tether::ok(&["keys", "new", &path("node.key")]);
    let (operator, grant) = (path("mesh/operator.key"), path("node.grant"));
    Tether::ok(&[
        "grant",
        "issue",
        "--operator",
        &operator,
        "--subject",
        &id,
        "--role",
        "worker",
        "--out",
        &grant,
    ]);
    let config = format!(
        "[node]\nkey = 'node.key'\ngrant = 'node.grant'\nmesh = '{mesh}'\nregion = 'local'\n\
         listen = '127.0.0.1:0'\ndht_listen = '127.0.0.1:0'\nbootstrap = {bootstrap}\n\n[worker]\n"
    );
    std::fs::write(dir.join("worker.toml"), config).expect("written");
    let mesh = MeshOf {
        id: mesh.parse().expect("a mesh id"),
        recovery: None,
        access: Access::Invite,
    };
    (id, mesh)
}

#[test]
fn our_worker_joins_a_network_of_nodes_and_is_found_there() {
    let Some(mut node) = Node::start() else {
        return;
    };
    let testnet = node.ask(&json!({"do": "testnet", "nodes": TESTNET_NODES}));
    let bootstrap = testnet["bootstrap"].clone();
    let dir = tempfile::tempdir().expect("temporary folder");
    let (id, mesh) = worker_files(dir.path(), &bootstrap);

    let mut command = Command::new(tether());
    command
        .args(["worker", "--json", "--config"])
        .arg(dir.path().join("worker.toml"));
    let worker = Process::start(command, &dir.path().join("worker.stderr"));
    assert_eq!(worker.ready["id"], id.as_str());

    let region = Region::new("local").expect("a region");
    let presence = mesh.topic_key(&Topic::Presence(region)).to_hex();
    eventually("Node finds our worker on its own network", || {
        node.lookup(&bootstrap, &presence) == [id.clone()]
    });
    let record = node.record(&bootstrap, &id).expect("its record is there");
    assert!(!record.addresses.is_empty());

    worker.stop();
    eventually("a worker that left is not found any more", || {
        node.lookup(&bootstrap, &presence).is_empty()
    });
}
