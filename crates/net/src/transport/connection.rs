//! One connection and its streams, in the words of this crate.

use bytes::Bytes;
use iroh::TransportAddr;
use iroh::endpoint::{
    ConnectionError, ReadError, RecvStream, SendStream, TransportErrorCode, VarInt, WriteError,
};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tether_wire::NodeId;
use tether_wire::link::RefusalCode;

/// Why a connection is closed, as it goes over the wire. [T-LNK-7]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum CloseCode {
    /// The node stops.
    Done = 0,
    /// The greeting was refused.
    Refused = 1,
    /// Another link to the same peer is kept.
    Duplicate = 2,
    /// The peer's grant is over.
    Expired = 3,
    /// The node lives and needs this link no more.
    Surplus = 4,
    /// The peer's key or grant was revoked, or its key replaced.
    Revoked = 5,
}

impl CloseCode {
    /// The code for a refusal.
    pub(crate) fn of(refusal: RefusalCode) -> Self {
        match refusal {
            RefusalCode::Revoked => Self::Revoked,
            RefusalCode::Expired => Self::Expired,
            _ => Self::Refused,
        }
    }

    /// The refusal that a code stands for, where a connection ends with it before it is a link.
    pub(crate) fn refusal(code: u64) -> Option<RefusalCode> {
        match code {
            _ if code == Self::Refused as u64 => Some(RefusalCode::Other),
            _ if code == Self::Expired as u64 => Some(RefusalCode::Expired),
            _ if code == Self::Revoked as u64 => Some(RefusalCode::Revoked),
            _ => None,
        }
    }
}

/// What can go wrong on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// The connection is gone.
    Broken(String),
    /// The other side gave up its half: reset what it sends, or stopped what it reads.
    GaveUp,
    /// This half is already over.
    Over,
}

/// A connection to a peer whose key is proved.
#[derive(Clone, Debug)]
pub(crate) struct Connection(iroh::endpoint::Connection);

impl Connection {
    pub(super) fn new(inner: iroh::endpoint::Connection) -> Self {
        Self(inner)
    }

    /// The peer's key.
    pub(crate) fn peer(&self) -> NodeId {
        NodeId(*self.0.remote_id().as_bytes())
    }

    /// Opens a stream. Waits while the peer allows no more.
    pub(crate) async fn open(&self) -> Result<(SendHalf, RecvHalf), StreamError> {
        let (send, recv) = self.0.open_bi().await.map_err(|e| broken(&e))?;
        Ok((SendHalf(send), RecvHalf(recv)))
    }

    /// The next stream that the peer opens.
    pub(crate) async fn accept(&self) -> Result<(SendHalf, RecvHalf), StreamError> {
        let (send, recv) = self.0.accept_bi().await.map_err(|e| broken(&e))?;
        Ok((SendHalf(send), RecvHalf(recv)))
    }

    /// Closes it and tells the peer why.
    pub(crate) fn close(&self, code: CloseCode, reason: &str) {
        self.0
            .close(VarInt::from_u32(code as u32), reason.as_bytes());
    }

    /// Waits until it is closed; the peer's code, where it gave one, and the reason in words.
    pub(crate) async fn closed(&self) -> (Option<u64>, String) {
        let error = self.0.closed().await;
        let code = match &error {
            ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
            _ => None,
        };
        (code, describe(&error))
    }

    /// Datagrams that have come on it. A stranger cannot raise the count: it would have to know the
    /// connection's ids.
    pub(crate) fn datagrams_received(&self) -> u64 {
        self.0.stats().udp_rx.datagrams
    }

    /// Time to the peer and back, as of late, on the way that is used; nothing where none is chosen yet.
    pub(crate) fn round_trip(&self) -> Duration {
        let paths = self.0.paths();
        let selected = paths.iter().find(|path| path.is_selected());
        selected.map(|path| path.rtt()).unwrap_or_default()
    }

    /// Where its peer is seen; nothing while what is sent goes through a relay.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        let paths = self.0.paths();
        let selected = paths.iter().find(|path| path.is_selected())?;
        match selected.remote_addr() {
            TransportAddr::Ip(address) => Some(*address),
            _ => None,
        }
    }

    /// Whether what is sent goes through a relay now.
    pub(crate) fn is_relayed(&self) -> bool {
        let paths = self.0.paths();
        let mut selected = paths.iter().filter(|path| path.is_selected());
        selected.any(|path| path.is_relay())
    }

    /// Whether it is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.close_reason().is_some()
    }
}

/// The sending half of a stream. Dropping it says that nothing more comes.
#[derive(Debug)]
pub(crate) struct SendHalf(SendStream);

impl SendHalf {
    /// Sends all of it. Not cancel-safe.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        self.0.write_all(bytes).await.map_err(|error| match error {
            WriteError::Stopped(_) => StreamError::GaveUp,
            WriteError::ConnectionLost(error) => broken(&error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => StreamError::Over,
        })
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&mut self) {
        // It fails only where this half is already over.
        let _ = self.0.finish();
    }

    /// Takes back what was not delivered and gives up.
    pub(crate) fn reset(&mut self) {
        let _ = self.0.reset(VarInt::from_u32(0));
    }

    /// Waits until the peer wants nothing more, has everything, or is gone. `true`: it gave up or is gone.
    pub(crate) fn gave_up(&self) -> impl Future<Output = bool> + Send + use<> {
        let stopped = self.0.stopped();
        async move { !matches!(stopped.await, Ok(None)) }
    }
}

/// The receiving half of a stream. Dropping it tells the peer to stop.
#[derive(Debug)]
pub(crate) struct RecvHalf(RecvStream);

impl RecvHalf {
    /// What has come, at most `limit` bytes; nothing at the end. Cancel-safe.
    pub(crate) async fn read_chunk(&mut self, limit: usize) -> Result<Option<Bytes>, StreamError> {
        self.0.read_chunk(limit).await.map_err(|error| match error {
            ReadError::Reset(_) => StreamError::GaveUp,
            ReadError::ConnectionLost(error) => broken(&error),
            ReadError::ClosedStream | ReadError::ZeroRttRejected => StreamError::Over,
        })
    }

    /// Tells the peer that nothing more is read.
    pub(crate) fn stop(&mut self) {
        let _ = self.0.stop(VarInt::from_u32(0));
    }
}

fn broken(error: &ConnectionError) -> StreamError {
    StreamError::Broken(describe(error))
}

/// A transport's error in words for a person.
pub(super) fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::TimedOut => "no sign of life from the other side".to_owned(),
        ConnectionError::LocallyClosed => "closed by this node".to_owned(),
        ConnectionError::Reset => "the other side was restarted".to_owned(),
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            let reason: String = reason
                .chars()
                .filter(|c| !c.is_control())
                .take(300)
                .collect();
            if reason.is_empty() {
                "closed by the other side".to_owned()
            } else {
                format!("closed by the other side: {reason}")
            }
        }
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            "turned away by the other side".to_owned()
        }
        other => other.to_string(),
    }
}

/// The QUIC error code of a handshake that failed.
pub(super) fn code_of_handshake(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::TransportError(error) => Some(error.code.into()),
        ConnectionError::ConnectionClosed(close) => Some(close.error_code.into()),
        _ => None,
    }
}
