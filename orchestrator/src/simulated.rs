//! Fleets that exist only as numbers, and traffic over them: for tests and benchmarks of placement.
//!
//! What decides is the code that decides in earnest; workers, time and requests are simulated, and a
//! seed gives the same run again.

mod crowd;
mod traffic;

pub use crowd::{Crowd, Shape};
pub use traffic::{Outcome, Policy, Traffic};

#[cfg(test)]
mod tests;
