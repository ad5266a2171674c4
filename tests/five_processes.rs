//! A mesh of five processes from the files in `ops/examples/`, as on several machines: each in a
//! folder of its own with its own key and grant, and nothing shared.

mod environment;
#[path = "support/operator.rs"]
mod operator;
#[path = "support/sdk.rs"]
mod sdk;
mod support;

use operator::{copy_dir, grant, pack_model, text};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Process, Tether, eventually, get, is_routable, post, repository};

/// Where a person writes an id into an example.
const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Within which a tenant is refused when no worker is left. The mesh's own times (a link that is
/// silent for two seconds is as good as lost) make it less than three; a starved machine may take longer.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);

/// What the operator has.
struct Operator {
    dir: tempfile::TempDir,
    mesh: String,
    recovery: String,
    publisher: String,
}

/// A machine: a folder, and what runs there.
struct Machine {
    dir: PathBuf,
    id: String,
}

impl Operator {
    /// What `ops/examples/README.md` says under "The operator, once".
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| dir.path().join(name);
        let mesh = Tether::ok(&["mesh", "new", text(&path("my-mesh"))]);
        let recovery = Tether::ok(&["keys", "show", text(&path("my-mesh/recovery.key"))]);
        let publisher = Tether::ok(&["keys", "new", text(&path("publisher.key"))]);
        pack_model(
            &path("tether-tiny"),
            "tether-tiny@1.0",
            &path("publisher.key"),
        );
        Self {
            mesh,
            recovery,
            publisher,
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What it says under "Each node but the bootstrap nodes".
    fn machine(&self, name: &str, role: &str, bootstrap: &[String]) -> Machine {
        let dir = self.path(name);
        std::fs::create_dir(&dir).expect("made");
        let id = Tether::ok(&["keys", "new", text(&dir.join("node.key"))]);
        let operator = self.path("my-mesh/operator.key");
        grant(&operator, &id, role, &dir.join("node.grant"));
        let example = repository().join(format!("ops/examples/{name}.toml"));
        let example = std::fs::read_to_string(example).expect("the example");
        let lines: Vec<String> = example
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some(("mesh", _)) => line.replace(BLANK, &self.mesh),
                Some(("recovery", _)) => line.replace(BLANK, &self.recovery),
                Some(("trusted_publishers", _)) => line.replace(BLANK, &self.publisher),
                Some(("bootstrap", _)) => format!("bootstrap = {bootstrap:?}"),
                _ => line.to_owned(),
            })
            .collect();
        std::fs::write(dir.join(format!("{name}.toml")), lines.join("\n")).expect("written");
        Machine { dir, id }
    }
}

impl Machine {
    /// Starts its process; ports of the example are overridden, since a test takes free ones.
    fn start(&self, role: &str, name: &str, more: &[&str]) -> Process {
        let mut command = Command::new(support::tether());
        command
            .args([role, "--json", "--config", &format!("{name}.toml")])
            .args(more)
            .current_dir(&self.dir)
            .env("TETHER_NODE__LISTEN", "127.0.0.1:0")
            .env("TETHER_NODE__DHT_LISTEN", "127.0.0.1:0")
            .env(
                "TETHER_BOOTSTRAP__LISTEN",
                format!("{:?}", ["127.0.0.1:0"; 10]),
            );
        if role == "worker" {
            command.env("TETHER_WORKER__METRICS", "127.0.0.1:0");
        }
        Process::start(command, &self.dir.join("log"))
    }
}

