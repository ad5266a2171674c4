//! Who is there: presence and its spread among orchestrators, as pure state machines.
//!
//! Nothing here reads a clock, locks, waits or sends. Times come in as [`Now`], sealed bytes come in
//! verified, and what comes out are values: [`Effect`]s for whoever keeps a fleet, [`Output`]s for
//! whoever holds links. The same code runs in an orchestrator and, ten thousand times at once, in
//! the simulator. `topics.md` is the specification; its clauses are cited as `[T-…]`.
//!
//! # Layout
//!
//! * [`presence`] – who is live, suspect or gone, for one machine, from beats, cards and silence
//! * [`spread`] – what that machine tells its peers, and what it asks of them
//! * [`check`] – what is known is skipped, the rest verified, away from the state machines
//! * [`admission`] – whose signature and grant count, injected
//! * [`rejected`] – why something was dropped, as labels of metrics
//! * [`plan`], [`uplinks`] – whom a node keeps links with
//!
//! # The way of a beat
//!
//! ```text
//! a push over a node's link ─ check::push ──┐
//!                                           ├─ Spread::handle ─ Presence ─ Effects ─ the fleet
//! a batch of a peer ─ sift ─ verify ────────┘        └─ Output::Send ─ batches for peers
//! ```
#![forbid(unsafe_code)]

pub mod admission;
pub mod check;
mod event;
pub mod plan;
pub mod presence;
pub mod rejected;
pub mod spread;
pub mod uplinks;

pub use admission::{AdmittedCard, Signatures, Verifier};
pub use check::{CheckedBatch, KnownBeat, Knows};
pub use event::{Effect, Event, Gone, Now, Origin};
pub use presence::{Doubt, Presence, Seen, Settings, Standing};
pub use rejected::Rejected;
pub use spread::{Input, Output, Spread};
