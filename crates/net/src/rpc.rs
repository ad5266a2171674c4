//! Calls over a link. (NET-6) [T-RPC-1] to [T-RPC-6]
//!
//! Each call is a stream of its own, so that a slow one never holds up another. Frames are the
//! specification's; a frame is written in one piece and read into a buffer that grows with what
//! has come, never with what a header claims. A call ends with `End` or `Error`: a stream that
//! finishes without either did not end well. Not here: what the methods mean.

mod call;
pub(crate) mod frame;
mod incoming;
mod serve;
pub(crate) mod stream;

pub use call::Call;
pub use incoming::{Incoming, Service};

pub(crate) use call::open;
pub(crate) use serve::serve;

use tether_wire::link::Peer;
use tether_wire::rpc::{Code, RpcError};

/// The error of a call whose link is gone.
pub(crate) fn link_broke(peer: &Peer, why: &str) -> RpcError {
    let (role, id) = (peer.role, peer.id.short());
    RpcError::new(
        Code::Unavailable,
        format!("the link to {role} {id} broke: {why}"),
    )
}

/// How a call ended, for metrics.
fn outcome(result: &Result<(), RpcError>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(error) => error.code.as_str(),
    }
}
