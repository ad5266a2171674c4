//! The only crate that knows the DHT and the transport: finding, linking, calling.
//!
//! Nodes **find** each other on a HyperDHT, wire compatible with Node's `hyperdht`, and **talk**
//! over QUIC; one Ed25519 seed is their identity on both (docs/adr/0001).
//!
//! # Layout
//!
//! * [`Node`] – what a role starts: announces, looks up, links, is told of links
//! * [`Link`], [`Call`], [`Incoming`], [`Service`] – calls in both directions over one link
//! * [`rendezvous`] – the DHT: announcements, records, [`bootstrap`] nodes, [`probe`]; the only tree
//!   that knows `peeroxide-dht`
//! * `transport` – the endpoint and its connections; with [`relay`] the only one that knows `iroh`
//! * [`relay`] – a relay for nodes that cannot reach each other directly, a part of stable entry points
//! * `link` – the greeting, and which of two links to one peer stays
//! * `rpc` – frames, calls, their bounds and their ends
//! * [`Uplinks`] – links to orchestrators: found, kept, remembered, replaced
//! * [`Herald`] – seals the node's card and beats, and pushes them
//! * [`Members`] – who belongs to the mesh: revocations heard, kept, passed on
//! * [`epoch`] – the number of this run, kept on disk
//! * [`FollowedFile`] – a file that people edit while a node runs
//! * `gate` – bounds on who may try to link
//! * `decoders` – private decoders for the fuzz targets, with the same feature
//! * `testing` – a mesh on loopback, only with the feature of that name
//!
//! # Deliberately absent
//!
//! What calls mean (the roles know), and any plaintext mode.
#![forbid(unsafe_code)]

mod clock;
mod config;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod decoders;
mod disk;
pub mod epoch;
mod error;
mod followed;
mod gate;
mod herald;
mod link;
mod log_budget;
mod lonely;
mod members;
mod node;
mod rate;
pub mod relay;
pub mod rendezvous;
mod rpc;
#[cfg(feature = "testing")]
pub mod testing;
mod topic_view;
mod transport;
mod uplinks;

pub use config::{LinkLimits, NodeConfig};
pub use error::{LinkError, NetError};
pub use followed::FollowedFile;
pub use herald::{Herald, Load, Nudge, Pushes, Sealed, Told};
pub use link::{Link, LinkEvent};
pub use lonely::Lonely;
pub use members::{Heard, MEMBERSHIP_FILE, Members, MembershipNews};
pub use node::Node;
pub use rate::TokenBucket;
pub use rendezvous::{Announcement, ProbeReport, Sighting, bootstrap, probe};
pub use rpc::{Call, Incoming, Service};
pub use topic_view::TopicView;
pub use transport::{MAX_RELAYS, check_relay_url};
pub use uplinks::{
    DialFailure, MAX_CONFIGURED, UplinkConfig, UplinkLook, UplinkView, Uplinks, redial_pause,
    remembered_orchestrators,
};

/// The future of [`Service::serve`], so that services need not name another crate for it.
pub use futures_util::future::BoxFuture;
