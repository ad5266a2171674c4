//! Engines: one process per loaded model, so that a fault in one never takes the worker down.

pub mod child;
mod echo;
mod in_flight;
mod kind;
#[cfg(feature = "mistralrs")]
mod mistralrs;
mod process;
pub mod protocol;
mod restart;
pub mod supervisor;

pub use in_flight::{EngineDone, MAX_WAITING_CHUNKS};
pub use process::{ENGINE_ENV, EngineCommand};
pub use supervisor::{Answer, Engine, EngineSpec, EngineState, Ready};
