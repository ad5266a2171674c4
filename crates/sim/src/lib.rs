//! Thousands of simulated nodes, hours in seconds: what an orchestrator runs to know who is there,
//! driven by an event queue instead of sockets and clocks.
//!
//! A run is a function of scenario and seed: it is the same each time, on any machine, so that a
//! failure is found again by its seed. Signatures are hashes here (the feature `simulated` of
//! `tether-wire`); everything else is the code of an orchestrator.
//!
//! # Layout
//!
//! * [`scenario`] – the files of `tests/sim`: what there is, what happens, what must hold
//! * [`machine`] – what is simulated; [`tether`] is ours
//! * [`queue`], [`random`], [`clock`] – time and chance
//! * `network`, `link`, `discovery`, `finder` – messages, links, and who finds whom
//! * `host`, `world` – hosts, their processes, and what happens to them
//! * `recorder` – what an attacker sends again
//! * `judge`, `found`, [`outcome`] – the truth, the views, and what is wrong between them
//! * [`mod@run`], [`report`], [`trace`] – many seeds, tables, and what led to a failure
//!
//! What is deliberately absent: bandwidth, congestion, the cost of CPU. Presence sends little; what
//! it costs is measured by benchmarks.
#![forbid(unsafe_code)]

pub mod clock;
mod discovery;
mod finder;
mod found;
pub mod host;
mod judge;
mod link;
pub mod machine;
mod network;
pub mod outcome;
pub mod queue;
pub mod random;
mod recorder;
pub mod report;
pub mod run;
pub mod scenario;
pub mod tether;
pub mod trace;
pub mod verifier;
mod world;

pub use machine::Machine;
pub use outcome::Outcome;
pub use run::{replay, run, run_all};
pub use scenario::Scenario;
