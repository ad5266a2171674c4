//! The one task that changes the fleet: what nodes say in, snapshots out.
//!
//! It owns the state machine of presence and its spread, and is told by the edges what came,
//! verified. What has piled up is taken over together and published once, so that a busy fleet
//! costs ten snapshots a second and a quiet one is current at once; what counts at once, a doubt or
//! a goodbye, is seen through the snapshot that readers hold. Before silence is looked for, all
//! that waits is taken in: an orchestrator that was slow must not count that as others' silence.

use super::handle::Told;
pub use super::handle::{Fleet, FleetSettings, Outgoing};
use super::merit::Merits;
use super::refusals::Refusals;
use super::roster::{Passage, Roster};
use super::snapshot::Snapshot;
use super::watch::Watch;
use crate::placement::InForce;
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tether_presence::check;
use tether_presence::spread::{FLUSH_MS, MAX_PEERS, ROOM};
use tether_presence::{Effect, Event, Input, Now, Output, Rejected, Spread};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::NodeId;
use tether_wire::spread::Batch;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Inputs that wait for the keeper at most; senders wait beyond, and with them their links.
pub const MAX_PENDING: usize = 4_096;
/// Inputs that are taken over before readers learn of them.
pub const MAX_BATCH: usize = 1_024;
/// Batches that wait for the edge at most: as many as may be under way to all peers.
pub const MAX_OUTGOING: usize = ROOM * MAX_PEERS;
/// Questions for cards that wait beside them.
pub const MAX_ASIDE: usize = 1_024;
/// A busy fleet is published once in this time.
pub const PUBLISH_MS: u64 = 100;
/// How often it is looked whether there is room for what was left out.
const READMIT_MS: u64 = 5_000;
/// How long a worker that lost its link, or could not be linked, is not dialled. A worker that is
/// well links again by itself and is heard at once, so that dialling it would mostly cost a request
/// its time; a dead one is dialled a few times until it expires. [T-LIV-10]
pub const REDIAL_AFTER_MS: u64 = 3_000;

/// Where readers look.
pub(super) struct Readers {
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) published: watch::Sender<u64>,
    pub(super) refusals: Arc<Refusals>,
}

type Clock = Box<dyn Fn() -> Now + Send>;

pub(super) struct Keeper {
    clock: Clock,
    spread: Spread,
    roster: Roster,
    placement: InForce,
    readers: Readers,
    outgoing: mpsc::Sender<Outgoing>,
    outputs: Vec<Output>,
    watch: Watch,
    publish_at_ms: u64,
    rank_at_ms: u64,
    readmit_at_ms: u64,
    /// Whether the metrics count the fleet of now.
    is_counted: bool,
    metrics: Arc<OrchestratorMetrics>,
}

impl Keeper {
    pub(super) fn new(
        settings: FleetSettings,
        readers: Readers,
        outgoing: mpsc::Sender<Outgoing>,
        clock: Clock,
    ) -> Self {
        let FleetSettings {
            id,
            presence,
            placement,
            seed,
            ..
        } = settings;
        let roster = Roster::new(Merits {
            weights: placement.load().weights,
            seed,
        });
        // What is counted in it counts for readers from the first look on.
        readers.snapshot.store(Arc::new(roster.snapshot()));
        Self {
            spread: Spread::new(id, presence, clock(), seed),
            clock,
            roster,
            placement,
            readers,
            outgoing,
            outputs: Vec::new(),
            watch: Watch::default(),
            publish_at_ms: 0,
            rank_at_ms: 0,
            readmit_at_ms: 0,
            is_counted: false,
            metrics: settings.metrics,
        }
    }

