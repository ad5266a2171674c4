//! Where an answer goes, and what its request occupies while the engine has it.

use std::fmt;
use tether_wire::infer::{Chunk, Finish, Usage};
use tether_wire::rpc::RpcError;
use tokio::sync::{mpsc, oneshot};

/// Chunks of one answer that may wait for their reader. A reader that is further behind is cut
/// off: the engine makes one step for all sequences and must never wait for one of them.
pub const MAX_WAITING_CHUNKS: usize = 1_024;

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
    pub(super) hold: Box<dyn Hold>,
}

/// Who reads an answer.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Taken when the engine turned to the request, or gave a piece without saying so.
    pub(super) begun: Option<oneshot::Sender<u32>>,
    pub(super) chunks: mpsc::Sender<Chunk>,
    end: oneshot::Sender<Result<EngineDone, RpcError>>,
}

/// Where an answer comes from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) begun: oneshot::Receiver<u32>,
    pub(crate) chunks: mpsc::Receiver<Chunk>,
    pub(crate) end: oneshot::Receiver<Result<EngineDone, RpcError>>,
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
        end,
    };
    (Sink { reader, hold }, source)
}

impl Sink {
    /// The request never reaches the engine, or is not in it any more. Who learns of it finds the
    /// place free.
    pub(crate) fn fail(self, error: RpcError) {
        drop(self.hold);
        self.reader.end(Err(error));
    }

    /// Whether the reader went before the engine heard of the request.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.reader.end.is_closed()
    }
}

impl Reader {
    pub(super) fn end(self, end: Result<EngineDone, RpcError>) {
        // Who is gone needs no answer.
        let _ = self.end.send(end);
    }
}
