//! A link to one peer: admitted by both sides, open to calls in both directions.

use crate::rpc::Call;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::link::Peer;
use tether_wire::rpc::{Code, RpcError};

/// What happens to links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A peer was admitted, and its link can be used.
    Up(Peer),
    /// The link to a peer is gone.
    Down {
        /// Who it was.
        peer: Peer,
        /// Why, for people.
        reason: String,
    },
}

/// A link. Either side opens calls on it, whoever dialled.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    peer: Peer,
}

impl Link {
    /// The other side, as it was admitted.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.inner.peer
    }

    /// Opens a call; `body`, when not empty, is sent as its first item. A call that is dropped is cancelled.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the link is broken, [`Code::Overloaded`] when the peer allows no
    /// more calls on it.
    pub async fn call(
        &self,
        method: &str,
        _timeout: Option<Duration>,
        _body: &[u8],
    ) -> Result<Call, RpcError> {
        Err(RpcError::new(Code::Unavailable, method))
    }

    /// Whether it can be used.
    #[must_use]
    pub fn is_up(&self) -> bool {
        false
    }

    /// Closes it; the other side is told the reason.
    pub fn close(&self, _reason: &str) {}

    /// Waits until it is down, and says why.
    pub async fn closed(&self) -> String {
        String::new()
    }
}
