//! Who belongs to a mesh, over real processes: invited workers join, keys are replaced, what is
//! revoked is gone for good. (PRE-6)

mod support;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::{Process, Reply, Tether, eventually, get, is_routable, post, repository};

/// Exit codes of joining.
const SPENT: i32 = 12;
const REVOKED: i32 = 13;

/// A mesh with an orchestrator and a gateway; workers are the test's.
struct World {
    mesh: String,
    recovery: String,
    publisher: String,
    bootstrap: String,
    api_key: String,
    orchestrator: Option<Process>,
    gateway: Option<Process>,
    _bootstrap: Process,
    /// Removed last: what went wrong is in the logs.
    dir: tempfile::TempDir,
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `tether` on ports of this machine alone, with an engine that repeats what it is asked.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(support::tether());
    command
        .args(args)
        .env("TETHER_NODE__LISTEN", "127.0.0.1:0")
        .env("TETHER_NODE__DHT_LISTEN", "127.0.0.1:0")
        .env("TETHER_WORKER__ENGINE__KIND", "echo");
    command
}

impl World {
    /// `allow` is the orchestrator's list of keys, if it has one; it gets the gateway's key.
    fn start(allow: bool) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| dir.path().join(name);
        let made = Tether::ok(&["mesh", "new", text(&path("mesh")), "--json"]);
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let publisher = Tether::ok(&["keys", "new", text(&path("publisher.key"))]);
        std::fs::create_dir(path("tiny")).expect("made");
        let model = repository().join("crates/tiny-model/model");
        for entry in std::fs::read_dir(model).expect("the committed model") {
            let entry = entry.expect("readable");
            std::fs::copy(entry.path(), path("tiny").join(entry.file_name())).expect("copied");
        }
        Tether::ok(&[
            "artifact",
            "pack",
            text(&path("tiny")),
            "--model",
            "tether-tiny@1.0",
            "--key",
            text(&path("publisher.key")),
        ]);
        let bootstrap = command(
            &[
                &["bootstrap", "--json"][..],
                &["--listen", "127.0.0.1:0"].repeat(10),
            ]
            .concat(),
        );
        let bootstrap = Process::start(bootstrap, &path("bootstrap.log"));
        let api_key = Tether::ok(&[
            "tenant",
            "new",
            "--file",
            text(&path("tenants.toml")),
            "--id",
            "acme",
        ]);
        let mut world = Self {
            mesh: made["mesh"].as_str().expect("an id").to_owned(),
            recovery: made["recovery"].as_str().expect("an id").to_owned(),
            publisher,
            bootstrap: bootstrap.ready["bootstrap"][0]
                .as_str()
                .expect("an address")
                .to_owned(),
            api_key,
            orchestrator: None,
            gateway: None,
            _bootstrap: bootstrap,
            dir,
        };
        let gateway = world.node("gateway", "gateway", "");
        let listed = "access = \"allow-list\"\nallow = \"../allow\"\n";
        if allow {
            world.allow(&[&gateway]);
        }
        world.node(
            "orchestrator",
            "orchestrator",
            if allow { listed } else { "" },
        );
        world.start_orchestrator();
        let gateway = command(&[
            "gateway",
            "--json",
            "--config",
            text(&world.path("gateway/gateway.toml")),
        ]);
        world.gateway = Some(Process::start(gateway, &world.path("gateway.log")));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node's folder with key, grant and configuration; its id.
    fn node(&self, name: &str, role: &str, lines: &str) -> String {
        let dir = self.path(name);
        std::fs::create_dir(&dir).expect("made");
        let id = Tether::ok(&["keys", "new", text(&dir.join("node.key"))]);
        self.grant(name, role, &id);
        let own = match role {
            "orchestrator" => format!(
                "tenants = \"{}\"\nreleases = [\"{}\"]\ntrusted_publishers = [\"{}\"]\nadmin = \"127.0.0.1:0\"\n",
                text(&self.path("tenants.toml")),
                text(&self.path("tiny")),
                self.publisher
            ),
            "worker" => format!(
                "trusted_publishers = [\"{}\"]\n[[worker.models]]\npath = \"{}\"\n",
                self.publisher,
                text(&self.path("tiny"))
            ),
            _ => "listen = \"127.0.0.1:0\"\n".to_owned(),
        };
        let config = format!(
            "[node]\nkey = \"node.key\"\ngrant = \"node.grant\"\nmesh = \"{}\"\nrecovery = \"{}\"\n\
             region = \"eu\"\nbootstrap = [\"{}\"]\n{lines}\n[{role}]\n{own}",
            self.mesh, self.recovery, self.bootstrap
        );
        std::fs::write(dir.join(format!("{role}.toml")), config).expect("written");
        id
    }

