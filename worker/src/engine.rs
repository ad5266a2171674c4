//! Engines: one process per loaded model, so that a fault in one never takes the worker down.

pub mod child;
pub mod protocol;
