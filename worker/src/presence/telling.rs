//! What a worker says of itself: what it has to offer, what it is doing, how busy it is.

use crate::health::Machine;
use crate::health::strain::Strain;
use crate::models::{self, ModelState, ModelStatus};
use crate::serve::Shared;
use tether_net::{Load, Told};
use tether_wire::Tier;
use tether_wire::card::{MAX_MODELS, ModelFault, ModelOffer, WorkerCard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What of it never changes while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) machine: Machine,
    pub(crate) tier: Tier,
    pub(crate) price_per_1k_micro: u64,
}

/// Follows models and draining.
pub(super) struct Teller {
    pub(super) profile: Profile,
    /// Most requests at once, whatever the engines could do.
    pub(super) max_slots: u32,
    pub(super) draining: CancellationToken,
    pub(super) models: watch::Receiver<Vec<ModelStatus>>,
    /// Whether the machine has too much to do.
    pub(super) strain: watch::Receiver<Option<Strain>>,
}

impl Teller {
    /// What is to be said now.
    pub(super) fn told(&self) -> Told {
        let models = self.models.borrow();
        Told {
            state: models::worker_state(&models, self.draining.is_cancelled()),
            worker: Some(self.card(&models)),
        }
    }

    fn card(&self, models: &[ModelStatus]) -> WorkerCard {
        let Profile {
            machine,
            tier,
            price_per_1k_micro,
        } = &self.profile;
        let engine = models.iter().find_map(|model| match &model.state {
            ModelState::Serving(served) => Some(served.engine_version.clone()),
            _ => None,
        });
        let mut offers = models::offers(models);
        let mut faults = models::faults(models);
        let strain = self.strain.borrow();
        if let Some(strain) = &*strain {
            faults = strained(strain, &offers, faults);
            offers.clear();
        }
        WorkerCard {
            gpu_class: machine.gpu_class.clone(),
            vram_gb: machine.memory_gib,
            accelerators: machine.accelerators,
            capacity: models::capacity(models, self.max_slots),
            models: offers,
            faults,
            price_per_1k_micro: *price_per_1k_micro,
            tier: *tier,
            engine: engine.unwrap_or_default(),
        }
    }

    /// Tells what changes, as long as there are models.
    pub(super) async fn run(mut self, told: watch::Sender<Told>) {
        loop {
            self.models.mark_unchanged();
            self.strain.mark_unchanged();
            let was_draining = self.draining.is_cancelled();
            let now = self.told();
            // What changes without a word to say about it makes no beat.
            told.send_if_modified(|said| {
                let is_new = *said != now;
                *said = now;
                is_new
            });
            tokio::select! {
                changed = self.models.changed() => if changed.is_err() { return },
                changed = self.strain.changed() => if changed.is_err() { return },
                () = self.draining.cancelled(), if !was_draining => {}
            }
        }
    }
}

/// What is told of a machine that has too much to do: why, for who asks why it is not routable, and
/// then which models that keeps from being served, by name, so that orchestrators know that they are
/// here.
fn strained(
    Strain { code, reason }: &Strain,
    offers: &[ModelOffer],
    others: Vec<ModelFault>,
) -> Vec<ModelFault> {
    let fault = |model: String, reason: String| ModelFault { model, reason };
    let all = fault("every model".to_owned(), format!("{code}: {reason}"));
    let named = (offers.iter()).map(|offer| fault(offer.model.to_string(), (*code).to_owned()));
    let mut faults: Vec<_> = std::iter::once(all).chain(named).chain(others).collect();
    faults.truncate(MAX_MODELS);
    faults
}

/// How busy the worker is now.
pub(super) fn load(shared: &Shared) -> Load {
    let load = shared.slots.load();
    let pace = shared.pace();
    Load {
        queue_depth: load.waiting,
        in_flight: load.running,
        tokens_per_s: pace.tokens_per_s(),
        first_token_ms: u32::try_from(pace.first_token_ms()).unwrap_or(u32::MAX),
        vitals: Some(shared.health.vitals()),
    }
}