    /// Grants a role for a key into a node's folder; the serial.
    fn grant(&self, name: &str, role: &str, id: &str) -> String {
        Tether::ok(&[
            "grant",
            "issue",
            "--operator",
            text(&self.path("mesh")),
            "--subject",
            id,
            "--role",
            role,
            "--region",
            "eu",
            "--tier",
            "trusted",
            "--out",
            text(&self.path(name).join("node.grant")),
        ])
    }

    /// The orchestrator's list, at once.
    fn allow(&self, keys: &[&String]) {
        let lines: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        std::fs::write(self.path("allow.next"), lines.join("\n")).expect("written");
        std::fs::rename(self.path("allow.next"), self.path("allow")).expect("moved");
    }

    fn start_orchestrator(&mut self) {
        let config = self.path("orchestrator/orchestrator.toml");
        let start = command(&["orchestrator", "--json", "--config", text(&config)]);
        self.orchestrator = Some(Process::start(start, &self.path("orchestrator.log")));
    }

    fn restart_orchestrator(&mut self) {
        let old = self.orchestrator.take().expect("it runs");
        assert_eq!(old.stop(), Some(0));
        self.start_orchestrator();
    }

    fn admin(&self) -> (String, PathBuf) {
        let ready = &self.orchestrator.as_ref().expect("it runs").ready;
        let url = ready["admin"].as_str().expect("a URL").to_owned();
        (url, self.path("orchestrator/data/admin.token"))
    }

    /// Ids of the workers in the fleet that get work, and of all.
    fn fleet(&self) -> (Vec<String>, Vec<String>) {
        let (admin, token) = self.admin();
        let json = Tether::ok(&[
            "fleet",
            "--json",
            "--admin",
            &admin,
            "--token-file",
            text(&token),
        ]);
        let rows: Vec<Value> = serde_json::from_str(&json).expect("JSON");
        let id = |row: &Value| row["id"].as_str().expect("an id").to_owned();
        let routable = rows.iter().filter(|row| is_routable(row)).map(id);
        (routable.collect(), rows.iter().map(id).collect())
    }

    fn serves(&self, id: &str) -> bool {
        self.fleet().0.iter().any(|it| it == id)
    }

    fn shows(&self, id: &str) -> bool {
        self.fleet().1.iter().any(|it| it == id)
    }

    fn invite(&self, uses: &str) -> (PathBuf, String) {
        let made = Tether::ok(&[
            "invite",
            "new",
            "--operator",
            text(&self.path("mesh")),
            "--region",
            "eu",
            "--uses",
            uses,
            "--bootstrap",
            &self.bootstrap,
            "--json",
        ]);
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let file = self.path("token");
        std::fs::write(&file, made["token"].as_str().expect("a token")).expect("written");
        (file, made["serial"].to_string())
    }

    /// A worker that joins, or has joined, in a folder.
    fn joining(&self, name: &str, token: &Path) -> Command {
        let mut join = command(&["worker", "--json", "--join-file", text(token), "--data-dir"]);
        join.arg(self.path(name));
        if !self.path(name).exists() {
            join.args(["--publisher", &self.publisher, "--model"]);
            join.arg(self.path("tiny"));
        }
        join
    }

    fn join(&self, name: &str, token: &Path) -> Process {
        let log = self.path(&format!("{name}.log"));
        Process::start(self.joining(name, token), &log)
    }

    /// A worker from a folder with its configuration, or one that does not start.
    fn worker(&self, name: &str) -> Process {
        let dir = self.path(name);
        // At each attempt it says why it is refused, not at the first one alone.
        let start = command(&["worker", "-v", "--json", "--data-dir", text(&dir)]);
        Process::start(start, &self.path(&format!("{name}.log")))
    }

    fn revoke(&self, what: &[&str]) -> Output {
        let mesh = self.path("mesh");
        let by = ["revoke", "--operator", text(&mesh), "--yes"];
        let to = ["--bootstrap", &self.bootstrap, "--region", "eu"];
        Tether::output(&[&by[..], what, &to[..]].concat())
    }

