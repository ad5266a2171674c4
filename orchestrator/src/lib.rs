//! The orchestrator: who is there, which worker gets a request, and what became of it.
//!
//! # Layout
//!
//! Deciders, pure; time and randomness are passed in; who is there is decided by
//! `tether-presence`:
//! * [`place`], [`score`] – ranking of workers for a request
//! * [`warmth`] – which prompts were sent where
//! * [`explained`] – why requests went where they went, kept for people
//! * [`breaker`] – what is left alone for a while, since what is sent there fails
//! * [`queue`] – who waits, in which order, and who is told that it would be in vain
//! * [`retry`] – whether what failed is tried again, and when; [`pace`] – when a piece is overdue
//! * [`shares`] – what part of the work each tenant gets
//! * [`job`] – the states of a job and the steps between them
//! * [`catalogue`] – which models are known, and what a name means
//! * [`policy`] – what tenants may ask for, and where it may go
//! * [`directory`] – what gateways are told, and what of it changed
//! * [`tenants`], [`placement`], [`releases`] – files that people and publishers write
//!
//! Edges:
//! * [`discovery`] – cards and beats from links, verified, into [`fleet`]; calls among orchestrators
//! * `desk` – gives each call to who serves it
//! * `dispatch` – a request from the gateway's call to its end
//! * [`store`] – what must survive a crash; nothing outside it knows SQL
//! * [`admin`] – HTTP on loopback
//! * `lease` – says in the store that this orchestrator lives
//! * `upkeep` – late ends, abandoned jobs, what was kept for its time
//! * [`orchestrator`] – start and stop
//!
//! # Invariants
//!
//! * A job is on the disk before a worker hears of it, and its end before the gateway does.
//! * No decision reads a clock or waits for I/O, and nothing here is locked across an await.
//! * Prompts and answers are stored only sealed under a key of their tenant; neither they nor keys
//!   are logged.
#![forbid(unsafe_code)]

pub mod admin;
pub mod breaker;
pub mod catalogue;
mod clock;
pub mod config;
mod desk;
pub mod directory;
pub mod discovery;
mod dispatch;
pub mod explained;
pub mod fleet;
pub mod job;
mod lease;
pub mod orchestrator;
pub mod place;
pub mod placement;
pub mod policy;
pub mod queue;
pub mod releases;
pub mod retry;
pub mod score;
mod secret_file;
pub mod shares;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
pub mod store;
pub mod tenants;
#[cfg(test)]
mod testing;
mod upkeep;
pub mod warmth;
mod window;

pub use config::{ConfigError, OrchestratorConfig};
pub use dispatch::pace;
pub use orchestrator::{Orchestrator, OrchestratorError, start, start_with_store};
