//! The fleet as placement reads it: an immutable snapshot, replaced whole. (FLT-1, FLT-2)
//!
//! The writer's side belongs to one task, [`keeper`], which decides by `tether-presence` who is
//! there; [`Snapshot`] is the readers' side, reached without a lock. What changes all the time and
//! is read alone, a worker's load and whether it is doubted, is in numbers beside the snapshots that
//! all of them share: a beat that says nothing else than load makes no new snapshot, and what this
//! orchestrator itself has running at a worker is exact at any time.
//!
//! # Layout
//!
//! * [`keeper`], `handle` – the task, and what everybody else has of it
//! * `roster` – effects of presence in, views of workers out
//! * `worker`, `candidate` – a worker's view and its live numbers, and as placement gets it
//! * `snapshot` – what readers ask
//! * `index`, `group`, `classes`, `merit`, `best` – who serves what, and the best of each kind and class
//!   kept ready
//! * `roll`, `offerings` – memory that snapshots and workers share
//! * `refusals` – what was refused of whom, for people
//! * `watch` – what does not count as silence
//! * `everyone` – a fleet put in by hand, for tests and benchmarks

mod best;
mod candidate;
mod classes;
#[cfg(any(test, feature = "testing"))]
mod everyone;
mod faulted;
mod group;
mod handle;
mod index;
pub mod keeper;
mod merit;
mod offerings;
mod refusals;
mod roll;
mod roster;
mod snapshot;
mod watch;
mod worker;

pub use candidate::{Candidate, Found};
pub use classes::Class;
#[cfg(any(test, feature = "testing"))]
pub(crate) use everyone::Everyone;
pub use faulted::{MAX_FAULTED, MAX_UNTRUSTED_FAULTED};
pub use index::{MAX_GROUPS, MAX_UNTRUSTED_GROUPS};
pub use refusals::{MAX_REFUSALS, Refusal};
#[cfg(test)]
pub(crate) use roster::Roster;
pub use snapshot::{STATES, Snapshot};
pub use watch::STALL_MS;
pub use worker::{InFlight, Offering, SUSPECT, UNAVAILABLE, WorkerView};

#[cfg(test)]
mod crowd_tests;
#[cfg(test)]
mod tests;
