//! Keeps the catalogue and what gateways are told of it in step with the fleet.

use super::Catalogue;
use crate::clock;
use crate::directory::{self, serve::Directory};
use crate::fleet::Snapshot;
use crate::fleet::keeper::Fleet;
use crate::store::{KnownModel, MetadataStore};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Changes of the fleet within this time are told together.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// What is kept in step.
pub(crate) struct Keeper {
    pub(crate) fleet: Fleet,
    pub(crate) catalogue: Arc<ArcSwap<Catalogue>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) store: Arc<dyn MetadataStore>,
}

impl Keeper {
    /// Follows the fleet until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut changes = self.fleet.changes();
        // Models that were seen and are not on the disk yet.
        let mut unrecorded = Vec::new();
        loop {
            let fleet = self.fleet.snapshot();
            unrecorded.extend(self.learn(&fleet));
            let models = directory::models(&self.catalogue.load(), &fleet);
            self.directory.set_models(models);
            if !unrecorded.is_empty() {
                match self.store.note_models(unrecorded.clone()).await {
                    Ok(()) => unrecorded.clear(),
                    Err(error) => tracing::error!(%error, "models could not be remembered"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DEBOUNCE) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Takes models over that were never seen.
    fn learn(&self, fleet: &Snapshot) -> Vec<KnownModel> {
        let now_ms = clock::now().unix_ms;
        let old = self.catalogue.load_full();
        let new: Vec<KnownModel> = fleet
            .offers()
            .filter(|offer| old.get(&offer.model).is_none())
            .map(|offer| KnownModel {
                model: offer.model.clone(),
                digest: offer.digest,
                first_seen_ms: now_ms,
            })
            .collect();
        if new.is_empty() {
            return new;
        }
        let mut catalogue = (*old).clone();
        let (taken, left): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|known| catalogue.see(known));
        if !left.is_empty() {
            tracing::warn!(
                count = left.len(),
                limit = super::MAX_KNOWN_MODELS,
                "models are offered beyond the number that is remembered"
            );
        }
        self.catalogue.store(Arc::new(catalogue));
        taken
    }
}