    #[track_caller]
    fn revoked(&self, what: &[&str]) {
        let output = self.revoke(what);
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            said(&output).contains("1 orchestrator took it"),
            "{}",
            said(&output)
        );
    }

    fn chat(&self) -> Reply {
        let gateway = self.gateway.as_ref().expect("it runs");
        let url = gateway.ready["gateway"].as_str().expect("a URL");
        let body = json!({
            "model": "tether-tiny",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        });
        post(&format!("{url}/v1/chat/completions"), &self.api_key, &body)
    }

    fn is_ready(&self) -> bool {
        let gateway = self.gateway.as_ref().expect("it runs");
        let url = gateway.ready["gateway"].as_str().expect("a URL");
        get(&format!("{url}/readyz"), "").status == 200
    }
}

/// Waits until a process says something, or ends.
fn says(process: &Process, words: &str) {
    eventually(words, || process.log().contains(words));
}

fn id_of(process: &Process) -> String {
    process.ready["id"].as_str().expect("an id").to_owned()
}

#[test]
fn an_invited_worker_serves_under_each_of_its_keys_until_it_is_revoked() {
    let mut world = World::start(false);
    let (token, _) = world.invite("1");
    let worker = world.join("w", &token);
    let first = id_of(&worker);
    eventually("it gets work", || world.serves(&first));
    eventually("the gateway is ready", || world.is_ready());
    eventually("a prompt is answered", || world.chat().status == 200);
    assert_eq!(world.chat().worker(), first);

    // The same folder and token again: it has joined, and takes no second use.
    assert_eq!(worker.stop(), Some(0));
    let worker = world.join("w", &token);
    assert_eq!(id_of(&worker), first);
    assert!(
        worker.log().contains("has joined before"),
        "{}",
        worker.log()
    );
    eventually("it gets work", || world.serves(&first));

    // A use that was spent is spent, also for an orchestrator that was restarted.
    let refused = |world: &World, name: &str| {
        let output = world.joining(name, &token).output().expect("it runs");
        assert_eq!(output.status.code(), Some(SPENT), "{}", said(&output));
        assert!(
            said(&output).contains("whom it was for (1)"),
            "{}",
            said(&output)
        );
        let (key, grant) = (format!("{name}/node.key"), format!("{name}/node.grant"));
        assert!(world.path(&key).exists() && !world.path(&grant).exists());
    };
    refused(&world, "late");
    world.restart_orchestrator();
    refused(&world, "late");
    eventually("the worker is back", || world.serves(&first));

    // Its key is replaced while it runs, and counts from its next start.
    let old = world.path("old");
    std::fs::create_dir(&old).expect("made");
    for name in ["node.key", "node.grant", "worker.toml"] {
        std::fs::copy(world.path("w").join(name), old.join(name)).expect("copied");
    }
    let second = Tether::ok(&["keys", "rotate", "--data-dir", text(&world.path("w"))]);
    assert!(world.serves(&first), "it runs on");
    assert_eq!(worker.stop(), Some(0));
    let worker = world.worker("w");
    assert_eq!(id_of(&worker), second);
    eventually("it gets work under its new key", || world.serves(&second));
    eventually("a prompt is answered", || world.chat().status == 200);
    assert_eq!(world.chat().worker(), second);
    let thief = world.worker("old");
    says(&thief, "was replaced by");
    assert!(!world.shows(&first));
    drop(thief);

    // Revoked, it is gone at once, and stays so.
    world.revoked(&[&second, "--reason", "a drill"]);
    eventually("it is gone", || !world.shows(&second));
    says(&worker, "was revoked");
    assert_eq!(world.chat().status, 503);
    drop(worker);
    world.restart_orchestrator();
    std::fs::remove_file(world.path("w/data/membership.cbor")).ok();
    let back = world.worker("w");
    says(&back, "was revoked");
    assert!(!world.shows(&second));
    let list = Tether::ok(&["grant", "ls", text(&world.path("mesh"))]);
    assert!(list.contains(&second) && list.contains("a drill"), "{list}");
}

