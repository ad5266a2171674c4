//! Heartbeats to the orchestrators of the region, announcements on the DHT. (PRE-1, PRE-2, PRE-3)
//!
//! # Layout
//!
//! * `beat` – makes signed heartbeats: every 5 s, and at once on a change that only a worker knows of
//! * `links` – pushes heartbeats over the links to the chosen orchestrators ([`tether_net::Uplinks`])
//! * `announce` – the topics of this worker on the DHT

mod announce;
mod beat;
mod links;

use crate::health::Machine;
use crate::serve::Shared;
use beat::{Beat, Beater};
use links::Links;
use std::sync::Arc;
use std::time::Duration;
use tether_net::{Node, Uplinks};
use tether_wire::{NodeKey, Tier};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long goodbyes may take on all links together.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// What heartbeats need to know of the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) key: NodeKey,
    pub(crate) machine: Machine,
    pub(crate) tier: Tier,
    pub(crate) price_per_1k_micro: u64,
    pub(crate) epoch: u64,
    pub(crate) orchestrators: usize,
}

/// The presence of a worker, until it says goodbye.
#[derive(Debug)]
pub(crate) struct Presence {
    /// Cancelled to say goodbye.
    leaving: CancellationToken,
    links: TaskTracker,
    linked: watch::Receiver<usize>,
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl Presence {
    /// Announces, finds orchestrators, pushes heartbeats.
    pub(crate) fn start(node: Node, profile: Profile, shared: Arc<Shared>) -> Self {
        let leaving = CancellationToken::new();
        let tracker = TaskTracker::new();
        let (beats, beats_receiver) = watch::channel(None::<Arc<Beat>>);
        // One wish is enough to be granted; more mean the same.
        let (wishes, wishes_receiver) = mpsc::channel(1);
        let (linked_sender, linked) = watch::channel(0);
        let models = shared.models.get().map(crate::models::Models::watch);
        let links = Links {
            uplinks: Uplinks::start(&node, profile.orchestrators),
            beats: beats_receiver,
            wishes,
            linked: linked_sender,
            metrics: shared.metrics.clone(),
            tasks: tracker.clone(),
            leaving: leaving.clone(),
        };
        let beater = Beater {
            node: node.clone(),
            profile,
            shared,
            beats,
            wishes: wishes_receiver,
            leaving: leaving.clone(),
        };
        Self {
            leaving,
            links: tracker,
            linked,
            _tasks: [
                AbortOnDropHandle::new(tokio::spawn(beater.run())),
                AbortOnDropHandle::new(tokio::spawn(links.run())),
                AbortOnDropHandle::new(tokio::spawn(announce::run(node, models))),
            ],
        }
    }

    /// Orchestrators that this worker pushes its heartbeats to, as it changes.
    pub(crate) fn linked(&self) -> watch::Receiver<usize> {
        self.linked.clone()
    }

    /// Says goodbye on every link and waits until it was heard, for a moment.
    pub(crate) async fn goodbye(&self) {
        self.leaving.cancel();
        self.links.close();
        if tokio::time::timeout(GOODBYE_TIMEOUT, self.links.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "an orchestrator did not hear the goodbye in time; it will expire this worker"
            );
        }
    }
}
