//! Where an answer goes, and what its request occupies while the engine has it.

use crate::engine::board::Place;
use std::fmt;
use std::sync::Arc;
use tether_wire::infer::{
    CallDelta, Chunk, Finish, MAX_EVENT_BYTES, TokenLogprob, TopLogprob, Usage,
};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Chunks of one answer that may wait for their reader. A reader that is further behind is cut
/// off: the engine makes one step for all sequences and must never wait for one of them.
pub const MAX_WAITING_CHUNKS: usize = 1_024;
/// Bytes of memory that the waiting chunks of one answer may take. An engine that was taken over
/// could fill the worker's memory otherwise.
pub(super) const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of memory that one chunk may take: more than an event of it has on the wire.
pub(super) const MAX_CHUNK_BYTES: usize = 2 * MAX_EVENT_BYTES;

/// The end of an answer, as the engine tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineDone {
    /// Why it ended.
    pub finish: Finish,
    /// Exact counts.
    pub usage: Usage,
    /// Milliseconds from its turn in the engine to its first token.
    pub prefill_ms: u64,
    /// Milliseconds from the first token to the last.
    pub decode_ms: u64,
}

/// What a request occupies. It is dropped when nothing of the request is left in the engine, and
/// not when its reader goes: an engine in the middle of a long prompt lets go of it much later.
pub trait Hold: fmt::Debug + Send {
    /// The reader has gone, or was cut off, and the engine still has the request.
    fn leaving(&mut self);
}

/// Nothing is occupied.
impl Hold for () {
    fn leaving(&mut self) {}
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(super) reader: Reader,
    pub(super) occupied: Occupied,
    pub(super) told: Told,
}

/// What a request occupies: a place with a process, while it is with one, and whatever its caller gave
/// it. In this order, so that who comes next because of the second finds the first free.
#[derive(Debug)]
pub(crate) struct Occupied {
    place: Option<Place>,
    hold: Box<dyn Hold>,
}

/// What the reader was told by a process that ended since. It is not told again, and not otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Tokens of the prompt.
    pub(super) prompt_tokens: Option<u32>,
    /// Up to which position, of what was given before the request.
    pub(super) retold: u32,
}

/// Who reads an answer.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Taken when the engine turned to the request, or gave a piece without saying so.
    pub(super) begun: Option<oneshot::Sender<u32>>,
    chunks: mpsc::Sender<Waiting>,
    /// Room for what waits, in bytes.
    room: Arc<Semaphore>,
    end: oneshot::Sender<Result<EngineDone, RpcError>>,
}

/// Where an answer comes from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) begun: oneshot::Receiver<u32>,
    chunks: mpsc::Receiver<Waiting>,
    pub(crate) end: oneshot::Receiver<Result<EngineDone, RpcError>>,
}

/// A chunk that waits, and the room that it takes until it is read.
#[derive(Debug)]
pub(crate) struct Waiting {
    chunk: Chunk,
    _room: OwnedSemaphorePermit,
}

pub(crate) fn channel(hold: Box<dyn Hold>) -> (Sink, Source) {
    let (chunks, chunks_receiver) = mpsc::channel(MAX_WAITING_CHUNKS);
    let (begun, begun_receiver) = oneshot::channel();
    let (end, end_receiver) = oneshot::channel();
    let source = Source {
        begun: begun_receiver,
        chunks: chunks_receiver,
        end: end_receiver,
    };
    let reader = Reader {
        begun: Some(begun),
        chunks,
        room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
        end,
    };
    let sink = Sink {
        reader,
        occupied: Occupied { place: None, hold },
        told: Told::default(),
    };
    (sink, source)
}

impl Occupied {
    /// It is with this process now.
    pub(super) fn sit(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// It is with no process any more.
    pub(super) fn leave_place(&mut self) {
        self.place = None;
    }

    pub(super) fn leaving(&mut self) {
        self.hold.leaving();
    }
}

impl Sink {
    /// The request never reaches the engine, or is not in it any more. Who learns of it finds the
    /// place free.
    pub(crate) fn fail(self, error: RpcError) {
        drop(self.occupied);
        self.reader.end(Err(error));
    }

    /// Whether the reader went before the engine heard of the request.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reader.end.is_closed()
    }
}

impl Source {
    /// The next piece; nothing behind the last.
    pub(crate) async fn chunk(&mut self) -> Option<Chunk> {
        self.chunks.recv().await.map(|waiting| waiting.chunk)
    }

