//! Several orchestrators in one mesh, each with a fleet view of its own.

use crate::mesh::{Says, Worker, boot, key, within};
use crate::script::{Script, Scripted};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tether_net::testing::{LocalMesh, loopback};
use tether_net::{Members, Node, NodeConfig};
use tether_orchestrator::fleet::Snapshot;
use tether_orchestrator::{Orchestrator, OrchestratorConfig};
use tether_telemetry::metrics::Registry;
use tether_wire::grant::Access;
use tether_wire::rpc::method;
use tether_wire::{NodeId, Role};

/// The key of the first orchestrator.
const FIRST: u8 = 100;

/// One orchestrator, with its data while it lives.
pub struct Member {
    pub orchestrator: Orchestrator,
    pub registry: Registry,
    data: TempDir,
    n: u8,
}

pub struct Fleets {
    pub local: LocalMesh,
    pub members: Vec<Member>,
}

impl Fleets {
    /// Orchestrators that know each other's keys; each has met all others.
    pub async fn start(count: u8) -> Self {
        let local = LocalMesh::new(Access::Invite);
        let mut fleets = Self {
            local,
            members: Vec::new(),
        };
        for n in 0..count {
            fleets.join(n).await;
        }
        fleets.all_met().await;
        fleets
    }

    /// Starts number `n`, who is told of the ones with lower numbers.
    pub async fn join(&mut self, n: u8) {
        let data = tempfile::tempdir().expect("a folder");
        std::fs::write(data.path().join("tenants.toml"), "").expect("written");
        let member = self.boot(n, data).await;
        self.members.push(member);
    }

    async fn boot(&self, n: u8, data: TempDir) -> Member {
        let config = OrchestratorConfig {
            admin: loopback(),
            ..OrchestratorConfig::default()
        };
        let registry = Registry::new();
        let mut node = self.config(n);
        node.members = Members::open(self.local.mesh, data.path()).expect("readable");
        let orchestrator = boot(config, data.path(), node, &registry, |store| store).await;
        Member {
            orchestrator,
            registry,
            data,
            n,
        }
    }

    fn config(&self, n: u8) -> NodeConfig {
        let (mut node, _) = (self.local).config(key(&self.local, FIRST + n), Role::Orchestrator);
        node.uplinks.orchestrators = (0..n).map(|n| key(&self.local, FIRST + n).id()).collect();
        node
    }

    /// Stops one and starts it again with what it has on disk.
    pub async fn restart(&mut self, at: usize) {
        let away = self.stop(at).await;
        self.back(at, away).await;
    }

    /// Stops one; what it has on disk is kept.
    pub async fn stop(&mut self, at: usize) -> (u8, TempDir) {
        let Member {
            orchestrator,
            data,
            n,
            ..
        } = self.members.remove(at);
        orchestrator.shutdown().await.expect("stops");
        (n, data)
    }

    /// Starts it again.
    pub async fn back(&mut self, at: usize, (n, data): (u8, TempDir)) {
        let member = self.boot(n, data).await;
        self.members.insert(at, member);
    }

    /// Waits until each orchestrator counts all of them, itself too, as live.
    pub async fn all_met(&self) {
        for member in &self.members {
            member.counts("orchestrator", self.members.len()).await;
        }
    }

    /// Waits until every fleet view is as wished.
    pub async fn everywhere(&self, what: &str, ready: impl Fn(&Snapshot) -> bool) {
        for member in &self.members {
            member.fleet(what, &ready).await;
        }
    }

    /// A worker that is linked with one orchestrator and has said nothing yet.
    pub async fn worker(&self, n: u8, at: usize) -> Worker {
        let key = key(&self.local, n);
        let scripted = Arc::new(Scripted::new(key.id(), Script::Answer(1)));
        let (config, _) = self.local.config(key.clone(), Role::Worker);
        let grant = config.grant.clone();
        let node = Node::start(config, scripted.clone()).await;
        let node = node.expect("a worker");
        let orchestrator = self.members[at].orchestrator.id();
        let link = within("a link", node.link(orchestrator, Role::Orchestrator)).await;
        let link = link.expect("linked");
        let call = link.call(method::PRESENCE, None, &[]);
        Worker {
            mesh: self.local.mesh.id,
            presence: call.await.expect("called"),
            key,
            grant,
            node,
            scripted,
        }
    }

    /// One that has said that it serves.
    pub async fn serving(&self, n: u8, at: usize) -> Worker {
        let mut worker = self.worker(n, at).await;
        let says: Says = worker.says(1);
        worker.send(&says).await;
        let id = worker.id();
        self.everywhere("the worker", |fleet| fleet.worker(&id).is_some())
            .await;
        worker
    }
}

impl Member {
    pub fn id(&self) -> NodeId {
        self.orchestrator.id()
    }

    pub async fn fleet(&self, what: &str, ready: impl Fn(&Snapshot) -> bool) {
        let mut changes = self.orchestrator.fleet().changes();
        within(what, async {
            while !ready(&self.orchestrator.fleet_snapshot()) {
                changes.changed().await.expect("the keeper runs");
            }
        })
        .await;
    }

    /// Waits until as many nodes of a role are live here.
    pub async fn counts(&self, role: &str, count: usize) {
        let line = format!(r#"tether_orchestrator_nodes{{role="{role}",state="live"}} {count}"#);
        self.metric(&line).await;
    }

    /// Waits until as many nodes of a role are suspect here.
    pub async fn suspects(&self, role: &str, count: usize) {
        let line = format!(r#"tether_orchestrator_nodes{{role="{role}",state="suspect"}} {count}"#);
        self.metric(&line).await;
    }

    /// Waits until so many heartbeats were dropped for a reason.
    pub async fn rejected(&self, reason: &str, least: u64) {
        within(reason, async {
            while self.count_rejected(reason) < least {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    pub fn count_rejected(&self, reason: &str) -> u64 {
        let start = format!("tether_orchestrator_heartbeats_rejected_total{{reason=\"{reason}\"}}");
        let text = self.registry.encode();
        let line = text.lines().find(|line| line.starts_with(&start));
        let count = line.and_then(|line| line.rsplit(' ').next());
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    async fn metric(&self, line: &str) {
        within(line, async {
            while !self.registry.encode().lines().any(|it| it == line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}
