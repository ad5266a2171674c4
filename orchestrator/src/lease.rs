//! Says in the store that this orchestrator lives, so that others leave its jobs to it. (FED-1)

use crate::clock;
use crate::store::{Lease, MetadataStore, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tether_wire::{NodeId, Region};
use tokio_util::sync::CancellationToken;

/// How often it says so.
const RENEW: Duration = Duration::from_secs(2);
/// For how long it counts: two renewals may be missed.
const LEASE_MS: u64 = 6_000;

/// The life of this process as an orchestrator.
pub(crate) struct Life {
    store: Arc<dyn MetadataStore>,
    id: NodeId,
    region: Region,
    started_ms: u64,
}

impl Life {
    /// Says so for the first time.
    ///
    /// # Errors
    /// When the store does not take it.
    pub(crate) async fn begin(
        store: Arc<dyn MetadataStore>,
        id: NodeId,
        region: Region,
    ) -> Result<Self, StoreError> {
        let life = Self {
            store,
            id,
            region,
            started_ms: clock::now().unix_ms,
        };
        life.renew().await?;
        Ok(life)
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let lease = Lease {
            orchestrator: self.id,
            region: self.region.clone(),
            started_ms: self.started_ms,
            until_ms: clock::now().unix_ms.saturating_add(LEASE_MS),
        };
        self.store.renew(lease).await
    }

    /// Says so until `stop`, and then that it ends.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RENEW) => {}
            }
            if let Err(error) = self.renew().await {
                tracing::warn!(%error, "others may take over the jobs of this orchestrator");
            }
        }
        if let Err(error) = self.store.retire(self.id).await {
            tracing::debug!(%error, "others learn of the end when the lease is over");
        }
    }
}