    /// The pieces that came already. They take their room until all of them are taken, so that no
    /// more come than there was room for.
    pub(crate) fn given(&mut self) -> Vec<Chunk> {
        let given: Vec<_> = std::iter::from_fn(|| self.chunks.try_recv().ok())
            .take(MAX_WAITING_CHUNKS)
            .collect();
        given.into_iter().map(|waiting| waiting.chunk).collect()
    }
}

impl Reader {
    /// Passes a piece on; an error is why there can be no more of them.
    pub(super) fn give(&self, chunk: Chunk) -> Result<(), RpcError> {
        let bytes = size_of_chunk(&chunk);
        if bytes > MAX_CHUNK_BYTES {
            let why = format!(
                "the engine made a piece of {bytes} bytes, more than the limit of {MAX_CHUNK_BYTES}"
            );
            return Err(RpcError::new(Code::Internal, why));
        }
        let too_slow = || {
            let why = format!(
                "the reader is too slow: it left more than {MAX_WAITING_CHUNKS} chunks of its answer \
                 unread, or more than {MAX_WAITING_BYTES} bytes"
            );
            RpcError::new(Code::Overloaded, why)
        };
        let room = u32::try_from(bytes).map_err(|_| too_slow())?;
        let room = self.room.clone().try_acquire_many_owned(room);
        let waiting = Waiting {
            chunk,
            _room: room.map_err(|_| too_slow())?,
        };
        self.chunks.try_send(waiting).map_err(|error| match error {
            TrySendError::Full(_) => too_slow(),
            TrySendError::Closed(_) => RpcError::new(Code::Cancelled, "the reader is gone"),
        })
    }

    /// Waits until nobody reads the answer any more.
    pub(super) async fn gone(&mut self) {
        self.end.closed().await;
    }

    pub(super) fn end(self, end: Result<EngineDone, RpcError>) {
        // Who is gone needs no answer.
        let _ = self.end.send(end);
    }
}

/// Bytes of memory that a chunk takes. What is in it may be empty and is not free: an engine could
/// make of each byte that it sends many.
fn size_of_chunk(chunk: &Chunk) -> usize {
    let of_call = |call: &CallDelta| {
        let names = [&call.id, &call.name].into_iter().flatten();
        size_of::<CallDelta>() + call.arguments.len() + names.map(String::len).sum::<usize>()
    };
    let of_top = |top: &TopLogprob| size_of::<TopLogprob>() + top.bytes.len();
    let of_logprob = |it: &TokenLogprob| {
        size_of::<TokenLogprob>() + it.bytes.len() + it.top.iter().map(of_top).sum::<usize>()
    };
    size_of::<Waiting>()
        + size_of_val(chunk.tokens.as_slice())
        + chunk.text.len()
        + chunk.calls.iter().map(of_call).sum::<usize>()
        + chunk.logprobs.iter().map(of_logprob).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: usize) -> Chunk {
        Chunk::new(0, Vec::new(), "x".repeat(bytes))
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_and_reading_makes_room() {
        let (sink, mut source) = channel(Box::new(()));
        let most = MAX_WAITING_BYTES / MAX_CHUNK_BYTES;
        let piece = || text(MAX_CHUNK_BYTES - size_of::<Waiting>());
        for _ in 0..most {
            sink.reader.give(piece()).expect("room");
        }
        let error = sink.reader.give(piece()).expect_err("none left");
        assert_eq!(error.code, Code::Overloaded);
        assert_eq!(source.given().len(), most);
        for _ in 0..most {
            sink.reader.give(piece()).expect("room again");
        }
    }

    #[test]
    fn a_piece_is_no_larger_than_an_event_needs() {
        let (sink, _source) = channel(Box::new(()));
        let calls = vec![CallDelta::default(); MAX_CHUNK_BYTES / size_of::<CallDelta>()];
        let likely = TokenLogprob {
            token: 0,
            logprob: 0.0,
            bytes: Vec::new(),
            top: Vec::new(),
        };
        let logprobs = vec![likely; MAX_CHUNK_BYTES / size_of::<TokenLogprob>()];
        let empty = Chunk::default;
        for large in [
            text(MAX_CHUNK_BYTES),
            Chunk { calls, ..empty() },
            Chunk {
                logprobs,
                ..empty()
            },
            Chunk::new(0, vec![0; MAX_CHUNK_BYTES / 4], ""),
        ] {
            let error = sink.reader.give(large).expect_err("too large");
            assert_eq!(error.code, Code::Internal);
        }
    }
}
