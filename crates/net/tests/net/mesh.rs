//! A mesh of its own for each test, over DHT nodes that all tests of this binary share.

use futures_util::FutureExt;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use tether_net::{
    BoxFuture, Incoming, Link, LinkEvent, LinkLimits, Node, NodeConfig, Service, bootstrap,
};
use tether_telemetry::metrics::{NetMetrics, Registry};
use tether_wire::grant::{Access, Mesh};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Grant, MeshId, NodeId, NodeKey, Region, Role, Signed, Tier};
use tokio::sync::{broadcast, mpsc};

/// A hang guard; nothing is expected to take this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// What a test gives up for when it sends an item that must not be taken.
pub(crate) const ITEM_LIMIT: usize = 64 * 1024;

/// DHT nodes for the whole binary, on a runtime of their own: each test's runtime ends with it.
pub(crate) fn dht() -> Vec<SocketAddr> {
    static NODES: OnceLock<Vec<SocketAddr>> = OnceLock::new();
    NODES
        .get_or_init(|| {
            let (tx, rx) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async move {
                    let nodes = bootstrap::run(vec![loopback(); 10], vec![]).await;
                    let nodes = nodes.expect("DHT nodes on loopback");
                    tx.send(nodes.addresses().to_vec()).expect("somebody waits");
                    std::future::pending::<()>().await;
                });
            });
            rx.recv_timeout(PATIENCE).expect("the DHT nodes start")
        })
        .clone()
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

pub(crate) fn key() -> NodeKey {
    NodeKey::from_seed(rand::random())
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("before the year 500 million")
}

/// What a test changes of a grant.
pub(crate) type Change = fn(&mut Grant);

/// A mesh: its operator's key.
pub(crate) struct TestMesh {
    operator: NodeKey,
    pub(crate) mesh: Mesh,
}

/// A node of a test, with what the test sees of it.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    pub(crate) registry: Registry,
    pub(crate) events: broadcast::Receiver<LinkEvent>,
    pub(crate) cancelled: mpsc::UnboundedReceiver<String>,
}

impl TestMesh {
    pub(crate) fn new() -> Self {
        Self::with(Access::Private)
    }

    pub(crate) fn with(access: Access) -> Self {
        let operator = key();
        let id = MeshId(operator.id().0);
        let mesh = Mesh { id, access };
        Self { operator, mesh }
    }

    pub(crate) fn region() -> Region {
        Region::new("local").expect("a region")
    }

    pub(crate) fn grant(&self, subject: NodeId, role: Role, change: Change) -> Vec<u8> {
        let mut grant = Grant {
            subject,
            role,
            region: Some(Self::region()),
            tier: Tier::Trusted,
            not_before_ms: now_ms() - 1_000,
            expires_ms: now_ms() + 3_600_000,
            serial: 1,
            issuer: None,
        };
        change(&mut grant);
        let sealed = Signed::seal(&self.operator, &self.mesh.id, &grant);
        sealed.expect("inside limits").as_bytes().to_vec()
    }

    /// The configuration of a node that links with everybody.
    pub(crate) fn config(&self, role: Role) -> (NodeConfig, Registry) {
        self.config_of(key(), role)
    }

    pub(crate) fn config_of(&self, key: NodeKey, role: Role) -> (NodeConfig, Registry) {
        let registry = Registry::new();
        let config = NodeConfig {
            grant: Some(self.grant(key.id(), role, |_| ())),
            key,
            mesh: self.mesh,
            role,
            region: Self::region(),
            accept: vec![Role::Gateway, Role::Orchestrator, Role::Worker],
            listen: loopback(),
            advertise: vec![],
            dht_listen: loopback(),
            bootstrap: dht()[..3].to_vec(),
            uplinks: tether_net::UplinkConfig::default(),
            limits: LinkLimits::default(),
            metrics: NetMetrics::register(&registry),
        };
        (config, registry)
    }

    pub(crate) async fn node(&self, role: Role) -> TestNode {
        start(self.config(role)).await
    }

