//! Says in the store that this orchestrator lives, so that others leave its jobs to it. (FED-1)

use crate::clock;
use crate::store::{Lease, MetadataStore, StoreError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tether_wire::{NodeId, Region};
use tokio_util::sync::CancellationToken;

/// How often it says so.
const RENEW: Duration = Duration::from_secs(2);
/// For how long it counts: two renewals may be missed.
const LEASE_MS: u64 = 6_000;

/// How steadily this orchestrator says that it lives. While it cannot, or could not until now, others
/// cannot either, for all it knows: that their leases are over says nothing of them until they had time
/// to renew. Times are of the clock that only goes forward. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steady(Arc<Said>);

#[derive(Debug, Default)]
struct Said {
    /// When it said so first.
    began_ms: AtomicU64,
    /// When it said so again after its lease was over; 0 is never.
    gap_ms: AtomicU64,
    /// When its lease is over.
    until_ms: AtomicU64,
}

impl Steady {
    /// It said so.
    fn renewed(&self, now_mono_ms: u64, until_mono_ms: u64) {
        let said = &self.0;
        match said.until_ms.swap(until_mono_ms, Ordering::Relaxed) {
            0 => said.began_ms.store(now_mono_ms, Ordering::Relaxed),
            before if before < now_mono_ms => said.gap_ms.store(now_mono_ms, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Whether its lease is not over, and others had time to renew theirs since it was.
    pub(crate) fn is_renewed(&self, now_mono_ms: u64) -> bool {
        let gap_ms = self.0.gap_ms.load(Ordering::Relaxed);
        let is_long = gap_ms == 0 || now_mono_ms >= gap_ms.saturating_add(LEASE_MS);
        is_long && now_mono_ms <= self.0.until_ms.load(Ordering::Relaxed)
    }

    /// The same of one that is there for long enough: whoever starts does not know whether the store was
    /// away.
    pub(crate) fn is_steady(&self, now_mono_ms: u64) -> bool {
        let began_ms = self.0.began_ms.load(Ordering::Relaxed);
        self.is_renewed(now_mono_ms) && now_mono_ms >= began_ms.saturating_add(LEASE_MS)
    }
}

/// The life of this process as an orchestrator.
pub(crate) struct Life {
    store: Arc<dyn MetadataStore>,
    id: NodeId,
    region: Region,
    started_ms: u64,
    steady: Steady,
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
            steady: Steady::default(),
        };
        life.renew().await?;
        Ok(life)
    }

    pub(crate) fn steady(&self) -> Steady {
        self.steady.clone()
    }

    async fn renew(&self) -> Result<(), StoreError> {
        let asked = clock::now();
        let lease = Lease {
            orchestrator: self.id,
            region: self.region.clone(),
            started_ms: self.started_ms,
            until_ms: asked.unix_ms.saturating_add(LEASE_MS),
        };
        self.store.renew(lease).await?;
        let until_ms = asked.mono_ms.saturating_add(LEASE_MS);
        self.steady.renewed(clock::now().mono_ms, until_ms);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_gap_others_have_the_time_of_a_lease_and_after_a_start_nothing_is_taken_from_them() {
        let steady = Steady::default();
        assert!(!steady.is_renewed(1_000), "nothing was said yet");
        steady.renewed(1_000, 7_000);
        assert!(steady.is_renewed(1_000) && !steady.is_steady(6_999));
        assert!(steady.is_steady(7_000) && !steady.is_renewed(7_001));
        steady.renewed(3_000, 9_000);
        assert!(steady.is_steady(9_000));
        // The store is away.
        assert!(!steady.is_renewed(15_000));
        steady.renewed(20_000, 26_000);
        assert!(!steady.is_renewed(20_000) && !steady.is_steady(25_999));
        steady.renewed(22_000, 28_000);
        assert!(steady.is_renewed(26_000) && steady.is_steady(26_000));
    }
}
