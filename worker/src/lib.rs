//! Serves inference: models, quota, engines in child processes, health.
#![forbid(unsafe_code)]

pub mod engine;
pub mod text;