    pub(crate) async fn node_of(&self, key: NodeKey, role: Role) -> TestNode {
        start(self.config_of(key, role)).await
    }

    /// A gateway and an orchestrator that it has linked with.
    pub(crate) async fn pair(&self) -> (TestNode, TestNode, Link) {
        let (orchestrator, gateway) =
            tokio::join!(self.node(Role::Orchestrator), self.node(Role::Gateway));
        let link = gateway.link_to(&orchestrator).await;
        (gateway, orchestrator, link)
    }
}

/// Starts a node.
pub(crate) async fn start((config, registry): (NodeConfig, Registry)) -> TestNode {
    let (cancelled_tx, cancelled) = mpsc::unbounded_channel();
    let service = Arc::new(TestService {
        cancelled: cancelled_tx,
    });
    let node = Node::start(config, service).await.expect("the node starts");
    TestNode {
        events: node.events(),
        node,
        registry,
        cancelled,
    }
}

impl TestNode {
    pub(crate) fn id(&self) -> NodeId {
        self.node.id()
    }

    pub(crate) async fn link_to(&self, peer: &Self) -> Link {
        let link = self.node.link(peer.id(), peer.node.role()).await;
        link.expect("the nodes link")
    }

    /// Waits for the next event.
    pub(crate) async fn event(&mut self) -> LinkEvent {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("an event in time").expect("not lagging")
    }

    /// Waits until the link to a peer is up on this side too.
    pub(crate) async fn up(&mut self, peer: NodeId) -> Link {
        loop {
            if let Some(link) = self.node.linked(&peer) {
                return link;
            }
            self.event().await;
        }
    }

    /// Waits for the link to a peer to go down; the reason.
    pub(crate) async fn down(&mut self, id: NodeId) -> String {
        loop {
            match self.event().await {
                LinkEvent::Down { peer, reason } if peer.id == id => return reason,
                _ => {}
            }
        }
    }

    /// Waits until a counter of refusals stands at `count`.
    pub(crate) async fn refusals(&self, code: &str, count: usize) {
        let line = format!("tether_net_refusals_total{{code=\"{code}\"}} {count}");
        self.metric(&line).await;
    }

    /// Waits until a line is in the metrics.
    pub(crate) async fn metric(&self, line: &str) {
        let seen = async {
            while !self.registry.encode().lines().any(|l| l == line) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            panic!("{line} is not in\n{}", self.registry.encode());
        }
    }
}

/// Methods that do what their name says.
struct TestService {
    cancelled: mpsc::UnboundedSender<String>,
}

impl Service for TestService {
    fn serve(&self, mut call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let told = self.cancelled.clone();
        async move {
            match call.method() {
                "echo" => {
                    while let Some(item) = call.recv(ITEM_LIMIT).await? {
                        call.send(&item).await?;
                    }
                    Ok(())
                }
                "count" => {
                    let item = call.recv(16).await?.unwrap_or_default();
                    let count: u32 = String::from_utf8_lossy(&item).parse().expect("a number");
                    for n in 0..count {
                        call.send(n.to_string().as_bytes()).await?;
                    }
                    Ok(())
                }
                "who" => {
                    let peer = format!("{} {}", call.peer().role, call.peer().id);
                    call.send(peer.as_bytes()).await
                }
                "call-back" => {
                    let mut back = call.link().call("echo", None, b"from the callee").await?;
                    back.finish_sending().await;
                    let answer = back.next().await?.unwrap_or_default();
                    call.send(&answer).await
                }
                "hang" => {
                    call.send(b"hanging").await?;
                    call.cancelled().await;
                    let _ = told.send(call.method().to_owned());
                    Ok(())
                }
                "fail" => Err(RpcError::new(Code::Invalid, "no such model")
                    .with_param("model")
                    .with_retry_after_ms(1_500)),
                "panic" => panic!("as the test wants it"),
                other => Err(RpcError::new(
                    Code::Unimplemented,
                    format!("no method {other}"),
                )),
            }
        }
        .boxed()
    }
}
