//! A server with OpenAI's API that the provider runs beside the worker, as an engine. (WRK-4)
//!
//! No process of ours, nothing to confine, no file of the model is read: the worker cannot verify
//! what the server has loaded. It offers the model under the name and digest of a manifest that a
//! trusted publisher signed, because its provider says so, in a numerics class of its own that
//! nobody else's answers are equal to. Token ids are not told, so that an answer has positions by
//! count alone and cannot be taken up again elsewhere. [T-INF-7]
//!
//! # Layout
//!
//! * `driver` – health, and one task for each answer
//! * `client` – HTTP
//! * `request`, `dialect` – an order in the words of a kind of server, or a refusal by name
//! * `events`, `reply`, `calls` – from bytes to pieces and an end that was really said
//! * `usage` – which counts can be true
//! * `decoders` – private decoders for the fuzz targets, only with the feature `testing`

mod calls;
mod client;
#[cfg(feature = "testing")]
pub mod decoders;
mod dialect;
mod driver;
mod events;
mod reply;
mod request;
mod usage;

use crate::config::{EngineConfig, ServerConfig, ServerKind};
use crate::engine::handle::Engine;
use client::Client;
use driver::Driver;
use std::sync::Arc;
use tether_telemetry::metrics::WorkerMetrics;

/// A server, and what it is to serve.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// Where it is.
    pub server: ServerConfig,
    /// Deadlines of answers, and how long it may leave the question whether it lives unanswered.
    pub deadlines: EngineConfig,
    /// Most tokens of prompt and answer together, from the manifest.
    pub context_tokens: u32,
    /// The key that it asks for.
    pub key: Option<String>,
}

/// Starts to look after a server. Nothing of it is ended with the engine but the connections.
///
/// # Errors
/// When its URL or key cannot be.
pub fn start(spec: ServerSpec, metrics: Arc<WorkerMetrics>) -> Result<Engine, String> {
    let client = Arc::new(Client::new(&spec.server, spec.key.as_deref())?);
    let (engine, mut channels) = Engine::open(1);
    let channels = channels.pop().ok_or("an engine without a driver")?;
    let driver = Driver {
        spec,
        client,
        metrics,
        channels,
    };
    tokio::spawn(driver.run());
    Ok(engine)
}

/// Equal to no other, on this machine or elsewhere: equal answers are never promised.
fn numerics_class(kind: ServerKind) -> String {
    let unique: u128 = rand::random();
    format!("foreign/{}/{unique:032x}", kind.as_str())
}
