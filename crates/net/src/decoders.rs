//! This crate's private decoders of outside bytes, for the fuzz targets (feature `testing`).

use crate::link::greeting::{self, GreetingError};
use crate::members::file;
use crate::rendezvous::datagrams;
use crate::rpc::frame;
use crate::uplinks::memory;
use bytes::BytesMut;
use tether_wire::link::{Hello, Refusal};
use tether_wire::rpc::Kind;

/// Frames, kind and payload each, and how many bytes are left over.
pub type Frames = (Vec<(Kind, Vec<u8>)>, usize);

/// Frames of a stream that comes in these pieces. `Err` is the reason against one.
pub fn frames<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limit: usize,
) -> Result<Frames, String> {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(frame) = frame::take(&mut buffer, limit).map_err(|why| why.to_string())? {
            frames.push((frame.kind, frame.payload));
        }
    }
    Ok((frames, buffer.len()))
}

/// One frame as bytes.
pub fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put(&mut bytes, kind, payload);
    bytes
}

/// The first block of a stream, such as a greeting. `Err` is the reason against it.
pub fn block(bytes: &[u8], limit: usize) -> Result<Option<Vec<u8>>, String> {
    let taken = frame::take_block(&mut BytesMut::from(bytes), limit);
    taken
        .map(|block| block.map(|block| block.to_vec()))
        .map_err(|why| why.to_string())
}

/// The answer to a greeting, as the dialler takes it: a hello, or a refusal that may be shown.
pub fn greeting_answer(bytes: &[u8]) -> Result<Hello, Refusal> {
    greeting::answered(bytes).map_err(|error| match error {
        GreetingError::RefusedByPeer(refusal) | GreetingError::Malformed(refusal) => refusal,
        GreetingError::Lost(why) => panic!("bytes are no connection: {why}"),
    })
}

/// The orchestrators that are remembered on disk, read and written again.
pub fn remembered_orchestrators(json: &[u8]) -> Option<Vec<u8>> {
    memory::rewrite(json)
}

/// The control messages that are kept on disk, read and written again.
pub fn kept_controls(bytes: &[u8]) -> Option<Vec<u8>> {
    Some(file::encode(&file::decode(bytes).ok()?))
}

/// As how many kinds of message of the DHT these bytes of a datagram are taken.
pub fn datagram(bytes: &[u8]) -> usize {
    datagrams::read(bytes)
}

/// Datagrams of nodes that mean well, by name.
pub fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    datagrams::samples()
}
