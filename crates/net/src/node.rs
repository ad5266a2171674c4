//! A node: its key, its rendezvous, its endpoint and its links.

mod arrive;
mod bar;
mod dial;
mod links;
mod run;
mod watch;

use crate::config::{LinkLimits, NodeConfig};
use crate::error::{LinkError, NetError};
use crate::gate::Gate;
use crate::link::{Link, LinkEvent};
use crate::log_budget::LogBudget;
use crate::members::{Members, Reception};
use crate::rendezvous::Rendezvous;
use crate::rpc::Service;
use crate::topic_view::TopicView;
use crate::transport::{CloseCode, Endpoint, Relays};
use crate::uplinks::MAX_CONFIGURED;
use dial::Dials;
use links::Links;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tether_wire::grant::Mesh;
use tether_wire::link::Hello;
use tether_wire::record::Record;
use tether_wire::{NodeId, PROTOCOL_MAJOR, PROTOCOL_MINOR, Region, Role, Topic};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What this software calls itself in greetings.
pub(crate) const AGENT: &str = concat!("tether/", env!("CARGO_PKG_VERSION"));
/// Longest time to close links and endpoint.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A node. Cheap to clone; dropping clones does not stop it, [`Node::shutdown`] does.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

/// What the node's tasks share.
struct Inner {
    config: NodeConfig,
    limits: Arc<LinkLimits>,
    service: Arc<dyn Service>,
    endpoint: Endpoint,
    rendezvous: Rendezvous,
    links: Links,
    dials: Dials,
    gate: Gate,
    refusals: Mutex<LogBudget>,
    /// Random number of this run. [T-LNK-6]
    boot: u64,
    /// Told by links that are to be looked at before it is time.
    look: Arc<Notify>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// Starts a node: binds, joins the DHT, publishes its addresses, takes links. Bootstrap nodes
    /// that do not answer yet are no error: they are tried again for as long as it runs.
    ///
    /// # Errors
    /// When an address cannot be bound or the configuration contradicts itself.
    pub async fn start(config: NodeConfig, service: Arc<dyn Service>) -> Result<Self, NetError> {
        check(&config)?;
        let limits = Arc::new(config.limits.clone());
        // Boxed: the transport's future is large, and callers should not carry it.
        let relays = Relays::new(&config.relays, config.grant.as_deref());
        let relays = relays.map_err(NetError::Config)?;
        let endpoint = Endpoint::bind(&config.key, config.listen, &limits, relays);
        let endpoint = Box::pin(endpoint).await?;
        let rendezvous = Rendezvous::start(
            &config.key,
            config.dht_listen,
            config.bootstrap.clone(),
            config.metrics.clone(),
        )
        .await?;
        let service = Arc::new(Reception {
            members: config.members.clone(),
            service,
        });
        let inner = Arc::new(Inner {
            links: Links::new(config.key.id(), config.metrics.clone()),
            gate: Gate::new(limits.clone()),
            dials: Dials::default(),
            refusals: Mutex::new(LogBudget::new(Instant::now())),
            boot: rand::random_range(1..=u64::MAX),
            look: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            limits,
            service,
            endpoint,
            rendezvous,
            config,
        });
        inner.tasks.spawn(arrive::accept_links(inner.clone()));
        inner.tasks.spawn(watch::run(inner.clone()));
        inner.tasks.spawn(bar::run(inner.clone()));
        inner.rendezvous.publish(Addresses::of(&inner)).await;
        let node = Self { inner };
        tracing::info!(
            node = %node.id(), role = %node.inner.config.role, region = %node.region(),
            addresses = ?node.addresses(), "node started"
        );
        Ok(node)
    }

