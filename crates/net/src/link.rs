//! A link to one peer: admitted by both sides, open to calls in both directions.

pub(crate) mod greeting;
mod ping;
pub(crate) mod quiet;
pub(crate) mod rivals;

use crate::config::LinkLimits;
use crate::rpc::{self, Call};
use crate::transport::{CloseCode, Connection};
use ping::Ping;
use quiet::{Silence, Turn};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tether_telemetry::metrics::NetMetrics;
use tether_wire::link::{Hello, Peer};
use tether_wire::rpc::RpcError;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// What happens to links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A peer was admitted, and its link can be used.
    Up(Peer),
    /// Nothing was heard of a peer for a while: it may be dead. Its link is still up. [T-LNK-5]
    Quiet(Peer),
    /// A peer that was quiet is heard again.
    Lively(Peer),
    /// The link to a peer is gone.
    Down {
        /// Who it was.
        peer: Peer,
        /// Why, for people.
        reason: String,
        /// Whether the peer said that it needs the link no more: it lives.
        is_surplus: bool,
    },
}

impl LinkEvent {
    /// Whom it is about.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        match self {
            Self::Up(peer) | Self::Quiet(peer) | Self::Lively(peer) | Self::Down { peer, .. } => {
                peer
            }
        }
    }
}

/// A link. Either side opens calls on it, whoever dialled. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

/// A peer, and what it was admitted with.
pub(crate) struct Admitted {
    pub(crate) peer: Peer,
    /// Its sealed grant.
    pub(crate) grant: Option<Vec<u8>>,
    /// Its sealed invite.
    pub(crate) invite: Option<Vec<u8>>,
}

impl Admitted {
    pub(crate) fn new(peer: Peer, hello: Hello) -> Self {
        Self {
            peer,
            grant: hello.grant,
            invite: hello.invite,
        }
    }
}

struct Inner {
    admitted: Admitted,
    connection: Connection,
    origin: rivals::Origin,
    /// Where it was dialled; empty where the peer dialled.
    dialled_at: Vec<SocketAddr>,
    limits: Arc<LinkLimits>,
    metrics: Arc<NetMetrics>,
    incoming_calls: Arc<Semaphore>,
    outgoing_calls: AtomicUsize,
    /// Attempts to join.
    joins: AtomicUsize,
    silence: Mutex<Silence>,
    /// What `silence` came to.
    quiet: watch::Sender<bool>,
    ping: Mutex<Ping>,
    /// Told when it is time for another look.
    look: Arc<Notify>,
    down: CancellationToken,
    /// Why it went down; the first word counts.
    reason: OnceLock<String>,
}

impl Link {
    pub(crate) fn new(
        admitted: Admitted,
        connection: Connection,
        origin: rivals::Origin,
        dialled_at: Vec<SocketAddr>,
        limits: Arc<LinkLimits>,
        metrics: Arc<NetMetrics>,
        look: Arc<Notify>,
    ) -> Self {
        let incoming_calls = Arc::new(Semaphore::new(limits.max_calls_per_link as usize));
        Self {
            inner: Arc::new(Inner {
                admitted,
                connection,
                origin,
                dialled_at,
                limits,
                metrics,
                incoming_calls,
                outgoing_calls: AtomicUsize::new(0),
                joins: AtomicUsize::new(0),
                silence: Mutex::default(),
                quiet: watch::Sender::new(false),
                ping: Mutex::default(),
                look,
                down: CancellationToken::new(),
                reason: OnceLock::new(),
            }),
        }
    }

    /// Counts an attempt to join; says how many there were before.
    pub(crate) fn count_join(&self) -> usize {
        self.inner.joins.fetch_add(1, Ordering::Relaxed)
    }

