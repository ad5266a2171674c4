//! Engines: a process or several for each loaded model, so that a fault in one never takes the worker
//! down, nor what the others are doing.

mod again;
mod board;
pub(crate) mod cgroup;
pub mod child;
mod echo;
pub(crate) mod escape;
mod handle;
mod in_flight;
mod kind;
pub(crate) mod layout;
pub(crate) mod memory;
#[cfg(feature = "mistralrs")]
mod mistralrs;
pub mod openai;
pub(crate) mod process;
pub mod protocol;
mod reader;
pub(crate) mod restart;
mod spec;
mod supervisor;
#[cfg(feature = "mistralrs")]
mod turns;

#[cfg(feature = "mistralrs")]
pub use crate::engine::mistralrs::alone;

pub use handle::{Answer, Engine, EngineState, Fallen, Ready};
pub use layout::Layout;
pub use process::{ENGINE_ENV, EngineCommand};
pub use reader::{EngineDone, Hold, MAX_WAITING_CHUNKS};
pub use spec::{EngineSpec, Prepare, Refused};