    /// Its key's public half.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.inner.id()
    }

    /// The mesh it belongs to.
    #[must_use]
    pub fn mesh(&self) -> Mesh {
        self.inner.config.members.mesh()
    }

    /// Who belongs to the mesh, as far as this node was told.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.inner.config.members
    }

    /// Where it stands.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.inner.config.region
    }

    /// The role in which it links.
    #[must_use]
    pub fn role(&self) -> Role {
        self.inner.config.role
    }

    /// Addresses of its endpoint, as published.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        Addresses::of(&self.inner).now()
    }

    /// Announces this node on a topic: now, then renewed every few minutes with jitter until
    /// withdrawn. A topic that is announced already stays so.
    ///
    /// # Errors
    /// When the first announcement fails; it is retried nevertheless until withdrawn.
    pub async fn announce(&self, topic: &Topic) -> Result<(), NetError> {
        let key = self.named_key(topic);
        self.inner.rendezvous.announce(key).await
    }

    /// Ends an announcement, also on the DHT.
    pub async fn withdraw(&self, topic: &Topic) {
        let key = self.mesh().topic_key(topic);
        self.inner.rendezvous.withdraw(key).await;
    }

    /// Keys announced on a topic, without this node's own. They have proved nothing: anybody can
    /// announce; the greeting of a link tells who is who.
    ///
    /// # Errors
    /// When the DHT does not answer.
    pub async fn lookup(&self, topic: &Topic) -> Result<Vec<NodeId>, NetError> {
        let key = self.named_key(topic);
        self.inner.rendezvous.lookup(key).await
    }

    /// The link to a peer of a role: the one there is, or a new one. Concurrent calls share one dial.
    /// Where the one there is is quiet the peer is dialled anew: it may have been restarted. The new
    /// link takes the place of the quiet one, unless that comes back to life meanwhile.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn link(&self, peer: NodeId, expect: Role) -> Result<Link, LinkError> {
        if peer == self.id() {
            return Err(LinkError::Oneself);
        }
        let link = match self.linked(&peer).filter(|link| !link.is_quiet()) {
            Some(link) => link,
            None => dial::shared(&self.inner, peer).await?,
        };
        let found = link.peer().role;
        if found == expect {
            Ok(link)
        } else {
            Err(LinkError::WrongRole {
                peer,
                expected: expect,
                found,
            })
        }
    }

    /// The link to a peer, where there is one; it may be quiet.
    #[must_use]
    pub fn linked(&self, peer: &NodeId) -> Option<Link> {
        self.inner.links.get(peer)
    }

    /// All links.
    #[must_use]
    pub fn links(&self) -> Vec<Link> {
        self.inner.links.all()
    }

    /// What this node announces and saw on topics, for people.
    #[must_use]
    pub fn topics(&self) -> Vec<TopicView> {
        let board = self.inner.rendezvous.board();
        let view = |(key, entry)| TopicView::new(key, entry, |id| self.linked(id).is_some());
        board.into_iter().map(view).collect()
    }

    /// The key of a topic, which is called by its name where [`Self::topics`] shows it.
    fn named_key(&self, topic: &Topic) -> tether_wire::TopicKey {
        let key = self.mesh().topic_key(topic);
        self.inner.rendezvous.name(key, topic.to_string());
        key
    }

    pub(crate) fn config(&self) -> &NodeConfig {
        &self.inner.config
    }

    /// Takes an address that was right once, for where the DHT knows none.
    pub(crate) fn remember(&self, peer: NodeId, seq: u64, addresses: &[SocketAddr]) {
        self.inner.rendezvous.remember(peer, seq, addresses);
    }

    /// The newest addresses that are known of a peer, and the sequence of the record they are from.
    pub(crate) fn remembered(&self, peer: &NodeId) -> Option<(u64, Vec<SocketAddr>)> {
        let known = self.inner.rendezvous.remembered(peer)?;
        Some((known.seq, known.record.addresses))
    }

    /// What happens to links from now on. A receiver that falls far behind misses events and is
    /// told so; [`Node::links`] has the truth.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<LinkEvent> {
        self.inner.links.events()
    }

    /// Withdraws from all topics, closes all links and the endpoint.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.stop.cancel();
        let close = async {
            for link in inner.links.all() {
                link.close_as(CloseCode::Done, "the node is shutting down");
            }
            if tokio::time::timeout(CLOSE_TIMEOUT, inner.endpoint.close())
                .await
                .is_err()
            {
                tracing::debug!("some peers did not acknowledge the end of their links");
            }
        };
        tokio::join!(inner.rendezvous.shutdown(), close);
        inner.tasks.close();
        // Services that go on without a link are not waited for.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, inner.tasks.wait()).await;
    }
}

impl Inner {
    fn id(&self) -> NodeId {
        self.config.key.id()
    }

    /// This node's greeting.
    fn hello(&self) -> Hello {
        Hello {
            major: PROTOCOL_MAJOR,
            minor: PROTOCOL_MINOR,
            mesh: self.config.members.mesh().id,
            role: self.config.role,
            region: self.config.region.clone(),
            grant: self.config.grant.clone(),
            invite: self.config.invite.clone(),
            agent: AGENT.to_owned(),
            boot: self.boot,
            observed: None,
        }
    }
}

fn check(config: &NodeConfig) -> Result<(), NetError> {
    let limits = &config.limits;
    if limits.keep_alive >= limits.quiet_after || limits.quiet_after >= limits.idle_timeout {
        return Err(NetError::Config(
            "`keep_alive` must be shorter than `quiet_after` and that shorter than `idle_timeout`, \
             or idle links are taken for dead"
                .to_owned(),
        ));
    }
    if limits.max_calls_per_link == 0 || limits.max_links == 0 || limits.max_greeting == 0 {
        return Err(NetError::Config("a bound of links is zero".to_owned()));
    }
    if config.uplinks.orchestrators.len() > MAX_CONFIGURED {
        return Err(NetError::Config(format!(
            "more than {MAX_CONFIGURED} orchestrators are named"
        )));
    }
    Ok(())
}

/// Where this node's addresses come from.
struct Addresses {
    endpoint: Endpoint,
    advertise: Vec<SocketAddr>,
}

impl Addresses {
    fn of(inner: &Inner) -> Self {
        Self {
            endpoint: inner.endpoint.clone(),
            advertise: inner.config.advertise.clone(),
        }
    }

    fn now(&self) -> Vec<SocketAddr> {
        if self.advertise.is_empty() {
            self.endpoint.addresses()
        } else {
            self.advertise.clone()
        }
    }
}

impl crate::rendezvous::AddressSource for Addresses {
    fn record(&self) -> Record {
        Record {
            v: 1,
            addresses: self.now(),
            relay: self.endpoint.relay(),
        }
    }

    fn changed(&self) -> futures_util::future::BoxFuture<'static, ()> {
        let endpoint = self.endpoint.clone();
        Box::pin(async move { endpoint.addresses_changed().await })
    }
}
