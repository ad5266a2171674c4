//! A mesh whose nodes stand on hosts of their own: real processes, each with its key, its grant and
//! its folder, and nothing shared but the operator.

use crate::inside::{Asking, MEDIAN_US, ask, ask_often};
use crate::lan::{Host, Lan};
use crate::operator::{self, copy_dir, pack_model, text};
use crate::support::{self, Process, Reply, Tether, eventually, is_routable};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Ports are free in a namespace of one's own.
const GATEWAY: &str = "http://127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9464";
/// UDP ports of the DHT nodes of a bootstrap host.
pub(crate) const DHT_PORTS: Range<u16> = 49_737..49_747;
/// UDP port of links, in every host.
pub(crate) const LINKS: u16 = 49_800;
/// What the nodes log, for those who look into a failure.
const LOGGED: &str = "info,tether_net=debug,iroh=info,iroh::_events=debug";
const MODEL: &str = "tether-tiny@1.0";

/// The operator's folder, and where the bootstrap nodes are.
pub(crate) struct Mesh {
    dir: tempfile::TempDir,
    id: String,
    publisher: String,
    api_key: String,
    bootstrap: Vec<String>,
    relays: Vec<String>,
}

/// A node on its host.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) id: String,
    role: &'static str,
    dir: PathBuf,
    process: Option<Process>,
}

impl Mesh {
    /// Makes keys, the packed model and a tenant.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| dir.path().join(name);
        let id = Tether::ok(&["mesh", "new", text(&path("mesh"))]);
        let publisher = Tether::ok(&["keys", "new", text(&path("publisher.key"))]);
        let model = path("model");
        pack_model(&model, MODEL, &path("publisher.key"));
        let tenants = path("tenants.toml");
        std::fs::write(&tenants, "").expect("written");
        let api_key = Tether::ok(&["tenant", "new", "--file", text(&tenants), "--id", "acme"]);
        Self {
            id,
            publisher,
            api_key,
            bootstrap: Vec::new(),
            relays: Vec::new(),
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts ten DHT nodes and a relay on a host, which later nodes are told of.
    pub(crate) fn entry_point(&mut self, host: Host) -> Node {
        let listen = format!("{}:3340", host.address());
        self.relays = vec![format!("http://{listen}/")];
        let relay = format!("[relay]\nlisten = {listen:?}\nmesh = {:?}\n", self.id);
        self.bootstrap_with(host, &relay)
    }

    /// Starts ten DHT nodes on a host, which later nodes are told of.
    pub(crate) fn bootstrap(&mut self, host: Host) -> Node {
        self.bootstrap_with(host, "")
    }

    fn bootstrap_with(&mut self, host: Host, more: &str) -> Node {
        let listen: Vec<_> = DHT_PORTS
            .map(|port| format!("{}:{port}", host.address()))
            .collect();
        let node = Node::new("bootstrap", host, self.path("bootstrap"));
        node.write(&format!("[bootstrap]\nlisten = {listen:?}\n{more}"));
        self.bootstrap = listen[..3].to_vec();
        node.started()
    }

    /// Starts an orchestrator.
    pub(crate) fn orchestrator(&self, name: &str, host: Host) -> Node {
        self.node("orchestrator", name, host, |_| {
            format!(
                "[orchestrator]\ntenants = {:?}\nreleases = [{:?}]\ntrusted_publishers = [{:?}]\nadmin = {ADMIN:?}\n",
                text(&self.path("tenants.toml")),
                text(&self.path("model")),
                self.publisher,
            )
        })
    }

    /// Starts a gateway.
    pub(crate) fn gateway(&self, host: Host) -> Node {
        self.node("gateway", "gateway", host, |_| {
            "[gateway]\nlisten = \"127.0.0.1:8080\"\n".to_owned()
        })
    }

    /// Starts a worker whose engine answers with the last message, a word in `delay_ms`.
    pub(crate) fn worker(&self, name: &str, host: Host, delay_ms: u64) -> Node {
        self.node("worker", name, host, |dir| {
            copy_dir(&self.path("model"), &dir.join("model"));
            format!(
                "[worker]\ntrusted_publishers = [{:?}]\n[worker.engine]\nkind = \"echo\"\n\
                 echo_delay_ms = {delay_ms}\n[[worker.models]]\npath = \"model\"\n",
                self.publisher
            )
        })
    }

    fn node(
        &self,
        role: &'static str,
        name: &str,
        host: Host,
        section: impl FnOnce(&Path) -> String,
    ) -> Node {
        let mut node = Node::new(role, host, self.path(name));
        let (key, grant) = (node.dir.join("node.key"), node.dir.join("node.grant"));
        node.id = Tether::ok(&["keys", "new", text(&key)]);
        let operator = self.path("mesh/operator.key");
        operator::grant(&operator, &node.id, role, &grant);
        node.write(&format!(
            "[node]\nkey = \"node.key\"\ngrant = \"node.grant\"\nmesh = {:?}\nregion = \"eu\"\n\
             listen = \"0.0.0.0:{LINKS}\"\ndht_listen = \"0.0.0.0:49801\"\nbootstrap = {:?}\nrelays = {:?}\n\n{}",
            self.id,
            self.bootstrap,
            self.relays,
            section(&node.dir),
        ));
        node.started()
    }

    /// Begins a chat completion at a gateway, which answers with what it was asked.
    pub(crate) fn asking(&self, gateway: &Node, said: &str, stream: bool) -> Asking {
        self.asking_often(1, gateway, said, stream)
    }

    fn asking_often(&self, times: usize, gateway: &Node, said: &str, stream: bool) -> Asking {
        let body = json!({
            "model": "tether-tiny",
            "messages": [{"role": "user", "content": said}],
            "stream": stream,
        });
        let url = format!("{GATEWAY}/v1/chat/completions");
        ask_often(times, &gateway.host, &url, &self.api_key, Some(&body))
    }

    /// A chat completion; nothing, where the gateway does not answer.
    pub(crate) fn chat(&self, gateway: &Node, said: &str) -> Option<Reply> {
        self.asking(gateway, said, false).answer()
    }

    /// The median time of an answer, in microseconds, of so many one after the other.
    pub(crate) fn median_us(&self, gateway: &Node, times: usize) -> u64 {
        let asking = self.asking_often(times, gateway, "one of many", false);
        let reply = asking.answer().expect("the gateway answers");
        assert_eq!(reply.answer(), "one of many");
        let median = reply.header(MEDIAN_US).expect("it was measured");
        median.parse().expect("a number")
    }

    /// Waits until a gateway gives an answer, and gives the worker that it came from.
    #[track_caller]
    pub(crate) fn answered(&self, gateway: &Node, said: &str) -> String {
        let mut by = None;
        eventually("the gateway answers", || {
            let reply = self.chat(gateway, said);
            by = reply.filter(|reply| reply.status == 200).map(|reply| {
                assert_eq!(reply.answer(), said);
                reply.worker().to_owned()
            });
            by.is_some()
        });
        by.expect("it answered")
    }
}

impl Node {
    fn new(role: &'static str, host: Host, dir: PathBuf) -> Self {
        std::fs::create_dir(&dir).expect("made");
        Self {
            host,
            id: String::new(),
            role,
            dir,
            process: None,
        }
    }

