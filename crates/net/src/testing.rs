//! A mesh on loopback, for the tests of this crate and of those above it (feature `testing`).
//!
//! What every such test needs stands here once: a real DHT, an operator's key, grants, and the
//! configuration of a node. What nodes do is each test's own.

use crate::{LinkLimits, Members, NodeConfig, bootstrap};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, SystemTime};
use tether_telemetry::metrics::{NetMetrics, Registry};
use tether_wire::control::Target;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{
    Control, Grant, Invite, MeshId, NodeId, NodeKey, Region, Revocation, Role, Signed, Tier, codec,
};

/// A hang guard; nothing is expected to take this long.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// DHT nodes of a test binary, and how many of them a node is told of.
const DHT_NODES: usize = 10;
const BOOTSTRAP_NODES: usize = 3;

/// Waits, but not for ever.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens in time")
}

/// Waits until a line is in the metrics.
pub async fn metric(registry: &Registry, line: &str) {
    let seen = async {
        while !registry.encode().lines().any(|it| it == line) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, seen).await.is_err() {
        panic!("{line} is not in\n{}", registry.encode());
    }
}

/// A free port on loopback.
pub fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// DHT nodes for the whole binary, on a runtime of their own: each test's runtime ends with it.
pub fn dht() -> &'static [SocketAddr] {
    static NODES: OnceLock<Vec<SocketAddr>> = OnceLock::new();
    NODES.get_or_init(|| {
        let (tx, rx) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async move {
                let nodes = bootstrap::run(vec![loopback(); DHT_NODES], vec![]).await;
                let nodes = nodes.expect("DHT nodes on loopback");
                tx.send(nodes.addresses().to_vec()).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        rx.recv_timeout(PATIENCE).expect("the DHT nodes start")
    })
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("before the year 500 million")
}

/// A key that nobody else has: all tests of a binary share their DHT.
pub fn key() -> NodeKey {
    NodeKey::from_seed(rand::random())
}

/// Where all nodes stand.
pub fn region() -> Region {
    Region::new("local").expect("a region")
}

/// A mesh: its operator's key.
pub struct LocalMesh {
    /// Its operator's key.
    pub operator: NodeKey,
    /// Its identity.
    pub mesh: Mesh,
}

impl LocalMesh {
    /// A mesh of its own.
    pub fn new(access: Access) -> Self {
        let operator = key();
        let id = MeshId(operator.id().0);
        let mesh = Mesh {
            id,
            recovery: None,
            access,
        };
        Self { operator, mesh }
    }

    /// A grant for an hour, with what the test changes of it.
    pub fn grant(&self, subject: NodeId, role: Role, change: impl FnOnce(&mut Grant)) -> Vec<u8> {
        let mut grant = Grant {
            subject,
            role,
            region: Some(region()),
            tier: Tier::Trusted,
            not_before_ms: now_ms() - 1_000,
            expires_ms: now_ms() + 3_600_000,
            serial: 1,
            issuer: None,
            consent: None,
            invite: None,
        };
        change(&mut grant);
        let sealed = Signed::seal(&self.operator, &self.mesh.id, &grant);
        sealed.expect("inside limits").as_bytes().to_vec()
    }

    /// A control message of the operator that revokes something.
    pub fn revocation(&self, target: Target) -> Vec<u8> {
        let revocation = Revocation {
            target,
            keeps_issued: false,
            reason: "a test".to_owned(),
            issued_ms: now_ms(),
            issuer: None,
        };
        let sealed = Signed::seal(&self.operator, &self.mesh.id, &revocation);
        let sealed = sealed.expect("inside limits").as_bytes().to_vec();
        codec::encode(&Control::Revocation(sealed))
    }

    /// A sealed invite for an hour, which this secret opens for so many workers.
    pub fn invite(&self, secret: &[u8; 32], uses: u32) -> Vec<u8> {
        let invite = Invite {
            region: region(),
            tier: Tier::Trusted,
            not_before_ms: now_ms() - 1_000,
            expires_ms: now_ms() + 3_600_000,
            uses,
            grant_life_ms: 3_600_000,
            serial: 77,
            secret: Invite::digest_of(secret),
            issuer: None,
        };
        let sealed = Signed::seal(&self.operator, &self.mesh.id, &invite);
        sealed.expect("inside limits").as_bytes().to_vec()
    }

    /// The configuration of a worker that has an invite and no grant.
    pub fn joining(&self, key: NodeKey, invite: Vec<u8>) -> NodeConfig {
        let (mut config, _) = self.config(key, Role::Worker);
        config.grant = None;
        config.invite = Some(invite);
        config
    }

    /// The configuration of the operator's own node, to give orders.
    pub fn operating(&self) -> NodeConfig {
        let (mut config, _) = self.config(self.operator.clone(), Role::Operator);
        config.grant = None;
        config
    }

    /// The configuration of a node that links with everybody, and where its metrics are.
    pub fn config(&self, key: NodeKey, role: Role) -> (NodeConfig, Registry) {
        let registry = Registry::new();
        let config = NodeConfig {
            grant: Some(self.grant(key.id(), role, |_| ())),
            invite: None,
            key,
            members: Members::new(self.mesh),
            role,
            region: region(),
            accept: vec![
                Role::Gateway,
                Role::Orchestrator,
                Role::Worker,
                Role::Operator,
            ],
            listen: loopback(),
            advertise: vec![],
            dht_listen: loopback(),
            bootstrap: dht()[..BOOTSTRAP_NODES].to_vec(),
            relays: vec![],
            uplinks: crate::UplinkConfig::default(),
            limits: LinkLimits::default(),
            metrics: NetMetrics::register(&registry),
        };
        (config, registry)
    }
}

/// A runtime of one thread, which a test can hold up or end: what runs there is as starved as a
/// process that is stopped, or, once this is dropped, as dead as one that is killed.
pub struct Starvable {
    runtime: tokio::runtime::Handle,
    _end: tokio::sync::oneshot::Sender<()>,
}

/// Dropped to let it go on.
pub struct Starved {
    _hold: mpsc::Sender<()>,
}

impl Starvable {
    /// A runtime that runs.
    #[expect(clippy::new_without_default, reason = "it starts a thread")]
    pub fn new() -> Self {
        let (handle, given) = mpsc::sync_channel(1);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let _ = handle.send(runtime.handle().clone());
            let _ = runtime.block_on(ended);
            runtime.shutdown_background();
        });
        let runtime = given.recv().expect("it starts");
        Self { runtime, _end: end }
    }

    /// Runs a task there.
    pub async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        within(self.runtime.spawn(task)).await.expect("no panic")
    }

    /// Holds its thread until what is returned is dropped.
    pub fn starve(&self) -> Starved {
        let (hold, held) = mpsc::channel::<()>();
        self.runtime.spawn(async move {
            let _ = held.recv();
        });
        Starved { _hold: hold }
    }
}
