//! A mesh of real processes to which workers come and from which they go.

use crate::operator::{grant, pack_model, text};
use crate::support::{self, Process, Reply, Tether, eventually, get, is_routable, post};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use tether_net::{
    BoxFuture, Incoming, LinkLimits, Members, Node, NodeConfig, Service, UplinkConfig,
};
use tether_telemetry::metrics::{NetMetrics, Registry};
use tether_wire::grant::{Access, Mesh};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{NodeKey, Region, Role, Topic};

/// A mesh with an orchestrator and a gateway; workers are the test's.
pub(crate) struct World {
    mesh: String,
    recovery: String,
    publisher: String,
    pub(crate) bootstrap: String,
    api_key: String,
    pub(crate) orchestrator: Option<Process>,
    pub(crate) gateway: Option<Process>,
    _bootstrap: Process,
    /// Removed last: what went wrong is in the logs.
    dir: tempfile::TempDir,
}

pub(crate) fn said(output: &Output) -> String {
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
    pub(crate) fn start(allow: bool) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| dir.path().join(name);
        let made = Tether::ok(&["mesh", "new", text(&path("mesh")), "--json"]);
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let publisher = Tether::ok(&["keys", "new", text(&path("publisher.key"))]);
        pack_model(&path("tiny"), "tether-tiny@1.0", &path("publisher.key"));
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

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node's folder with key, grant and configuration; its id.
    pub(crate) fn node(&self, name: &str, role: &str, lines: &str) -> String {
        let dir = self.path(name);
        std::fs::create_dir(&dir).expect("made");
        let id = Tether::ok(&["keys", "new", text(&dir.join("node.key"))]);
        grant(&self.path("mesh"), &id, role, &dir.join("node.grant"));
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

    /// The orchestrator's list, at once.
    pub(crate) fn allow(&self, keys: &[&String]) {
        let lines: Vec<&str> = keys.iter().map(|key| key.as_str()).collect();
        std::fs::write(self.path("allow.next"), lines.join("\n")).expect("written");
        std::fs::rename(self.path("allow.next"), self.path("allow")).expect("moved");
    }

    pub(crate) fn start_orchestrator(&mut self) {
        self.orchestrator = Some(self.orchestrator_of("orchestrator"));
    }

    /// An orchestrator from a folder with its configuration.
    pub(crate) fn orchestrator_of(&self, name: &str) -> Process {
        let config = self.path(name).join("orchestrator.toml");
        let start = command(&["orchestrator", "--json", "--config", text(&config)]);
        Process::start(start, &self.path(&format!("{name}.log")))
    }

    pub(crate) fn restart_orchestrator(&mut self) {
        let old = self.orchestrator.take().expect("it runs");
        assert_eq!(old.stop(), Some(0));
        self.start_orchestrator();
    }

    pub(crate) fn admin(&self) -> (String, PathBuf) {
        let ready = &self.orchestrator.as_ref().expect("it runs").ready;
        let url = ready["admin"].as_str().expect("a URL").to_owned();
        (url, self.path("orchestrator/data/admin.token"))
    }

    /// Ids of the workers in the fleet that get work, and of all.
    pub(crate) fn fleet(&self) -> (Vec<String>, Vec<String>) {
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

    pub(crate) fn serves(&self, id: &str) -> bool {
        self.fleet().0.iter().any(|it| it == id)
    }

    pub(crate) fn shows(&self, id: &str) -> bool {
        self.fleet().1.iter().any(|it| it == id)
    }

    pub(crate) fn invite(&self, uses: &str) -> (PathBuf, String) {
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
    pub(crate) fn joining(&self, name: &str, token: &Path) -> Command {
        let mut join = command(&["worker", "--json", "--join-file", text(token), "--data-dir"]);
        join.arg(self.path(name));
        if !self.path(name).exists() {
            join.args(["--publisher", &self.publisher, "--model"]);
            join.arg(self.path("tiny"));
        }
        join
    }

    pub(crate) fn join(&self, name: &str, token: &Path) -> Process {
        let log = self.path(&format!("{name}.log"));
        Process::start(self.joining(name, token), &log)
    }

    /// A worker from a folder with its configuration, or one that does not start.
    pub(crate) fn worker(&self, name: &str) -> Process {
        let dir = self.path(name);
        // At each attempt it says why it is refused, not at the first one alone.
        let start = command(&["worker", "-v", "--json", "--data-dir", text(&dir)]);
        Process::start(start, &self.path(&format!("{name}.log")))
    }

    pub(crate) fn revoke(&self, what: &[&str]) -> Output {
        let to = ["--bootstrap", &self.bootstrap, "--region", "eu"];
        self.revoke_at(what, &to)
    }

    pub(crate) fn revoke_at(&self, what: &[&str], to: &[&str]) -> Output {
        let mesh = self.path("mesh");
        let by = ["revoke", "--operator", text(&mesh), "--yes"];
        Tether::output(&[&by[..], what, to].concat())
    }

    #[track_caller]
    pub(crate) fn revoked(&self, what: &[&str]) {
        let output = self.revoke(what);
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            said(&output).contains("1 orchestrator took it"),
            "{}",
            said(&output)
        );
    }

    pub(crate) fn chat(&self) -> Reply {
        self.chat_about("What is the capital of France?")
    }

    pub(crate) fn chat_about(&self, prompt: &str) -> Reply {
        let gateway = self.gateway.as_ref().expect("it runs");
        let url = gateway.ready["gateway"].as_str().expect("a URL");
        let body = json!({
            "model": "tether-tiny",
            "messages": [{"role": "user", "content": prompt}],
        });
        post(&format!("{url}/v1/chat/completions"), &self.api_key, &body)
    }

    pub(crate) fn is_ready(&self) -> bool {
        let gateway = self.gateway.as_ref().expect("it runs");
        let url = gateway.ready["gateway"].as_str().expect("a URL");
        get(&format!("{url}/readyz"), "").status == 200
    }
}

/// A node that announces itself as an orchestrator, which it is not, and takes no link. It is there
/// until it is dropped.
pub(crate) struct Stranger(Node);

impl World {
    pub(crate) fn stranger(&self) -> Stranger {
        let mesh = Mesh {
            id: self.mesh.parse().expect("a mesh id"),
            recovery: Some(self.recovery.parse().expect("a key")),
            access: Access::Invite,
        };
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let region = Region::new("eu").expect("valid");
        let config = NodeConfig {
            key: NodeKey::from_seed([9; 32]),
            members: Members::new(mesh),
            role: Role::Orchestrator,
            region: region.clone(),
            grant: None,
            invite: None,
            accept: Vec::new(),
            listen: loopback,
            advertise: Vec::new(),
            dht_listen: loopback,
            bootstrap: vec![self.bootstrap.parse().expect("an address")],
            relays: Vec::new(),
            uplinks: UplinkConfig::default(),
            limits: LinkLimits::default(),
            metrics: NetMetrics::register(&Registry::new()),
        };
        support::runtime().block_on(async {
            let node = Node::start(config, Arc::new(Deaf)).await.expect("a node");
            let announced = node.announce(&Topic::Control(region)).await;
            announced.expect("announced");
            Stranger(node)
        })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        support::runtime().block_on(self.0.shutdown());
    }
}

struct Deaf;

impl Service for Deaf {
    fn serve(&self, _: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        Box::pin(async { Err(RpcError::new(Code::NotFound, "nothing here")) })
    }
}

/// Waits until a process says something, or ends.
pub(crate) fn says(process: &Process, words: &str) {
    eventually(words, || process.log().contains(words));
}

pub(crate) fn id_of(process: &Process) -> String {
    process.ready["id"].as_str().expect("an id").to_owned()
}
