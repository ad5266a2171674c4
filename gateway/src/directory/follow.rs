//! Follows the directory of orchestrators.
//!
//! One at a time: versions are counted by each for itself. When it is lost the last directory stays in
//! use, and another is followed.

use super::{Directories, Told, UpdateError};
use crate::orchestrators::Orchestrators;
use std::sync::Arc;
use std::time::Duration;
use tether_net::Link;
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::codec;
use tether_wire::directory::{DirectoryUpdate, MAX_UPDATE_BYTES};
use tether_wire::rpc::{Code, RpcError, method};

/// Pause before a lost subscription is taken up again.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(200);

/// Follows the directory of one orchestrator after the other, without end.
pub(crate) async fn follow(
    orchestrators: Arc<Orchestrators>,
    directories: Arc<Directories>,
    metrics: Arc<GatewayMetrics>,
) {
    loop {
        let Some(link) = orchestrators.any() else {
            orchestrators.changed().await;
            continue;
        };
        let peer = link.peer().id;
        match subscribe(&link, &orchestrators, &directories, &metrics).await {
            Ok(()) => tracing::info!(%peer, "the orchestrator ended its directory"),
            Err(error) => tracing::warn!(%peer, %error, "the directory is not followed any more"),
        }
        tokio::time::sleep(RESUBSCRIBE_PAUSE).await;
    }
}

async fn subscribe(
    link: &Link,
    orchestrators: &Orchestrators,
    directories: &Directories,
    metrics: &GatewayMetrics,
) -> Result<(), RpcError> {
    let refuse = |error: UpdateError| RpcError::new(Code::Invalid, error.to_string());
    let mut call = link.call(method::DIRECTORY, None, &[]).await?;
    call.finish_sending().await;
    let mut told = Told::default();
    loop {
        let item = tokio::select! {
            biased;
            item = call.next() => item?,
            // Another one may be heard, and what this one tells would be late.
            () = link.until_quiet() => {
                let why = "nothing is heard of the orchestrator";
                return Err(RpcError::new(Code::Unavailable, why));
            }
        };
        let Some(bytes) = item else { return Ok(()) };
        let update: DirectoryUpdate = codec::decode("directory update", &bytes, MAX_UPDATE_BYTES)
            .map_err(|error| refuse(error.into()))?;
        // The pieces of one version count together.
        let Some(next) = told.take(update).map_err(refuse)? else {
            continue;
        };
        tracing::debug!(
            version = next.version,
            tenants = next.tenants.len(),
            models = next.models.len(),
            "directory updated"
        );
        metrics.directory(next.version());
        directories.replace(next.clone());
        orchestrators.notify();
    }
}
