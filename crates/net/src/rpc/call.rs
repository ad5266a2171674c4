//! A call, on the caller's side.

use super::frame::{self, Frame, MAX_ITEM_BYTES};
use super::link_broke;
use super::stream::{FrameReader, FrameWriter, ReadFault};
use crate::link::Link;
use crate::transport::StreamError;
use std::collections::VecDeque;
use std::time::Duration;
use tether_telemetry::metrics::Direction;
use tether_telemetry::metrics::net::CallGuard;
use tether_telemetry::trace::current_traceparent;
use tether_wire::codec;
use tether_wire::rpc::{CallHead, Code, Kind, MAX_FRAME_BYTES, RpcError};
use tokio::time::{Instant, timeout_at};

/// Longest time to open a stream. The peer allows more streams than calls, so that this is only
/// reached when it does not work at all.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// When a send finds the call ended, how long and how many items it looks ahead for the reason.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(1);
const VERDICT_ITEMS: usize = 256;

/// An open call, on the caller's side. Dropping it cancels it, unless it is over.
pub struct Call {
    link: Link,
    writer: FrameWriter,
    reader: FrameReader,
    deadline: Option<Instant>,
    timeout: Option<Duration>,
    /// Items read while looking for the end.
    ahead: VecDeque<Vec<u8>>,
    /// How it ended, once it did.
    over: Option<Result<(), RpcError>>,
    metrics: CallGuard,
}

/// Opens a call.
pub(crate) async fn open(
    link: &Link,
    method: &str,
    timeout: Option<Duration>,
    body: &[u8],
) -> Result<Call, RpcError> {
    check_size(body)?;
    let mut metrics = link.metrics().call(method, Direction::Outgoing);
    let head = CallHead {
        method: method.to_owned(),
        timeout_ms: timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX)),
        traceparent: current_traceparent(),
    };
    let mut first = Vec::new();
    frame::put(&mut first, Kind::Call, &codec::encode(&head));
    if !body.is_empty() {
        frame::put(&mut first, Kind::Item, body);
    }
    let now = Instant::now();
    let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
    let open_by = now + OPEN_TIMEOUT;
    let opened = timeout_at(deadline.map_or(open_by, |d| d.min(open_by)), async {
        let (send, recv) = link.connection().open().await?;
        let mut writer = FrameWriter::new(send);
        match writer.raw(&first).await {
            // A callee that has already answered says why in what we read.
            Ok(_) | Err(StreamError::GaveUp) => Ok((writer, FrameReader::new(recv))),
            Err(error) => Err(error),
        }
    })
    .await;
    let error = match opened {
        Ok(Ok((writer, reader))) => {
            link.metrics()
                .bytes(Direction::Outgoing, first.len() as u64);
            link.call_begins();
            return Ok(Call {
                link: link.clone(),
                writer,
                reader,
                deadline,
                timeout,
                ahead: VecDeque::new(),
                over: None,
                metrics,
            });
        }
        Ok(Err(StreamError::Broken(why))) => link_broke(link.peer(), &link.why(why)),
        Ok(Err(_)) => link_broke(link.peer(), "the call could not be opened"),
        Err(_) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => over_time(timeout),
        Err(_) => RpcError::new(
            Code::Overloaded,
            format!(
                "{} {} takes no more calls on this link",
                link.peer().role,
                link.peer().id.short()
            ),
        ),
    };
    metrics.ended(error.code.as_str());
    Err(error)
}

fn check_size(item: &[u8]) -> Result<(), RpcError> {
    if item.len() <= MAX_ITEM_BYTES {
        return Ok(());
    }
    let len = item.len();
    Err(RpcError::new(
        Code::Invalid,
        format!("an item of {len} bytes cannot be sent, at most {MAX_ITEM_BYTES} are allowed"),
    ))
}

fn over_time(timeout: Option<Duration>) -> RpcError {
    let ms = timeout.map_or(0, |timeout| timeout.as_millis());
    RpcError::new(Code::Deadline, format!("not done within {ms} ms"))
}