    /// Keeps the fleet until `stop`.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Told>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(Duration::from_millis(FLUSH_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            self.watch.sleep((self.clock)());
            let ticks = tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => true,
                count = inbox.recv_many(&mut batch, MAX_BATCH) => {
                    if count == 0 { return; }
                    false
                }
            };
            let now = (self.clock)();
            if let Some(ms) = self.watch.wake(now) {
                tracing::warn!(
                    ms,
                    "the orchestrator was not run; nobody's silence is counted"
                );
            }
            for told in batch.drain(..) {
                self.take(told, now);
            }
            if ticks {
                for _ in 0..inbox.len() {
                    let Ok(told) = inbox.try_recv() else { break };
                    self.take(told, now);
                }
                self.tick(now);
            }
            self.publish();
        }
    }

    fn take(&mut self, told: Told, now: Now) {
        match told {
            Told::Input(input) => self.handle(*input, now),
            Told::Suspect(worker, why) => {
                if self.roster.is_well(&worker) {
                    tracing::warn!(%worker, why, "worker is suspect");
                }
                self.handle(Input::Own(Event::LinkQuiet(worker)), now);
            }
            Told::Unreachable(node, why) => {
                self.handle(Input::Own(Event::LinkLost(node)), now);
                let until = now.mono_ms.saturating_add(REDIAL_AFTER_MS);
                if self.roster.unreachable(&node, now.mono_ms, until) {
                    tracing::warn!(worker = %node, why, "worker cannot be reached");
                }
            }
            Told::Sift(batch, reply) => {
                let _ = reply.send(check::sift(*batch, &self.spread));
            }
            Told::Look(look) => (look.0)(&self.spread, &self.roster, self.watch.counted(now)),
        }
    }

    fn tick(&mut self, now: Now) {
        self.handle(Input::Tick, now);
        if now.mono_ms >= self.rank_at_ms {
            self.roster.weigh(self.placement.load().weights);
            self.rank_at_ms = self.roster.rank(now.mono_ms);
        }
        if now.mono_ms >= self.readmit_at_ms {
            self.readmit_at_ms = now.mono_ms + READMIT_MS;
            self.roster.readmit();
        }
        if !std::mem::replace(&mut self.is_counted, true) {
            self.metrics.set_fleet(&self.roster.counts());
            self.metrics.set_nodes(&self.roster.others());
            self.roster.count_peers();
        }
    }

    fn handle(&mut self, input: Input, now: Now) {
        let mut outputs = std::mem::take(&mut self.outputs);
        let now = self.watch.counted(now);
        self.spread.handle(input, now, &mut outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, batch } => self.send(to, Box::new(batch), now),
                Output::Effect(effect) => self.apply(effect),
            }
        }
        self.outputs = outputs;
    }

    fn send(&mut self, to: NodeId, batch: Box<Batch>, now: Now) {
        if let Err(error) = self.outgoing.try_send(Outgoing::Send { to, batch }) {
            // Only where peers come and go faster than the edge follows. What is lost is found by
            // comparison; the room for it must not be.
            tracing::debug!(peer = %to, %error, "a batch is dropped");
            let mut none = Vec::new();
            self.spread.handle(Input::Written(to), now, &mut none);
        }
    }

    /// What may be dropped never takes the place of batches.
    fn aside(&self, outgoing: Outgoing) {
        if self.outgoing.capacity() > MAX_OUTGOING {
            let _ = self.outgoing.try_send(outgoing);
        }
    }

    fn apply(&mut self, mut effect: Effect) {
        match &mut effect {
            Effect::Beat { heard_mono_ms, .. } => {
                self.metrics.heartbeat_accepted();
                *heard_mono_ms = self.watch.real_mono_ms(*heard_mono_ms);
            }
            Effect::Suspect(node) => tracing::debug!(%node, "node is suspect"),
            Effect::Gone { node, how } => {
                tracing::debug!(%node, how = how.as_str(), "node is gone");
            }
            Effect::WantCard { node, .. } => self.aside(Outgoing::WantCard(*node)),
            Effect::Clone { node, epoch, other } => {
                tracing::warn!(%node, epoch, other, "two processes run with one key");
            }
            Effect::Rejected { node, reason } => {
                reject(&self.metrics, *node, *reason);
                if let Some(node) = node {
                    let now_ms = (self.clock)().mono_ms;
                    self.readers.refusals.put(*node, *reason, now_ms);
                }
            }
            Effect::Carded(_) | Effect::Well(_) => {}
        }
        match self.roster.apply(effect) {
            Some(Passage::Came(worker)) => {
                tracing::info!(worker = %worker.id(), region = %worker.region(),
                    state = worker.state.as_str(), models = worker.card().models.len(),
                    "worker is there");
            }
            Some(Passage::Went(worker)) => tracing::info!(%worker, "worker is gone"),
            None => {}
        }
    }

    fn publish(&mut self) {
        let news = self.roster.news();
        let now_ms = (self.clock)().mono_ms;
        let is_due = now_ms >= self.publish_at_ms;
        if news.is_stale() && is_due {
            self.publish_at_ms = now_ms + PUBLISH_MS;
            self.readers
                .snapshot
                .store(Arc::new(self.roster.snapshot()));
        }
        if news.noted || (news.changed && is_due) {
            self.is_counted = false;
            self.readers.published.send_modify(|version| *version += 1);
        }
        self.roster.told(is_due);
    }
}

/// Counts a heartbeat or a card that was dropped. The count is exact; lines are for who debugs,
/// since strangers could fill a log.
pub(crate) fn reject(metrics: &OrchestratorMetrics, node: Option<NodeId>, reason: Rejected) {
    metrics.heartbeat_rejected(reason.as_str());
    let node = node.map(|node| node.to_hex());
    tracing::debug!(node, reason = reason.as_str(), "heartbeat dropped");
}

#[cfg(test)]
mod tests;
