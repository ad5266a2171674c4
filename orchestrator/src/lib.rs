//! The orchestrator: who is there, which worker gets a request, and what became of it.
//!
//! # Layout
//!
//! Deciders, pure; time and randomness are passed in; who is there is decided by
//! `tether-presence`:
//! * [`place`], [`score`] – ranking of workers for a request
//! * [`job`] – the states of a job and the steps between them
//! * [`catalogue`] – which models are known, and what a name means
//! * [`policy`] – what tenants may ask for, and where it may go
//! * [`directory`] – what gateways are told, and what of it changed
//! * [`tenants`], [`releases`] – files that people and publishers write
//!
//! Edges:
//! * [`discovery`] – cards and beats from links, verified, into [`fleet`]; calls among orchestrators
//! * `desk` – gives each call to who serves it
//! * `dispatch` – a request from the gateway's call to its end
//! * [`store`] – what must survive a crash; [`store::sqlite`] alone knows SQL
//! * [`admin`] – HTTP on loopback
//! * `upkeep` – late ends, abandoned jobs, old jobs
//! * [`orchestrator`] – start and stop
//!
//! # Invariants
//!
//! * A job is on the disk before a worker hears of it, and its end before the gateway does.
//! * No decision reads a clock or waits for I/O, and nothing here is locked across an await.
//! * Prompts, answers and keys are neither stored nor logged.
#![forbid(unsafe_code)]

pub mod admin;
pub mod catalogue;
mod clock;
pub mod config;
mod desk;
pub mod directory;
pub mod discovery;
mod dispatch;
pub mod fleet;
pub mod job;
pub mod orchestrator;
pub mod place;
pub mod policy;
pub mod releases;
pub mod score;
pub mod store;
pub mod tenants;
#[cfg(test)]
mod testing;
mod upkeep;

pub use config::{ConfigError, OrchestratorConfig};
pub use orchestrator::{Orchestrator, OrchestratorError, start, start_with_store};
