//! Serves inference: models, quota, engines in child processes, health.
//!
//! # Layout
//!
//! * [`worker`] – start and drain: how the parts below are put together
//! * [`config`] – what a worker is told
//! * [`models`] – from a folder to a served model: verified, loaded, offered, or a fault
//! * [`engine`] – the engine's process and its supervisor
//! * [`sandbox`] – what keeps an engine from everything but its model
//! * [`serve`] – orders of orchestrators, answered
//! * `receipts` – what is signed about each answer
//! * [`quota`], `admission`, [`fences`] – who runs, who waits, who is refused
//! * [`presence`] – what orchestrators and the DHT hear of the worker
//! * [`device`] – where an engine computes
//! * `fit` – prompts that cannot fit, known by their bytes alone
//! * `under_way` – answers that the next owner of their job takes over
//! * [`health`], [`pace`] – what a worker knows about itself
//! * [`status`] – what a worker tells its provider
//! * `metrics_page` – what it tells a collector of metrics
//! * [`text`] – templates, tokenizers, text of tokens: used by the engine's process only
//!
//! The worker's own process never parses a model's files: it checks that they are the publisher's,
//! and the engine's process does the rest.
#![forbid(unsafe_code)]

mod admission;
mod clock;
pub mod config;
pub mod device;
pub mod engine;
pub mod fences;
mod fit;
pub mod health;
mod metrics_page;
pub mod models;
pub mod pace;
pub mod presence;
pub mod quota;
mod receipts;
pub mod sandbox;
pub mod serve;
pub mod status;
pub mod text;
mod under_way;
pub mod worker;

pub use admission::Load;
pub use config::{ConfigError, EngineConfig, ModelConfig, WorkerConfig};
pub use engine::EngineCommand;
pub use models::{ModelReport, ModelState, ModelStatus};
pub use worker::{Worker, WorkerError, WorkerStatus, start};
