//! The transport: QUIC by `iroh`, both ends authenticated by node key. (NET-4)
//!
//! Nothing outside of this module and [`crate::relay`] names `iroh`. Relays, address lookup and port
//! mapping of its makers are off: addresses come from the HyperDHT record (see [`crate::rendezvous`])
//! and are given to each dial, so that a peer without a record is told from one that does not answer.
//! Where the mesh has relays of its own (`relays`), a link goes through one until a hole is punched,
//! for which both sides are told how they are seen (`observed`).
//!
//! Settings, each found by running (docs/adr/0001):
//! * keep-alives go every 500 ms, so that silence means something: the count of datagrams that
//!   came tells a peer that was killed after 2 s, while the link itself lives for 15 s
//!   ([`crate::link::quiet`]);
//! * the window of a whole connection is unbounded by default: it is set;
//! * streams from the peer are limited a little above our own bound of calls, so that the call
//!   beyond it is answered with `overloaded` instead of waiting in the transport;
//! * unidirectional streams and datagrams are not used and therefore not allowed.

mod connection;
mod observed;
mod relays;

pub(crate) use connection::{CloseCode, Connection, RecvHalf, SendHalf, StreamError};
pub(crate) use relays::Relays;
pub use relays::{MAX_RELAYS, check_relay_url};

use crate::config::LinkLimits;
use crate::error::NetError;
use connection::{code_of_handshake, describe};
use iroh::endpoint::{
    ConnectError as IrohConnectError, ConnectWithOptsError, ConnectingError, ConnectionError,
    IncomingAddr, PortmapperConfig, QuicTransportConfig, TransportErrorCode, VarInt, presets,
};
use iroh::{EndpointAddr, EndpointId, SecretKey, TransportAddr, Watcher};
use observed::{Change, Observed};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tether_wire::link::ALPN;
use tether_wire::record::Record;
use tether_wire::{NodeId, NodeKey};

/// Streams above the bound of calls, on which `overloaded` is answered.
const SPARE_STREAMS: u32 = 64;
/// TLS alert `no_application_protocol` as a QUIC error: the other side speaks no version of ours.
const NO_COMMON_ALPN: u64 = 0x100 + 120;

/// Why a dial failed.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// No common version.
    Version(String),
    /// Turned away before the handshake: too many links there.
    Busy,
    /// Everything else.
    Failed(String),
}

/// Why an incoming handshake failed.
#[derive(Debug)]
pub(crate) enum ArriveError {
    /// No common version.
    Version(String),
    /// Everything else; strangers cause it at will.
    Failed(String),
}

/// The QUIC endpoint of a node.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    inner: iroh::Endpoint,
    listen: SocketAddr,
    relays: Relays,
    observed: Arc<Mutex<Observed>>,
}

impl Endpoint {
    /// Binds the endpoint.
    pub(crate) async fn bind(
        key: &NodeKey,
        listen: SocketAddr,
        limits: &LinkLimits,
        relays: Relays,
    ) -> Result<Self, NetError> {
        let refused = |why: String| NetError::Listen {
            address: listen,
            why,
        };
        let inner = iroh::Endpoint::builder(presets::Minimal)
            .secret_key(SecretKey::from_bytes(&key.seed()))
            .alpns(vec![ALPN.to_vec()])
            .relay_mode(relays.mode())
            .portmapper_config(PortmapperConfig::Disabled)
            .transport_config(transport_config(limits).map_err(NetError::Config)?)
            .clear_ip_transports()
            .bind_addr(listen)
            .map_err(|error| refused(error.to_string()))?
            .bind()
            .await
            .map_err(|error| refused(format!("{error:#}")))?;
        Ok(Self {
            inner,
            listen,
            relays,
            observed: Arc::default(),
        })
    }

