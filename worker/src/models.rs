//! From a folder to a served model: verified, loaded, offered; or a fault with its reason. (WRK-5)
//!
//! A model that is refused leaves the worker up and the other models alone. A failed verification
//! is final until the worker starts again; an engine that fails is started again by its supervisor,
//! after its files were verified again.

mod keeper;
mod server;

use crate::config::WorkerConfig;
use crate::engine::{Engine, EngineCommand};
use keeper::Keeper;
use server::ServerKeeper;
use std::path::Path;
use std::sync::Arc;
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::beat::NodeState;
use tether_wire::card::{ModelFault, ModelOffer};
use tether_wire::{Digest, ModelRef};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

/// Most bytes of the words about a fault, so that it fits a card.
const MAX_REASON_BYTES: usize = 400;
/// Most bytes of all faults in a card together: less than half of what a card may have.
const MAX_FAULTS_BYTES: usize = 6 * 1024;
/// Most bytes of the name of what was to be served, so that it fits a card.
const MAX_CONFIGURED_BYTES: usize = 200;

/// One model of the configuration, and what became of it.
#[derive(Clone, Debug)]
pub struct ModelStatus {
    /// The folder, as configured.
    pub configured: String,
    /// What became of it.
    pub state: ModelState,
}

/// What became of a model.
#[derive(Clone, Debug)]
pub enum ModelState {
    /// Its files are read and compared with the manifest.
    Verifying,
    /// Its engine starts.
    Loading {
        /// Name and version.
        model: ModelRef,
        /// Digest of its manifest.
        digest: Digest,
    },
    /// It is served.
    Serving(Served),
    /// It is not served.
    Faulted {
        /// Its digest, where it was served before.
        digest: Option<Digest>,
        /// A stable code: `ArtifactError::code`, or `engine-…`.
        code: &'static str,
        /// For people.
        reason: String,
    },
}

/// A model that answers.
#[derive(Clone, Debug)]
pub struct Served {
    /// What the worker's card says of it.
    pub offer: ModelOffer,
    /// Engine and version.
    pub engine_version: String,
    /// Most answers that the engine gives at once.
    pub sequences: u32,
    /// Most bytes of text that one of its tokens stands for, where the engine knows.
    pub max_token_bytes: Option<u32>,
    /// The engine's process.
    pub pid: Option<u32>,
    /// The engine.
    pub engine: Engine,
}

/// Whether an order for a digest can be run.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Yes.
    Served(Served),
    /// Not now, and why.
    NotNow(String),
    /// This worker has no such model.
    Unknown,
}

