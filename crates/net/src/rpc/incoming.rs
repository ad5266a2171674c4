//! A call, on the callee's side.

use super::frame::{self, MAX_ITEM_BYTES};
use super::link_broke;
use super::stream::{FrameReader, FrameWriter, ReadFault};
use crate::link::Link;
use crate::transport::StreamError;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::future::Future;
use std::sync::Arc;
use tether_telemetry::metrics::Direction;
use tether_wire::link::Peer;
use tether_wire::rpc::{CallHead, Code, Kind, RpcError};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What a node does with calls.
pub trait Service: Send + Sync + 'static {
    /// Serves one call. `Ok` ends it well, `Err` is sent to the caller. The future is not dropped
    /// when the caller cancels: it sees that by [`Incoming::cancelled`], and may have to tidy up.
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), RpcError>>;
}

/// A call that came in.
pub struct Incoming {
    link: Link,
    head: CallHead,
    reader: FrameReader,
    writer: Arc<Mutex<FrameWriter>>,
    cancelled: Shared<BoxFuture<'static, ()>>,
}

impl Incoming {
    pub(super) fn new(
        link: Link,
        head: CallHead,
        reader: FrameReader,
        writer: Arc<Mutex<FrameWriter>>,
        deadline: Option<Instant>,
        gave_up: impl Future<Output = bool> + Send + 'static,
    ) -> Self {
        let down = link.down();
        let cancelled = async move {
            let caller = async {
                if !gave_up.await {
                    // It has everything: there is nothing left to cancel.
                    std::future::pending::<()>().await;
                }
            };
            let time = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = caller => {}
                () = time => {}
                () = down.cancelled() => {}
            }
        }
        .boxed()
        .shared();
        Self {
            link,
            head,
            reader,
            writer,
            cancelled,
        }
    }

    /// Who calls.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        self.link.peer()
    }

    /// The link it came over; calls back go over it too.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What is called.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.head.method
    }

    /// The head of the call: method, time, trace. The service makes its span the child of
    /// `traceparent`.
    #[must_use]
    pub fn head(&self) -> &CallHead {
        &self.head
    }

    /// The next item, of at most `limit` bytes; nothing once the caller sends no more. Cancel-safe.
    ///
    /// # Errors
    /// [`Code::Invalid`] when the item is larger or no item, [`Code::Cancelled`] when the caller
    /// gave up, [`Code::Unavailable`] when the link broke.
    pub async fn recv(&mut self, limit: usize) -> Result<Option<Vec<u8>>, RpcError> {
        match self.reader.next(limit.min(MAX_ITEM_BYTES)).await {
            Ok(None) => Ok(None),
            Ok(Some(frame)) if frame.kind == Kind::Item => {
                let bytes = (frame.payload.len() + frame::HEADER_BYTES) as u64;
                self.link.metrics().bytes(Direction::Incoming, bytes);
                Ok(Some(frame.payload))
            }
            Ok(Some(frame)) => Err(RpcError::new(
                Code::Invalid,
                format!("expected an item, not a frame of kind {:?}", frame.kind),
            )),
            Err(ReadFault::NotAFrame(why)) => Err(RpcError::new(
                Code::Invalid,
                format!("expected an item: {why}"),
            )),
            Err(ReadFault::Truncated) => Err(RpcError::new(
                Code::Invalid,
                "the call's items end inside a frame",
            )),
            Err(ReadFault::Stream(error)) => Err(self.gone(error)),
        }
    }

    /// Sends an item. Waits while the caller reads slowly. Not cancel-safe: a send that is dropped
    /// tears the call.
    ///
    /// # Errors
    /// [`Code::Cancelled`] when the caller gave up, [`Code::Unavailable`] when the link broke.
    pub async fn send(&mut self, item: &[u8]) -> Result<(), RpcError> {
        if item.len() > MAX_ITEM_BYTES {
            let len = item.len();
            return Err(RpcError::new(
                Code::Internal,
                format!("an answer of {len} bytes cannot be sent: at most {MAX_ITEM_BYTES}"),
            ));
        }
        let sent = self.writer.lock().await.frame(Kind::Item, item).await;
        match sent {
            Ok(bytes) => {
                self.link.metrics().bytes(Direction::Outgoing, bytes);
                Ok(())
            }
            Err(error) => Err(self.gone(error)),
        }
    }

    /// Waits until the caller has cancelled, its time is over, or the link is lost.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.cancelled.clone()
    }

    fn gone(&self, error: StreamError) -> RpcError {
        match error {
            StreamError::Broken(why) => link_broke(self.peer(), &self.link.why(why)),
            StreamError::GaveUp => RpcError::new(Code::Cancelled, "the caller cancelled the call"),
            StreamError::Over => RpcError::new(Code::Cancelled, "the call is over"),
        }
    }
}
