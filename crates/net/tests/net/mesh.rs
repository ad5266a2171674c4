//! Nodes of a mesh of its own for each test, with what a test sees of them.

use futures_util::FutureExt;
use std::ops::Deref;
use std::sync::Arc;
use tether_net::testing::{self, LocalMesh};
pub(crate) use tether_net::testing::{PATIENCE, key};
use tether_net::{BoxFuture, Incoming, Link, LinkEvent, Node, NodeConfig, Service};
use tether_telemetry::metrics::Registry;
use tether_wire::grant::Access;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{NodeId, NodeKey, Role};
use tokio::sync::{broadcast, mpsc};

/// What a test gives up for when it sends an item that must not be taken.
pub(crate) const ITEM_LIMIT: usize = 64 * 1024;

/// A mesh and its nodes.
pub(crate) struct TestMesh(LocalMesh);

impl Deref for TestMesh {
    type Target = LocalMesh;

    fn deref(&self) -> &LocalMesh {
        &self.0
    }
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
        Self::with(Access::Invite)
    }

    pub(crate) fn with(access: Access) -> Self {
        Self(LocalMesh::new(access))
    }

    /// The configuration of a node that links with everybody.
    pub(crate) fn config(&self, role: Role) -> (NodeConfig, Registry) {
        self.config_of(key(), role)
    }

    pub(crate) fn config_of(&self, key: NodeKey, role: Role) -> (NodeConfig, Registry) {
        self.0.config(key, role)
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
                LinkEvent::Down { peer, reason, .. } if peer.id == id => return reason,
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
        testing::metric(&self.registry, line).await;
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
