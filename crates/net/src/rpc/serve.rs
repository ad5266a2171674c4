//! From a stream that a peer opened to a call of the service, and its end.

use super::frame::Frame;
use super::incoming::{Incoming, Service};
use super::outcome;
use super::stream::{FrameReader, FrameWriter, ReadFault};
use crate::link::Link;
use crate::transport::{RecvHalf, SendHalf};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::Direction;
use tether_wire::codec;
use tether_wire::rpc::{CallHead, Code, Kind, RpcError, method};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Most bytes of a call's head.
const MAX_HEAD_BYTES: usize = 4_096;
/// Longest name of a method.
const MAX_METHOD_BYTES: usize = 64;
/// Most bytes of an error's message: it may quote what a stranger sent.
const MAX_MESSAGE_BYTES: usize = 4_096;
/// Longest time to get the end of a call to a caller that does not read.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the call on one stream, from its head to its end.
pub(crate) async fn serve(link: Link, service: Arc<dyn Service>, send: SendHalf, recv: RecvHalf) {
    let mut reader = FrameReader::new(recv);
    let writer = Arc::new(Mutex::new(FrameWriter::new(send)));
    let Some(_permit) = link.call_permit() else {
        let limit = link.limits().max_calls_per_link;
        let error = RpcError::new(
            Code::Overloaded,
            format!("{limit} calls are open on this link, no more are allowed"),
        );
        return end(&writer, Err(error)).await;
    };
    let head = tokio::time::timeout(link.limits().head_timeout, reader.next(MAX_HEAD_BYTES)).await;
    let head = match head {
        Ok(read) => decode_head(read),
        Err(_) => Err("no head within the time allowed".to_owned()),
    };
    let head = match head {
        Ok(head) => head,
        Err(why) => {
            let error = RpcError::new(Code::Invalid, format!("not a call: {why}"));
            return end(&writer, Err(error)).await;
        }
    };
    let mut metrics = link.metrics().call(&head.method, Direction::Incoming);
    if head.method == method::PING {
        metrics.ended("ok");
        return end(&writer, Ok(())).await;
    }
    let method = head.method.clone();
    let deadline = head
        .timeout_ms
        .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
    let gave_up = writer.lock().await.gave_up();
    let incoming = Incoming::new(
        link.clone(),
        head,
        reader,
        writer.clone(),
        deadline,
        gave_up,
    );
    let served = AssertUnwindSafe(async move { service.serve(incoming).await })
        .catch_unwind()
        .await;
    let result = served.unwrap_or_else(|_| {
        tracing::error!(method, peer = %link.peer().id, "the service panicked");
        let error = RpcError::new(Code::Internal, "the call failed by a fault of the callee");
        Err(error)
    });
    // A service that stopped because the time is over must not look like one that is done.
    let result = match (result, deadline) {
        (Ok(()), Some(deadline)) if deadline <= Instant::now() => {
            Err(RpcError::new(Code::Deadline, "not done in time"))
        }
        (result, _) => result,
    };
    metrics.ended(outcome(&result));
    end(&writer, result).await;
}

fn decode_head(read: Result<Option<Frame>, ReadFault>) -> Result<CallHead, String> {
    match read {
        Ok(Some(frame)) if frame.kind == Kind::Call => {
            let head: CallHead = codec::decode("head of a call", &frame.payload, MAX_HEAD_BYTES)
                .map_err(|error| error.to_string())?;
            if head.method.is_empty() || head.method.len() > MAX_METHOD_BYTES {
                return Err(format!(
                    "its method's name has {} bytes, 1 to {MAX_METHOD_BYTES} are allowed",
                    head.method.len()
                ));
            }
            Ok(head)
        }
        Ok(Some(frame)) => Err(format!("it begins with a frame of kind {:?}", frame.kind)),
        Ok(None) => Err("it is empty".to_owned()),
        Err(ReadFault::NotAFrame(why)) => Err(why.to_string()),
        Err(ReadFault::Truncated) => Err("it ends inside its head".to_owned()),
        Err(ReadFault::Stream(_)) => Err("it was given up".to_owned()),
    }
}

/// Sends the end of a call. Who has gone is told nothing.
async fn end(writer: &Mutex<FrameWriter>, result: Result<(), RpcError>) {
    let mut writer = writer.lock().await;
    let (kind, payload) = match result {
        Ok(()) => (Kind::End, Vec::new()),
        Err(mut error) => {
            let mut at = error.message.len().min(MAX_MESSAGE_BYTES);
            while !error.message.is_char_boundary(at) {
                at -= 1;
            }
            error.message.truncate(at);
            (Kind::Error, codec::encode(&error))
        }
    };
    let sent = tokio::time::timeout(END_TIMEOUT, writer.frame(kind, &payload)).await;
    if matches!(sent, Ok(Ok(_))) {
        writer.finish();
    } else {
        writer.reset();
    }
}