    /// Where it can be reached, as far as this machine knows.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        if self.listen.ip().is_unspecified() {
            let found: Vec<_> = self.inner.addr().ip_addrs().copied().collect();
            if found.is_empty() {
                // A machine without a network still has itself.
                return self.on_loopback();
            }
            found
        } else {
            let mut bound = self.inner.bound_sockets();
            bound.retain(|address| address.ip() == self.listen.ip());
            bound.extend(self.observed().addresses());
            bound
        }
    }

    /// The relay over which it can be reached now, where the mesh has any.
    pub(crate) fn relay(&self) -> Option<String> {
        if self.relays.is_empty() {
            return None;
        }
        let url = self.inner.addr().relay_urls().next().cloned();
        url.map(|url| url.to_string())
    }

    /// Looks at this machine's own addresses: where it has moved, others' words of it are over.
    pub(crate) async fn look_around(&self) {
        let change = {
            let mut observed = self.observed();
            let told = observed.addresses();
            let mut own: BTreeSet<_> = self.inner.addr().ip_addrs().copied().collect();
            own.retain(|address| !told.contains(address));
            observed.local(own)
        };
        self.publish(change).await;
    }

    /// A peer that is believed says at which address it sees this node. [T-LNK-8]
    pub(crate) async fn observed_by(&self, peer: NodeId, address: SocketAddr) {
        self.look_around().await;
        let change = self.observed().told(peer, address);
        self.publish(change).await;
    }

    /// A peer is linked no more.
    pub(crate) async fn unlinked(&self, peer: &NodeId) {
        let change = self.observed().gone(peer);
        self.publish(change).await;
    }

    async fn publish(&self, change: Change) {
        for address in change.added {
            tracing::debug!(%address, "a peer sees this node here");
            self.inner.add_external_addr(address).await;
        }
        for address in change.removed {
            self.inner.remove_external_addr(&address).await;
        }
    }

    fn observed(&self) -> std::sync::MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_loopback(&self) -> Vec<SocketAddr> {
        let own: IpAddr = match self.listen.ip() {
            IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        let bound = self.inner.bound_sockets();
        let ports = bound.iter().map(|socket| socket.port());
        ports.map(|port| SocketAddr::new(own, port)).collect()
    }

    /// Waits until the addresses of this machine may have changed.
    pub(crate) async fn addresses_changed(&self) {
        let mut watch = self.inner.watch_addr();
        if watch.updated().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Dials a peer at the addresses of its record, and through its relay if that is one of ours.
    pub(crate) async fn connect(
        &self,
        peer: NodeId,
        record: &Record,
    ) -> Result<Connection, ConnectError> {
        let id = EndpointId::from_bytes(&peer.0)
            .map_err(|_| ConnectError::Failed("its id is not an Ed25519 key".to_owned()))?;
        let relay = self.relays.known(record.relay.as_deref());
        let addresses = record.addresses.iter().copied().map(TransportAddr::Ip);
        let address =
            EndpointAddr::from_parts(id, addresses.chain(relay.map(TransportAddr::Relay)));
        match self.inner.connect(address, ALPN).await {
            Ok(connection) => Ok(Connection::new(connection)),
            Err(IrohConnectError::Connect {
                source: ConnectWithOptsError::NoAddress { .. },
                ..
            }) => Err(ConnectError::Failed(
                "its record holds no address".to_owned(),
            )),
            Err(
                IrohConnectError::Connection { source, .. }
                | IrohConnectError::Connecting {
                    source: ConnectingError::ConnectionError { source, .. },
                    ..
                },
            ) => Err(connect_error(&source)),
            Err(error) => Err(ConnectError::Failed(format!("{error:#}"))),
        }
    }

    /// The next connection that somebody tries to make; nothing once the endpoint is closed.
    pub(crate) async fn accept(&self) -> Option<Arriving> {
        self.inner.accept().await.map(Arriving)
    }

    /// Closes the endpoint and all its connections.
    pub(crate) async fn close(&self) {
        self.inner.close().await;
    }
}

fn transport_config(limits: &LinkLimits) -> Result<QuicTransportConfig, String> {
    let idle = limits
        .idle_timeout
        .try_into()
        .map_err(|_| "`idle_timeout` is too long".to_owned())?;
    let streams = limits.max_calls_per_link.saturating_add(SPARE_STREAMS);
    Ok(QuicTransportConfig::builder()
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(limits.keep_alive)
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(limits.stream_window_bytes))
        .receive_window(VarInt::from_u32(limits.link_window_bytes))
        .send_window(u64::from(limits.link_window_bytes))
        .build())
}

fn connect_error(error: &ConnectionError) -> ConnectError {
    match code_of_handshake(error) {
        Some(NO_COMMON_ALPN) => ConnectError::Version(
            "there is no protocol version in common; bring both nodes to one major version".into(),
        ),
        Some(code) if code == u64::from(TransportErrorCode::CONNECTION_REFUSED) => {
            ConnectError::Busy
        }
        _ => ConnectError::Failed(describe(error)),
    }
}

/// A connection that somebody tries to make. Nothing was spent on it yet.
#[derive(Debug)]
pub(crate) struct Arriving(iroh::endpoint::Incoming);

impl Arriving {
    /// Where it claims to come from; nothing where it comes by another way than IP.
    pub(crate) fn remote_ip(&self) -> Option<IpAddr> {
        match self.0.remote_addr() {
            IncomingAddr::Ip(address) => Some(address.ip()),
            _ => None,
        }
    }

    /// Whether it has proved that it receives what is sent to its address.
    pub(crate) fn is_validated(&self) -> bool {
        self.0.remote_addr_validated()
    }

    /// Asks it for that proof; costs us no memory.
    pub(crate) fn ask_for_proof(self) {
        // It fails only for one that has given the proof, and callers have asked before.
        let _ = self.0.retry();
    }

    /// Turns it away, before the handshake.
    pub(crate) fn refuse(self) {
        self.0.refuse();
    }

    /// Does the handshake.
    pub(crate) async fn complete(self) -> Result<Connection, ArriveError> {
        match self.0.await {
            Ok(connection) => Ok(Connection::new(connection)),
            Err(ConnectingError::ConnectionError { source, .. }) => {
                Err(match code_of_handshake(&source) {
                    Some(NO_COMMON_ALPN) => ArriveError::Version(
                        "it offers no protocol version that this node speaks (tether/1)".into(),
                    ),
                    _ => ArriveError::Failed(describe(&source)),
                })
            }
            Err(error) => Err(ArriveError::Failed(format!("{error:#}"))),
        }
    }
}
