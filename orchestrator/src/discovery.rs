//! What is heard of nodes over links, on its way into the fleet. (PRE-1 to PRE-5)
//!
//! # Layout
//!
//! * `intake`, `fair` – pushes of workers and gateways: bounded, in turns, verified in batches
//! * `spread`, `peers` – batches of and for other orchestrators
//! * `links` – nodes whose link breaks, is silent, or speaks again
//! * `controls` – what was revoked, into the fleet; `joins` – workers that come by an invite
//! * `own` – this orchestrator's own beats
//!
//! Nothing is decided here: [`tether_presence::Spread`] decides, in the keeper of the fleet.

mod controls;
mod fair;
mod intake;
mod joins;
mod links;
mod own;
mod peers;
mod spread;

pub(crate) use controls::follow as follow_controls;
pub(crate) use intake::Intake;
pub use intake::judge;
pub(crate) use joins::Joins;
pub(crate) use links::watch_links;
pub(crate) use own::Own;
pub(crate) use spread::{Spreading, run as carry};

/// Threads that verify at once, of pushes and of batches each: as many as there are cores.
fn parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