impl Call {
    /// The link that it goes over.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Sends an item. Not cancel-safe: a send that is dropped tears the call.
    ///
    /// # Errors
    /// When the callee has ended the call, with its error; when the link is broken or the time over.
    pub async fn send(&mut self, item: &[u8]) -> Result<(), RpcError> {
        check_size(item)?;
        if let Some(over) = &self.over {
            return Err(ended(over));
        }
        let sent = match self.deadline {
            Some(at) => timeout_at(at, self.writer.frame(Kind::Item, item)).await,
            None => Ok(self.writer.frame(Kind::Item, item).await),
        };
        match sent {
            Ok(Ok(bytes)) => {
                self.link.metrics().bytes(Direction::Outgoing, bytes);
                Ok(())
            }
            Ok(Err(StreamError::GaveUp)) => Err(self.verdict().await),
            Ok(Err(StreamError::Broken(why))) => {
                let error = link_broke(self.link.peer(), &self.link.why(why));
                Err(self.fail(error))
            }
            Ok(Err(StreamError::Over)) => Err(RpcError::new(
                Code::Internal,
                "the sending side of this call is closed",
            )),
            Err(_) => Err(self.fail(over_time(self.timeout))),
        }
    }

    /// Says that no more items come from this side.
    pub async fn finish_sending(&mut self) {
        self.writer.finish();
    }

    /// The next item; nothing once the callee ended the call well. Cancel-safe.
    ///
    /// # Errors
    /// The callee's error; [`Code::Unavailable`] when the link broke or the callee gave up without
    /// a word; [`Code::Deadline`] when the time is over.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, RpcError> {
        if let Some(item) = self.ahead.pop_front() {
            return Ok(Some(item));
        }
        if let Some(over) = &self.over {
            return over.clone().map(|()| None);
        }
        let read = self.reader.next(MAX_FRAME_BYTES);
        let read = match self.deadline {
            Some(at) => timeout_at(at, read).await,
            None => Ok(read.await),
        };
        match read {
            Ok(read) => self.take(read),
            Err(_) => Err(self.fail(over_time(self.timeout))),
        }
    }

    fn take(
        &mut self,
        read: Result<Option<Frame>, ReadFault>,
    ) -> Result<Option<Vec<u8>>, RpcError> {
        let callee = |what: &str| {
            let peer = self.link.peer();
            let (role, id) = (peer.role, peer.id.short());
            RpcError::new(Code::Unavailable, format!("{role} {id} {what}"))
        };
        let error = match read {
            Ok(Some(Frame { kind, payload })) => {
                let bytes = (payload.len() + frame::HEADER_BYTES) as u64;
                self.link.metrics().bytes(Direction::Incoming, bytes);
                match kind {
                    Kind::Item => return Ok(Some(payload)),
                    Kind::End => {
                        self.metrics.ended("ok");
                        self.over = Some(Ok(()));
                        return Ok(None);
                    }
                    Kind::Error => codec::decode("error", &payload, MAX_FRAME_BYTES)
                        .unwrap_or_else(|why| callee(&format!("sent an unreadable error: {why}"))),
                    Kind::Call => callee("sent a call inside a call"),
                }
            }
            Ok(None) => callee("ended the call without a result"),
            Err(ReadFault::Truncated) => callee("ended the call inside a frame"),
            Err(ReadFault::NotAFrame(why)) => callee(&format!("sent what is no frame: {why}")),
            Err(ReadFault::Stream(StreamError::Broken(why))) => {
                link_broke(self.link.peer(), &self.link.why(why))
            }
            Err(ReadFault::Stream(StreamError::GaveUp | StreamError::Over)) => {
                callee("gave up the call")
            }
        };
        Err(self.fail(error))
    }

    /// The callee takes nothing more: it has ended the call, and says how in what it sent.
    async fn verdict(&mut self) -> RpcError {
        let until = Instant::now() + VERDICT_TIMEOUT;
        while self.over.is_none() && self.ahead.len() < VERDICT_ITEMS {
            let Ok(read) = timeout_at(until, self.reader.next(MAX_FRAME_BYTES)).await else {
                break;
            };
            if let Ok(Some(item)) = self.take(read) {
                self.ahead.push_back(item);
            }
        }
        match &self.over {
            Some(over) => ended(over),
            None => RpcError::new(Code::Cancelled, "the callee takes no more items"),
        }
    }

    /// Ends the call on this side.
    fn fail(&mut self, error: RpcError) -> RpcError {
        self.metrics.ended(error.code.as_str());
        self.over = Some(Err(error.clone()));
        self.cancel();
        error
    }

    fn cancel(&mut self) {
        self.writer.reset();
        self.reader.stop();
    }
}

/// What a send is told once the call is over.
fn ended(over: &Result<(), RpcError>) -> RpcError {
    match over {
        Err(error) => error.clone(),
        Ok(()) => RpcError::new(Code::Cancelled, "the callee has ended the call"),
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.over.is_none() {
            self.cancel();
        }
        self.link.call_ends();
    }
}
