//! This folder's private decoders of outside bytes, for the fuzz targets (feature `testing`).

use super::client::{Listing, said};
use super::events::Events;
use super::reply::{Reply, Said};
use super::request;
use crate::config::ServerKind;
use crate::engine::protocol::Task;
use tether_wire::CorrelationId;
use tether_wire::infer::Output;

/// A server's stream of one answer: whether it came to an end that was said.
///
/// # Errors
/// In words for the caller.
pub fn answer(bytes: &[u8], output: &Output) -> Result<bool, String> {
    let (mut events, mut found) = (Events::default(), Vec::new());
    let mut reply = Reply::new("m", CorrelationId([1; 16]), output);
    // As they come from a socket.
    for piece in bytes.chunks(97) {
        let pushed = events.push(piece, &mut found);
        for data in found.drain(..) {
            match reply.take(&data).map_err(|error| error.to_string())? {
                Said::End(..) => return Ok(true),
                Said::Piece(_) | Said::Nothing => {}
            }
        }
        pushed.map_err(|error| error.to_string())?;
    }
    Ok(false)
}

/// A server's list of models, or its error: whether it is a list.
#[must_use]
pub fn listing(body: &[u8]) -> bool {
    // What is shown of it is bounded, whatever it is.
    assert!(said(body).len() <= 4_096, "an error is shown shortly");
    Listing::parse(body).is_ok()
}

/// An order in the words of every kind of server.
#[must_use]
pub fn request(task: &Task) -> usize {
    let kinds = [
        ServerKind::LlamaCpp,
        ServerKind::Vllm,
        ServerKind::Ollama,
        ServerKind::Openai,
    ];
    let bodies = kinds.map(|kind| request::body(kind, "m", task));
    bodies.iter().filter(|body| body.is_ok()).count()
}