    fn write(&self, config: &str) {
        std::fs::write(self.dir.join("node.toml"), config).expect("written");
    }

    fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Starts its process, again after [`Node::kill`].
    pub(crate) fn start(&mut self) {
        let mut command = self.host.command(text(support::tether()));
        command
            .args([
                self.role,
                "--log-level",
                LOGGED,
                "--json",
                "--config",
                "node.toml",
            ])
            .current_dir(&self.dir);
        self.process = Some(Process::start(command, &self.dir.join("log")));
    }

    /// Ends its process without a goodbye.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// What it logged since it started.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The fleet, as an orchestrator sees it.
    pub(crate) fn fleet(&self) -> Vec<Value> {
        let token = self.dir.join("data/admin.token");
        let output = self
            .host
            .command(text(support::tether()))
            .args(["fleet", "--json", "--admin", &format!("http://{ADMIN}")])
            .args(["--token-file", text(&token)])
            .output()
            .expect("it runs");
        let json = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&json).unwrap_or_default()
    }

    /// The workers to which an orchestrator would give work, sorted.
    pub(crate) fn routable(&self) -> Vec<String> {
        let fleet = self.fleet();
        let rows = fleet.iter().filter(|row| is_routable(row));
        let mut ids: Vec<_> = rows
            .map(|row| row["id"].as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids
    }

    /// The workers that an orchestrator knows to live, routable or not, sorted.
    pub(crate) fn known(&self) -> Vec<String> {
        let mut ids: Vec<_> = self
            .fleet()
            .iter()
            .map(|row| row["id"].as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        ids
    }

    /// A counter or gauge of an orchestrator, all its labels together.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.metric_of(name, "")
    }

    /// The same, of those lines with a certain word in their labels.
    pub(crate) fn metric_of(&self, name: &str, word: &str) -> f64 {
        let url = format!("http://{ADMIN}/metrics");
        let reply = ask(&self.host, &url, "", None).answer();
        let text = reply.expect("its metrics").text;
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(word))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Several hosts that all others reach.
pub(crate) fn hosts<const N: usize>(lan: &mut Lan) -> [Host; N] {
    std::array::from_fn(|_| lan.host())
}
