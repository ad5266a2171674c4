//! Engines: one process per loaded model, so that a fault in one never takes the worker down.

pub(crate) mod cgroup;
pub mod child;
mod echo;
pub(crate) mod escape;
mod handle;
mod in_flight;
mod kind;
pub(crate) mod memory;
#[cfg(feature = "mistralrs")]
mod mistralrs;
pub mod openai;
pub(crate) mod process;
pub mod protocol;
mod reader;
pub(crate) mod restart;
mod supervisor;

pub use handle::{Answer, Engine, EngineSpec, EngineState, Prepare, Ready, Refused};
pub use process::{ENGINE_ENV, EngineCommand};
pub use reader::{EngineDone, Hold, MAX_WAITING_CHUNKS};