/// The models of a worker. Dropping it ends their engines.
#[derive(Debug)]
pub(crate) struct Models {
    /// Held here too, so that it outlives the keepers of models that are given up.
    status: Arc<watch::Sender<Vec<ModelStatus>>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Models {
    /// Starts to verify and load every configured model.
    pub(crate) fn start(
        config: &WorkerConfig,
        data_dir: &Path,
        command: &EngineCommand,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let initial = config
            .models
            .iter()
            .map(|model| ModelStatus {
                configured: model.path.display().to_string(),
                state: ModelState::Verifying,
            })
            .chain(config.servers.iter().map(|server| ModelStatus {
                configured: format!("{} at {}", server.model, server.url),
                state: ModelState::Verifying,
            }))
            .collect();
        let status = Arc::new(watch::Sender::new(initial));
        // One after the other: hashing is bound by the disk, or by one core.
        let turns = Arc::new(Semaphore::new(1));
        let tasks = config
            .models
            .iter()
            .enumerate()
            .map(|(index, model)| {
                let keeper = Keeper {
                    index,
                    status: status.clone(),
                    config: config.clone(),
                    command: command.clone(),
                    metrics: metrics.clone(),
                    views: data_dir.join("engine-views"),
                };
                AbortOnDropHandle::new(tokio::spawn(keeper.run(model.clone(), turns.clone())))
            })
            .chain(config.servers.iter().enumerate().map(|(nth, server)| {
                let keeper = ServerKeeper {
                    index: config.models.len() + nth,
                    status: status.clone(),
                    config: config.clone(),
                    metrics: metrics.clone(),
                };
                AbortOnDropHandle::new(tokio::spawn(keeper.run(server.clone())))
            }))
            .collect();
        Self {
            status,
            _tasks: tasks,
        }
    }

    /// All models, as they change.
    pub(crate) fn watch(&self) -> watch::Receiver<Vec<ModelStatus>> {
        self.status.subscribe()
    }

    pub(crate) fn find(&self, digest: &Digest) -> Found {
        find(&self.status.borrow(), digest)
    }

    /// Ends every engine and waits until their processes are gone.
    pub(crate) async fn stop(&self) {
        let engines: Vec<Engine> = self
            .status
            .borrow()
            .iter()
            .filter_map(|status| match &status.state {
                ModelState::Serving(served) => Some(served.engine.clone()),
                _ => None,
            })
            .collect();
        for engine in engines {
            engine.stop().await;
        }
    }
}

fn find(models: &[ModelStatus], digest: &Digest) -> Found {
    for model in models {
        match &model.state {
            ModelState::Serving(served) if served.offer.digest == *digest => {
                return Found::Served(served.clone());
            }
            ModelState::Loading { digest: found, .. } if found == digest => {
                return Found::NotNow("the model is being loaded".to_owned());
            }
            ModelState::Faulted {
                digest: Some(found),
                reason,
                ..
            } if found == digest => return Found::NotNow(reason.clone()),
            _ => {}
        }
    }
    Found::Unknown
}

/// What the card offers.
pub(crate) fn offers(models: &[ModelStatus]) -> Vec<ModelOffer> {
    models
        .iter()
        .filter_map(|model| match &model.state {
            ModelState::Serving(served) => Some(served.offer.clone()),
            _ => None,
        })
        .collect()
}

/// Requests that these models answer at once, within `slots`: each engine as many as it can. What
/// is beyond waits in the queue of the worker, and never unseen in an engine.
pub(crate) fn capacity(models: &[ModelStatus], slots: u32) -> u32 {
    let sequences = models.iter().fold(0_u32, |sum, model| match &model.state {
        ModelState::Serving(served) => sum.saturating_add(served.sequences),
        _ => sum,
    });
    sequences.clamp(1, slots.max(1))
}

/// What the card says of models that should be served and are not. The more there are, the shorter
/// each is told, so that there is room for what is served; all is in the log.
pub(crate) fn faults(models: &[ModelStatus]) -> Vec<ModelFault> {
    let faulted: Vec<_> = models
        .iter()
        .filter_map(|model| match &model.state {
            ModelState::Faulted { code, reason, .. } => Some((&model.configured, code, reason)),
            _ => None,
        })
        .collect();
    let half = MAX_FAULTS_BYTES / faulted.len().max(1) / 2;
    faulted
        .into_iter()
        .map(|(configured, code, reason)| ModelFault {
            model: cut(configured, MAX_CONFIGURED_BYTES.min(half)),
            reason: cut(&format!("{code}: {reason}"), MAX_REASON_BYTES.min(half)),
        })
        .collect()
}

/// What a worker with these models is doing: it serves as soon as it can serve one of them, and
/// when nothing is under way any more, even if there is nothing to serve.
pub(crate) fn worker_state(models: &[ModelStatus], is_draining: bool) -> NodeState {
    if is_draining {
        return NodeState::Draining;
    }
    let serves = models
        .iter()
        .any(|model| matches!(model.state, ModelState::Serving(_)));
    let is_under_way = models.iter().any(|model| {
        matches!(
            model.state,
            ModelState::Verifying | ModelState::Loading { .. }
        )
    });
    if serves || !is_under_way {
        NodeState::Serving
    } else {
        NodeState::Starting
    }
}

/// At most `limit` bytes of a text, cut between characters.
fn cut(text: &str, limit: usize) -> String {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: ModelState) -> ModelStatus {
        ModelStatus {
            configured: "m".repeat(1_000),
            state,
        }
    }

    fn fault(digest: Option<Digest>) -> ModelStatus {
        status(ModelState::Faulted {
            digest,
            code: "corrupt-file",
            reason: "é".repeat(1_000),
        })
    }

    #[test]
    fn many_faults_are_told_shortly_and_leave_room_in_the_card() {
        let many: Vec<_> = (0..64).map(|_| fault(None)).collect();
        let told = faults(&many);
        assert_eq!(told.len(), 64, "none is kept secret");
        let bytes: usize = told.iter().map(|it| it.model.len() + it.reason.len()).sum();
        assert!(bytes <= MAX_FAULTS_BYTES, "{bytes} bytes");
        assert!(told.iter().all(|it| it.reason.starts_with("corrupt-file")));
    }

    #[test]
    fn a_worker_serves_once_nothing_is_under_way_any_more() {
        let verifying = || status(ModelState::Verifying);
        assert_eq!(worker_state(&[], false), NodeState::Serving);
        assert_eq!(
            worker_state(&[verifying(), fault(None)], false),
            NodeState::Starting
        );
        assert_eq!(worker_state(&[fault(None)], false), NodeState::Serving);
        assert_eq!(worker_state(&[verifying()], true), NodeState::Draining);
    }

    #[test]
    fn a_fault_of_any_length_fits_a_card() {
        let faults = faults(&[fault(None)]);
        assert!(faults[0].model.len() + faults[0].reason.len() <= 640);
        assert!(faults[0].reason.starts_with("corrupt-file: é"));
    }

    #[test]
    fn a_model_whose_engine_is_down_is_known_and_not_offered() {
        let digest = Digest([1; 32]);
        let models = [fault(Some(digest)), fault(None)];
        assert!(matches!(find(&models, &digest), Found::NotNow(_)));
        assert!(matches!(find(&models, &Digest([2; 32])), Found::Unknown));
        assert!(offers(&models).is_empty());
    }
}
