//! The one task that changes the fleet: heartbeats and suspicions in, snapshots out.
//!
//! What has piled up is taken over together and published once, so that a busy fleet costs one
//! snapshot per batch and a quiet one is current at once.

use super::{Roster, Snapshot};
use crate::clock;
use crate::presence::{Change, Presence, Rejected};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::{Heartbeat, NodeId, Tier, Verified};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Events that wait for the keeper at most; senders wait beyond, and with them their links.
pub const MAX_PENDING: usize = 4_096;
/// Events that one snapshot takes over at most.
pub const MAX_BATCH: usize = 1_024;
/// How often silence is looked for.
const TICK: Duration = Duration::from_millis(250);

/// What the keeper is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// A verified heartbeat and the tier of its worker's grant.
    Beat(Box<Verified<Heartbeat>>, Tier),
    /// A worker may be dead.
    Suspect(NodeId, &'static str),
    /// A worker cannot be linked.
    Unreachable(NodeId, &'static str),
}

/// The fleet, for those who read it and those who have news. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet {
    snapshot: Arc<ArcSwap<Snapshot>>,
    events: mpsc::Sender<Event>,
    changed: watch::Receiver<u64>,
}

impl Fleet {
    /// Starts the keeper; it ends with `stop`.
    #[must_use]
    pub fn start(
        max_workers: usize,
        metrics: Arc<OrchestratorMetrics>,
        stop: CancellationToken,
    ) -> Self {
        let (events, inbox) = mpsc::channel(MAX_PENDING);
        let (published, changed) = watch::channel(0);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let keeper = Keeper {
            presence: Presence::new(max_workers),
            roster: Roster::default(),
            snapshot: snapshot.clone(),
            published,
            metrics,
        };
        tokio::spawn(keeper.run(inbox, stop));
        Self {
            snapshot,
            events,
            changed,
        }
    }

    /// The fleet as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Told whenever a new snapshot is there.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Gives a verified heartbeat to the keeper. Waits while too many are pending.
    pub async fn heard(&self, beat: Verified<Heartbeat>, tier: Tier) {
        // The keeper ends only with the orchestrator, and then nobody needs to know.
        let _ = self.events.send(Event::Beat(Box::new(beat), tier)).await;
    }

    /// Says that a worker may be dead: chosen last until its next heartbeat.
    pub async fn suspect(&self, worker: NodeId, why: &'static str) {
        let _ = self.events.send(Event::Suspect(worker, why)).await;
    }

    /// Says that the link to a worker broke or cannot be had: suspect, and not dialled until it is
    /// heard or a while went by.
    pub async fn unreachable(&self, worker: NodeId, why: &'static str) {
        let _ = self.events.send(Event::Unreachable(worker, why)).await;
    }
}

struct Keeper {
    presence: Presence,
    roster: Roster,
    snapshot: Arc<ArcSwap<Snapshot>>,
    published: watch::Sender<u64>,
    metrics: Arc<OrchestratorMetrics>,
}

impl Keeper {
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {
                    let changes = self.presence.tick(clock::now());
                    self.publish(changes);
                }
                count = inbox.recv_many(&mut batch, MAX_BATCH) => {
                    if count == 0 { return; }
                    let changes = batch.drain(..).filter_map(|event| self.decide(event)).collect();
                    self.publish(changes);
                }
            }
        }
    }

    fn decide(&mut self, event: Event) -> Option<Change> {
        match event {
            Event::Beat(beat, tier) => {
                let worker = beat.worker;
                match self.presence.accept(*beat, tier, clock::now()) {
                    Ok(change) => {
                        self.metrics.heartbeat_accepted();
                        Some(change)
                    }
                    Err(reason) => {
                        reject(&self.metrics, worker, reason);
                        None
                    }
                }
            }
            Event::Suspect(worker, why) => {
                let change = self.presence.suspect(worker);
                if change.is_some() {
                    tracing::warn!(%worker, why, "worker is suspect");
                }
                change
            }
            Event::Unreachable(worker, why) => {
                let change = self.presence.unreachable(worker, clock::now());
                if change.is_some() {
                    tracing::warn!(%worker, why, "worker cannot be reached");
                }
                change
            }
        }
    }

    fn publish(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        for change in changes {
            self.tell(&change);
            self.roster.apply(change);
        }
        let snapshot = self.roster.snapshot();
        self.metrics.set_fleet(&snapshot.counts());
        self.snapshot.store(Arc::new(snapshot));
        self.published.send_modify(|version| *version += 1);
    }

    fn tell(&self, change: &Change) {
        match change {
            Change::Beat { beat, .. } if !self.roster.workers.contains_key(&beat.worker) => {
                tracing::info!(worker = %beat.worker, region = %beat.region,
                    state = beat.state.as_str(), models = beat.models.len(), "worker is there");
            }
            Change::Gone(worker, how) => {
                tracing::info!(%worker, how = ?how, "worker is gone");
            }
            Change::Beat { .. } | Change::Suspect(_) | Change::Unreachable { .. } => {}
        }
    }
}

/// Counts a heartbeat that was dropped. The count is exact; lines are for who debugs, since
/// strangers could fill a log.
pub(crate) fn reject(metrics: &OrchestratorMetrics, worker: NodeId, reason: Rejected) {
    metrics.heartbeat_rejected(reason.as_str());
    tracing::debug!(%worker, reason = reason.as_str(), "heartbeat dropped");
}
