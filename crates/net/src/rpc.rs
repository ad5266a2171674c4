//! Calls over a link.

use crate::link::Link;
use futures_util::future::BoxFuture;
use std::future::Future;
use tether_wire::link::Peer;
use tether_wire::rpc::{CallHead, RpcError};

/// An open call, on the caller's side. Dropping it cancels it.
pub struct Call {
    _private: (),
}

impl Call {
    /// Sends an item.
    ///
    /// # Errors
    /// When the call or the link is over.
    pub async fn send(&mut self, _item: &[u8]) -> Result<(), RpcError> {
        Ok(())
    }

    /// Says that no more items come from this side.
    pub async fn finish_sending(&mut self) {}

    /// The next item; nothing once the other side ended the call well.
    ///
    /// # Errors
    /// The other side's error, or that the link broke or the time is over.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, RpcError> {
        Ok(None)
    }
}

/// What a node does with calls.
pub trait Service: Send + Sync + 'static {
    /// Serves one call. `Ok` ends it well, `Err` is sent to the caller.
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), RpcError>>;
}

/// A call that came in.
pub struct Incoming {
    link: Link,
    head: CallHead,
}

impl Incoming {
    /// Who calls.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.link.peer()
    }

    /// The link it came over.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What is called.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.head.method
    }

    /// The head of the call: method, time, trace.
    #[must_use]
    pub fn head(&self) -> &CallHead {
        &self.head
    }

    /// The next item, of at most `limit` bytes; nothing once the caller sends no more.
    ///
    /// # Errors
    /// When the item is larger, or the call was cancelled.
    pub async fn recv(&mut self, _limit: usize) -> Result<Option<Vec<u8>>, RpcError> {
        Ok(None)
    }

    /// Sends an item.
    ///
    /// # Errors
    /// When the caller is gone.
    pub async fn send(&mut self, _item: &[u8]) -> Result<(), RpcError> {
        Ok(())
    }

    /// Waits until the caller has cancelled, or the link is lost.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        std::future::pending()
    }
}
