//! Keeps the catalogue, its record on the disk and what gateways are told of it in step with the
//! fleet.

use super::Catalogue;
use crate::clock;
use crate::directory::{self, serve::Directory};
use crate::fleet::keeper::Fleet;
use crate::store::{KnownModel, MetadataStore, StoreError};
use arc_swap::ArcSwap;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tether_wire::ModelRef;
use tokio_util::sync::CancellationToken;

/// Changes of the fleet within this time are told together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How often models that nobody offers any more are looked for while nothing changes.
const AGE_CHECK: Duration = Duration::from_secs(3_600);

/// What is kept in step.
pub(crate) struct Keeper {
    pub(crate) fleet: Fleet,
    pub(crate) catalogue: Arc<ArcSwap<Catalogue>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) store: Arc<dyn MetadataStore>,
    /// What is remembered on the disk, and when it was offered last.
    pub(crate) on_disk: BTreeMap<ModelRef, u64>,
}

impl Keeper {
    /// Follows the fleet until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.fleet.changes();
        let mut unrecorded = true;
        loop {
            let fleet = self.fleet.snapshot();
            let now_ms = clock::now().unix_ms;
            if let Some(next) = self.catalogue.load().follow(fleet.offers(), now_ms) {
                self.catalogue.store(Arc::new(next));
                unrecorded = true;
            }
            let models = directory::models(&self.catalogue.load(), &fleet);
            self.directory.set_models(models);
            if unrecorded {
                match self.record().await {
                    Ok(()) => unrecorded = false,
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
                () = tokio::time::sleep(AGE_CHECK) => {}
            }
        }
    }

    /// Makes the disk hold what the catalogue remembers.
    async fn record(&mut self) -> Result<(), StoreError> {
        let known: Vec<KnownModel> = self.catalogue.load().known().collect();
        let still: BTreeSet<&ModelRef> = known.iter().map(|it| &it.model).collect();
        let forgotten: Vec<ModelRef> = (self.on_disk.keys())
            .filter(|model| !still.contains(model))
            .cloned()
            .collect();
        let new: Vec<KnownModel> = (known.iter())
            .filter(|it| self.on_disk.get(&it.model) != Some(&it.last_offered_ms))
            .cloned()
            .collect();
        if !forgotten.is_empty() {
            self.store.forget_models(forgotten.clone()).await?;
            self.on_disk.retain(|model, _| !forgotten.contains(model));
        }
        if !new.is_empty() {
            self.store.note_models(new.clone()).await?;
            let noted = new.into_iter().map(|it| (it.model, it.last_offered_ms));
            self.on_disk.extend(noted);
        }
        Ok(())
    }
}
