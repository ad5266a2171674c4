//! What the mesh says: pure data and its codec.
//!
//! Everything here is a value. There is no I/O, no clock and no runtime: times are passed in as
//! Unix milliseconds, randomness as bytes. `topics.md` at the root of the repository is the
//! specification that this crate implements; its clauses are cited as `[T-…]`.
//!
//! # Layout
//!
//! * [`codec`] – CBOR with bounds, and length-prefixed frames
//! * [`key`], [`id`] – one seed, one identity; newtypes for every identity on the wire
//! * [`topic`] – names of topics and their keys on the DHT
//! * [`envelope`] – signatures over exact bytes; [`Verified`] can only be made by verification
//! * [`grant`], [`invite`], [`link`] – who may link in which role, and the greeting that checks it
//! * [`control`], [`membership`] – what was revoked or replaced, and who still belongs to the mesh
//! * [`card`], [`beat`] – what a node says of itself, and that it lives
//! * [`spread`] – how both travel to orchestrators and among them
//! * [`manifest`] – signed description of a model's files
//! * [`rpc`] – calls over a link, and their errors
//! * [`infer`] – requests for inference and the events of an answer
//! * [`receipt`] – what a worker signs about an answer that it gave
//! * [`directory`] – what orchestrators tell gateways about tenants and models
//! * [`record`] – the addresses that a node keeps on the DHT
#![forbid(unsafe_code)]

pub mod beat;
pub mod card;
pub mod codec;
pub mod control;
pub mod directory;
pub mod envelope;
pub mod grant;
pub mod id;
pub mod infer;
pub mod invite;
pub mod key;
pub mod link;
pub mod manifest;
pub mod membership;
pub mod receipt;
pub mod record;
pub mod rpc;
#[cfg(feature = "simulated")]
mod simulated;
pub mod spread;
pub mod topic;

pub use beat::Beat;
pub use card::Card;
pub use control::{Control, Revocation};
pub use envelope::{Signable, Signed, Verified, VerifyError};
pub use grant::{Grant, Role, Tier};
pub use id::{
    CorrelationId, Digest, MeshId, ModelName, ModelRef, ModelVersion, NodeId, Region, TenantId,
};
pub use invite::Invite;
pub use key::NodeKey;
pub use manifest::Manifest;
pub use membership::Membership;
pub use receipt::Receipt;
pub use topic::{Topic, TopicKey};

/// Major version of the protocol. A peer with another major is refused. [T-VER-1]
pub const PROTOCOL_MAJOR: u16 = 1;
/// Minor version of the protocol. Fields that a peer does not know are ignored. [T-VER-2]
pub const PROTOCOL_MINOR: u16 = 0;