#[test]
fn five_processes_from_the_examples_answer_a_prompt() {
    let operator = Operator::new();

    let bootstrap = Machine {
        dir: operator.path("bootstrap"),
        id: String::new(),
    };
    copy_dir(&repository().join("ops/examples"), &bootstrap.dir);
    let bootstrap = bootstrap.start("bootstrap", "bootstrap", &[]);
    let nodes: Vec<String> = bootstrap.ready["bootstrap"]
        .as_array()
        .expect("addresses")
        .iter()
        .map(|addr| addr.as_str().expect("an address").to_owned())
        .collect();
    assert_eq!(nodes.len(), 10);
    Tether::ok(&["probe", &nodes[0]]);

    let machine = operator.machine("orchestrator", "orchestrator", &nodes);
    std::fs::copy(
        operator.path("tether-tiny/tether.manifest"),
        machine.dir.join("tether-tiny.manifest"),
    )
    .expect("copied");
    let tenants = machine.dir.join("tenants.toml");
    std::fs::copy(repository().join("ops/examples/tenants.toml"), &tenants).expect("copied");
    let key = Tether::ok(&["tenant", "new", "--file", text(&tenants), "--id", "acme"]);
    let orchestrator = machine.start("orchestrator", "orchestrator", &["--admin", "127.0.0.1:0"]);
    assert_eq!(orchestrator.ready["id"], machine.id);
    let admin = orchestrator.ready["admin"].as_str().expect("a URL");
    let token_file = machine.dir.join("data/admin.token");

    let machine = operator.machine("gateway", "gateway", &nodes);
    let gateway = machine.start("gateway", "gateway", &["--listen", "127.0.0.1:0"]);
    let url = gateway.ready["gateway"].as_str().expect("a URL");

    // Known, since it is released, and served by nobody yet.
    let body = json!({
        "model": "tether-tiny",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
    });
    let chat = || post(&format!("{url}/v1/chat/completions"), &key, &body);
    eventually("the gateway is ready", || {
        get(&format!("{url}/readyz"), "").status == 200
    });
    let reply = chat();
    assert_eq!(reply.status, 503, "{}", reply.text);
    assert!(reply.header("retry-after").is_some());

    let workers: Vec<(String, Process)> = ["worker-1", "worker-2"]
        .iter()
        .map(|name| {
            let machine = operator.machine(name, "worker", &nodes);
            let model = machine.dir.join("models/tether-tiny");
            copy_dir(&operator.path("tether-tiny"), &model);
            (machine.id.clone(), machine.start("worker", name, &[]))
        })
        .collect();
    let fleet = || -> Vec<Value> {
        let json = Tether::ok(&[
            "fleet",
            "--json",
            "--admin",
            admin,
            "--token-file",
            text(&token_file),
        ]);
        serde_json::from_str(&json).expect("JSON")
    };
    eventually("both workers get work", || {
        fleet().iter().filter(|row| is_routable(row)).count() == 2
    });
    eventually("the gateway knows", || chat().status == 200);
    let reply = chat();
    assert!(reply.answer().contains("Paris"), "{}", reply.text);
    let server = workers.iter().find(|(id, _)| id == reply.worker());
    let (_, server) = server.expect("one of the two");
    let page = get(server.ready["metrics"].as_str().expect("a URL"), "").text;
    for name in ["tether_worker_tokens_total{", "tether_net_"] {
        assert!(page.contains(name), "{name} in {page}");
    }
    Tether::ok(&["probe", url]);
    Tether::ok(&["probe", admin]);
    sdk::python_sdk(url, &key, "tether-tiny", operator.mesh.trim());

    // A worker that says goodbye is gone at once, and the other goes on.
    let mut workers = workers.into_iter();
    let (leaver, process) = workers.next().expect("two");
    assert_eq!(process.stop(), Some(0));
    let reply = chat();
    assert!(reply.answer().contains("Paris"), "{}", reply.text);
    assert_ne!(reply.worker(), leaver);

    // The last one dies without a word, and nothing starts it again: the very next request is
    // refused, with a time to come again.
    let (_, mut process) = workers.next().expect("one is left");
    process.kill();
    let begin = Instant::now();
    let reply = chat();
    let elapsed = begin.elapsed();
    println!("refused after {} ms without a worker", elapsed.as_millis());
    assert_eq!(reply.status, 503, "{}", reply.text);
    let after = reply.header("retry-after").expect("Retry-After");
    let after: u64 = after.parse().expect("seconds");
    assert!(after >= 1, "{after}");
    let error = &reply.json()["error"];
    for field in ["message", "type", "code"] {
        let text = error[field].as_str();
        assert!(
            text.is_some_and(|text| !text.is_empty()),
            "{field} in {error}"
        );
    }
    assert!(elapsed < REFUSED_WITHIN, "refused only after {elapsed:?}");
    assert_eq!(gateway.stop(), Some(0));
    assert_eq!(orchestrator.stop(), Some(0));
    assert_eq!(bootstrap.stop(), Some(0));
}