    /// The other side, as it was admitted.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.inner.admitted.peer
    }

    /// Opens a call; `body`, when not empty, is sent as its first item. The current span's
    /// `traceparent` goes with it. A call that is dropped is cancelled.
    ///
    /// # Errors
    /// [`tether_wire::rpc::Code::Unavailable`] when the link is broken, `Overloaded` when the peer
    /// takes no more calls on it, `Deadline` when the time is over, `Invalid` when the body is too large.
    pub async fn call(
        &self,
        method: &str,
        timeout: Option<Duration>,
        body: &[u8],
    ) -> Result<Call, RpcError> {
        rpc::open(self, method, timeout, body).await
    }

    /// Whether it can be used.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.inner.down.is_cancelled() && !self.inner.connection.is_closed()
    }

    /// Whether nothing was heard on it of late: its peer may be dead, or starved. Nothing new should
    /// be asked of it where another can be asked. [T-LNK-5]
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        *self.inner.quiet.borrow()
    }

    /// Whether it goes through a relay: no direct way was found, or none yet.
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        self.inner.connection.is_relayed()
    }

    /// Waits until it is quiet or down, whichever comes first. Whoever has nothing to lose by asking
    /// elsewhere need not wait until it is down.
    pub fn until_quiet(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.until(true)
    }

    /// Closes it; the other side is told the reason.
    pub fn close(&self, reason: &str) {
        self.close_as(CloseCode::Done, reason);
    }

    /// Closes it because it is needed no more: no reason to doubt that this node lives.
    pub fn release(&self, reason: &str) {
        self.close_as(CloseCode::Surplus, reason);
    }

    /// Waits until it is down, and says why.
    pub async fn closed(&self) -> String {
        self.inner.down.cancelled().await;
        self.inner.reason.get().cloned().unwrap_or_default()
    }

    /// Waits until it is heard again, or down.
    pub(crate) fn until_lively(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.until(false)
    }

    fn until(&self, quiet: bool) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (mut turns, down) = (self.inner.quiet.subscribe(), self.inner.down.clone());
        async move {
            tokio::select! {
                () = down.cancelled() => {}
                // An error means that nobody holds the link any more, not even its node.
                _ = turns.wait_for(|now| *now == quiet) => {}
            }
        }
    }

    /// Nothing has come since `received_then` datagrams had come, though something should have.
    fn unanswered(&self, received_then: u64) {
        let inner = &self.inner;
        let mut silence = inner.silence.lock().unwrap_or_else(PoisonError::into_inner);
        silence.unanswered(received_then, inner.limits.quiet_after);
        inner.look.notify_one();
    }

    /// Looks whether something was heard, `passed` after the look before.
    pub(crate) fn look(&self, passed: Duration) -> Option<Turn> {
        let inner = &self.inner;
        let received = inner.connection.datagrams_received();
        let mut silence = inner.silence.lock().unwrap_or_else(PoisonError::into_inner);
        silence.look(received, passed, inner.limits.quiet_after)
    }

    /// Tells those who wait for it.
    pub(crate) fn turn(&self, turn: Turn) {
        self.inner.quiet.send_replace(turn == Turn::Quiet);
    }

    /// Closes it. Whether it is for this reason that it goes down: where one is known already, it is
    /// for that one.
    pub(crate) fn close_as(&self, code: CloseCode, reason: &str) -> bool {
        let is_first = self.inner.reason.set(reason.to_owned()).is_ok();
        self.inner.connection.close(code, reason);
        is_first
    }

    /// Marks it as down; the reason that counts.
    pub(crate) fn mark_down(&self, reason: String) -> String {
        let reason = self.inner.reason.get_or_init(|| reason).clone();
        self.inner.down.cancel();
        reason
    }

    /// The reason that is known on this side, or else what the transport says.
    pub(crate) fn why(&self, transport: String) -> String {
        self.inner.reason.get().cloned().unwrap_or(transport)
    }

    /// Whether both are the same link, and not one after the other to the same peer.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The sealed invite that the peer showed in its greeting.
    #[must_use]
    pub fn invite(&self) -> Option<Vec<u8>> {
        self.inner.admitted.invite.clone()
    }

    /// The sealed grant with which the peer was admitted.
    #[must_use]
    pub fn grant(&self) -> Option<&[u8]> {
        self.inner.admitted.grant.as_deref()
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    pub(crate) fn origin(&self) -> rivals::Origin {
        self.inner.origin
    }

    /// Whether the peer is at none of the addresses any more at which it was dialled.
    pub(crate) fn has_moved(&self, addresses: &[SocketAddr]) -> bool {
        let dialled_at = &self.inner.dialled_at;
        !dialled_at.is_empty() && !dialled_at.iter().any(|it| addresses.contains(it))
    }

    pub(crate) fn limits(&self) -> &LinkLimits {
        &self.inner.limits
    }

    pub(crate) fn metrics(&self) -> &Arc<NetMetrics> {
        &self.inner.metrics
    }

    pub(crate) fn down(&self) -> CancellationToken {
        self.inner.down.clone()
    }

    /// Whether no call is open on it, of either side.
    pub(crate) fn is_idle(&self) -> bool {
        let incoming = self.inner.incoming_calls.available_permits();
        incoming == self.inner.limits.max_calls_per_link as usize
            && self.inner.outgoing_calls.load(Ordering::Relaxed) == 0
    }

    /// A call of this side begins.
    pub(crate) fn call_begins(&self) {
        self.inner.outgoing_calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call of this side is over.
    pub(crate) fn call_ends(&self) {
        self.inner.outgoing_calls.fetch_sub(1, Ordering::Relaxed);
    }

    /// A place for one more call of the peer.
    pub(crate) fn call_permit(&self) -> Option<OwnedSemaphorePermit> {
        self.inner.incoming_calls.clone().try_acquire_owned().ok()
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (role, id) = (self.peer().role, self.peer().id.short());
        write!(f, "Link({role} {id}, up: {})", self.is_up())
    }
}
