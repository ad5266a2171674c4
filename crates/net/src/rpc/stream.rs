//! Frames on a stream.

use super::frame::{self, Frame, FrameError};
use crate::transport::{RecvHalf, SendHalf, StreamError};
use bytes::BytesMut;
use tether_wire::rpc::Kind;

/// Most bytes taken from the transport at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why nothing can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadFault {
    /// What came is no frame.
    NotAFrame(FrameError),
    /// The stream ended inside a frame.
    Truncated,
    /// The stream is gone.
    Stream(StreamError),
}

/// Reads blocks and frames. A read that is dropped loses nothing.
#[derive(Debug)]
pub(crate) struct FrameReader {
    recv: RecvHalf,
    buffer: BytesMut,
}

impl FrameReader {
    pub(crate) fn new(recv: RecvHalf) -> Self {
        let buffer = BytesMut::new();
        Self { recv, buffer }
    }

    /// The next frame, with a payload of at most `limit` bytes; nothing at the end of the stream.
    pub(crate) async fn next(&mut self, limit: usize) -> Result<Option<Frame>, ReadFault> {
        self.read(|buffer| frame::take(buffer, limit)).await
    }

    /// The next block without a kind, of at most `limit` bytes.
    pub(crate) async fn next_block(&mut self, limit: usize) -> Result<Option<BytesMut>, ReadFault> {
        self.read(|buffer| frame::take_block(buffer, limit)).await
    }

    async fn read<T>(
        &mut self,
        mut take: impl FnMut(&mut BytesMut) -> Result<Option<T>, FrameError>,
    ) -> Result<Option<T>, ReadFault> {
        loop {
            if let Some(taken) = take(&mut self.buffer).map_err(ReadFault::NotAFrame)? {
                return Ok(Some(taken));
            }
            match self.recv.read_chunk(CHUNK_BYTES).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(ReadFault::Truncated),
                Err(error) => return Err(ReadFault::Stream(error)),
            }
        }
    }

    /// Tells the other side that nothing more is read.
    pub(crate) fn stop(&mut self) {
        self.recv.stop();
    }
}

/// Writes frames, each in one piece.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    send: SendHalf,
    /// A write was dropped in the middle: what follows would be read as its rest.
    torn: bool,
}

impl FrameWriter {
    pub(crate) fn new(send: SendHalf) -> Self {
        Self { send, torn: false }
    }

    /// Sends one frame; the bytes that it took.
    pub(crate) async fn frame(&mut self, kind: Kind, payload: &[u8]) -> Result<u64, StreamError> {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, kind, payload);
        self.raw(&bytes).await
    }

    /// Sends bytes that are already frames or blocks.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> Result<u64, StreamError> {
        if std::mem::replace(&mut self.torn, true) {
            self.send.reset();
            return Err(StreamError::Over);
        }
        self.send.write_all(bytes).await?;
        self.torn = false;
        Ok(bytes.len() as u64)
    }

    /// Says that nothing more comes.
    pub(crate) fn finish(&mut self) {
        if self.torn {
            self.send.reset();
        } else {
            self.send.finish();
        }
    }

    /// Gives up.
    pub(crate) fn reset(&mut self) {
        self.send.reset();
    }

    /// Waits until the other side wants nothing more (`true`), or has everything (`false`).
    pub(crate) fn gave_up(&self) -> impl Future<Output = bool> + Send + use<> {
        self.send.gave_up()
    }
}
