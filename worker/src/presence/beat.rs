//! Makes signed heartbeats: every 5 s, and at once when models or state change, or when the load is
//! another than its orchestrators can know.

use crate::clock::now_ms;
use crate::models::{self, ModelState, ModelStatus};
use crate::presence::Profile;
use crate::serve::Shared;
use std::sync::Arc;
use std::time::Duration;
use tether_net::Node;
use tether_wire::heartbeat::{HEARTBEAT_INTERVAL_MS, MAX_ADDRESSES, WorkerState};
use tether_wire::infer::Presence;
use tether_wire::{Heartbeat, PROTOCOL_MINOR, Signed, Topic, codec};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Least time between two heartbeats: changes that come together go out together, and however many
/// callers go, an orchestrator is told no more often than it takes. [T-PRE-7]
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// One heartbeat, ready to be pushed.
#[derive(Debug)]
pub(crate) struct Beat {
    /// The encoded [`Presence`].
    pub(crate) item: Vec<u8>,
    /// Whether it is the goodbye.
    pub(crate) is_goodbye: bool,
}

pub(crate) struct Beater {
    pub(crate) node: Node,
    pub(crate) profile: Profile,
    pub(crate) shared: Arc<Shared>,
    pub(crate) beats: watch::Sender<Option<Arc<Beat>>>,
    /// A new link wishes for a heartbeat of its own: it may not be given one that another
    /// orchestrator, or the same one before, has seen.
    pub(crate) wishes: mpsc::Receiver<()>,
    pub(crate) leaving: CancellationToken,
}

impl Beater {
    pub(crate) async fn run(mut self) {
        let Some(mut models) = self.shared.models.get().map(models::Models::watch) else {
            return;
        };
        let draining = self.shared.draining.clone();
        let interval = Duration::from_millis(HEARTBEAT_INTERVAL_MS);
        let mut seq = 0;
        let mut was_draining = false;
        loop {
            seq += 1;
            let is_leaving = self.leaving.is_cancelled();
            was_draining |= draining.is_cancelled();
            let status = models.borrow_and_update().clone();
            let state = if is_leaving {
                WorkerState::Leaving
            } else {
                models::worker_state(&status, was_draining)
            };
            self.publish(seq, state, &status);
            if is_leaving {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(MIN_INTERVAL) => {}
                () = self.leaving.cancelled() => continue,
            }
            tokio::select! {
                () = tokio::time::sleep(interval.saturating_sub(MIN_INTERVAL)) => {}
                // An error means that the models are gone; the worker is being dropped.
                changed = models.changed() => if changed.is_err() { return },
                () = draining.cancelled(), if !was_draining => {}
                () = self.shared.slots.departure() => {}
                wish = self.wishes.recv() => if wish.is_none() { return },
                () = self.leaving.cancelled() => {}
            }
        }
    }

    fn publish(&self, seq: u64, state: WorkerState, status: &[ModelStatus]) {
        let heartbeat = self.heartbeat(seq, state, status);
        let region = self.node.region().clone();
        let topics = std::iter::once(Topic::Presence(region.clone()))
            .chain(
                heartbeat
                    .models
                    .iter()
                    .map(|offer| Topic::Model(offer.model.clone(), region.clone())),
            )
            .map(|topic| topic.to_string())
            .collect();
        let sealed = match Signed::seal(&self.profile.key, &self.node.mesh().id, &heartbeat) {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::error!(%error, "this worker cannot say that it lives");
                return;
            }
        };
        let item = codec::encode(&Presence {
            heartbeat: sealed.as_bytes().to_vec(),
            topics,
        });
        self.beats.send_replace(Some(Arc::new(Beat {
            item,
            is_goodbye: state == WorkerState::Leaving,
        })));
    }

    fn heartbeat(&self, seq: u64, state: WorkerState, status: &[ModelStatus]) -> Heartbeat {
        let Profile {
            key,
            machine,
            tier,
            price_per_1k_micro,
            epoch,
            ..
        } = &self.profile;
        let load = self.shared.slots.load();
        let pace = self.shared.pace();
        let engine = status.iter().find_map(|model| match &model.state {
            ModelState::Serving(served) => Some(served.engine_version.clone()),
            _ => None,
        });
        Heartbeat {
            worker: key.id(),
            epoch: *epoch,
            seq,
            nonce: rand::random(),
            issued_ms: now_ms(),
            state,
            region: self.node.region().clone(),
            gpu_class: machine.gpu_class.clone(),
            vram_gb: machine.memory_gib,
            accelerators: machine.accelerators,
            capacity: models::capacity(status, self.shared.max_slots),
            queue_depth: load.waiting,
            in_flight: load.running,
            models: models::offers(status),
            faults: models::faults(status),
            price_per_1k_micro: *price_per_1k_micro,
            tier: *tier,
            engine: engine.unwrap_or_default(),
            tokens_per_s: pace.tokens_per_s(),
            first_token_ms: u32::try_from(pace.first_token_ms()).unwrap_or(u32::MAX),
            minor: PROTOCOL_MINOR,
            addresses: self
                .node
                .addresses()
                .iter()
                .take(MAX_ADDRESSES)
                .map(ToString::to_string)
                .collect(),
        }
    }
}