#[test]
fn a_worker_that_was_away_when_it_was_revoked_is_refused_when_it_is_back() {
    let world = World::start(false);
    let (token, _) = world.invite("2");
    let worker = world.join("w", &token);
    let id = id_of(&worker);
    eventually("it gets work", || world.serves(&id));
    assert_eq!(worker.stop(), Some(0));
    world.revoked(&[&id]);
    // Once more is no mistake.
    world.revoked(&[&id]);
    let back = world.worker("w");
    says(&back, "was revoked");
    assert!(!world.shows(&id));
    drop(back);
    // The same token is good for another.
    let other = world.join("other", &token);
    eventually("another gets work", || world.serves(&id_of(&other)));
}

#[test]
fn an_invite_that_is_revoked_takes_those_along_who_came_by_it() {
    let world = World::start(false);
    let (token, serial) = world.invite("5");
    let (one, two) = (world.join("one", &token), world.join("two", &token));
    let ids = [id_of(&one), id_of(&two)];
    eventually("both get work", || ids.iter().all(|id| world.serves(id)));
    world.revoked(&["--serial", &serial]);
    eventually("both are gone", || !ids.iter().any(|id| world.shows(id)));
    let output = world.joining("three", &token).output().expect("it runs");
    assert_eq!(output.status.code(), Some(REVOKED), "{}", said(&output));
    // The keys are not barred: a new invite lets them in again.
    drop(one);
    let (token, _) = world.invite("1");
    let mut again = world.joining("one", &token);
    again.arg("--rejoin");
    let again = Process::start(again, &world.path("one.log"));
    assert_eq!(id_of(&again), ids[0]);
    eventually("it gets work again", || world.serves(&ids[0]));
}

#[test]
fn what_was_signed_offline_is_brought_by_hand() {
    let world = World::start(false);
    let id = world.node("w", "worker", "");
    let worker = world.worker("w");
    eventually("it gets work", || world.serves(&id));
    // With the key that is on no network, and has a register of its own.
    std::fs::create_dir(world.path("safe")).expect("made");
    let key = world.path("safe/recovery.key");
    std::fs::rename(world.path("mesh/recovery.key"), &key).expect("moved");
    let file = world.path("stolen.control");
    Tether::ok(&[
        "revoke",
        &id,
        "--operator",
        text(&key),
        "--yes",
        "--out",
        text(&file),
    ]);
    assert!(world.serves(&id), "nobody was told yet");
    let (admin, token) = world.admin();
    let send = ["control", "send", text(&file)];
    let to = ["--admin", &admin, "--admin-token-file", text(&token)];
    let said = Tether::ok(&[&send[..], &to[..]].concat());
    assert!(said.contains(&id), "{said}");
    eventually("it is gone", || !world.shows(&id));
    drop(worker);
    // Over links it is brought by any operator; another mesh's message is taken by nobody.
    let other = World::path(&world, "other-mesh");
    Tether::ok(&["mesh", "new", text(&other)]);
    let theirs = world.path("theirs.control");
    Tether::ok(&[
        "revoke",
        &id,
        "--operator",
        text(&other),
        "--yes",
        "--out",
        text(&theirs),
    ]);
    let over_links = |file: &Path| {
        Tether::output(&[
            "control",
            "send",
            text(file),
            "--operator",
            text(&world.path("mesh")),
            "--bootstrap",
            &world.bootstrap,
            "--region",
            "eu",
        ])
    };
    assert!(over_links(&file).status.success());
    for output in [
        over_links(&theirs),
        Tether::output(&[&["control", "send", text(&theirs)][..], &to[..]].concat()),
    ] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("nobody took it"),
            "{output:?}"
        );
    }
}

#[test]
fn a_list_of_keys_is_followed_while_the_orchestrator_runs() {
    let world = World::start(true);
    let gateway = id_of(world.gateway.as_ref().expect("it runs"));
    let (a, b) = (world.node("a", "worker", ""), world.node("b", "worker", ""));
    world.allow(&[&gateway, &a]);
    let one = world.worker("a");
    eventually("the one on the list gets work", || world.serves(&a));
    let other = world.worker("b");
    says(&other, "not on this node's list of allowed keys");
    assert!(!world.shows(&b));
    world.allow(&[&gateway, &b]);
    eventually("the new one gets work, the other is gone", || {
        world.serves(&b) && !world.serves(&a)
    });
    // A list with a mistake changes nothing.
    let mistake = "nonsense".to_owned();
    world.allow(&[&gateway, &mistake]);
    says(world.orchestrator.as_ref().expect("it runs"), "line 2");
    assert!(world.serves(&b) && !world.serves(&a));
    drop((one, other));
}
