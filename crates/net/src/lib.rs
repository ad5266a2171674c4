//! The only crate that knows the DHT and the transport.
#![forbid(unsafe_code)]

mod config;
mod error;
mod link;
mod node;
mod observe;
pub mod rendezvous;
mod rpc;

pub use config::{LinkLimits, NodeConfig};
pub use error::{LinkError, NetError};
pub use link::{Link, LinkEvent};
pub use node::Node;
pub use observe::{NetObserver, Unobserved};
pub use rendezvous::{ProbeReport, bootstrap, probe};
pub use rpc::{Call, Incoming, Service};

/// The future of [`Service::serve`], so that services need not name another crate for it.
pub use futures_util::future::BoxFuture;
