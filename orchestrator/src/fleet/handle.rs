//! The fleet as others have it: to read, and to tell what came.

use super::keeper::{Keeper, MAX_ASIDE, MAX_OUTGOING, MAX_PENDING, Readers};
use super::refusals::{Refusal, Refusals};
use super::roster::Roster;
use super::snapshot::Snapshot;
use crate::clock;
use crate::placement::InForce;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tether_presence::check::Sifted;
use tether_presence::{Input, Now, Rejected, Settings, Spread};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::NodeId;
use tether_wire::spread::Batch;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// What a fleet is started with.
#[derive(Debug)]
pub struct FleetSettings {
    /// This orchestrator.
    pub id: NodeId,
    /// Bounds of presence.
    pub presence: Settings,
    /// By what the best workers are told.
    pub placement: InForce,
    /// Random: for jitter and the order of equals.
    pub seed: u64,
    /// What is counted.
    pub metrics: Arc<OrchestratorMetrics>,
    /// Ends the keeper.
    pub stop: CancellationToken,
}

/// What the keeper has for the edge of links.
#[derive(Debug)]
pub enum Outgoing {
    /// A batch for a peer. When it is written to its link, or can never be, tell
    /// [`Input::Written`]; no answer is needed once [`Input::PeerDown`] was told.
    Send {
        /// Which orchestrator.
        to: NodeId,
        /// What.
        batch: Box<Batch>,
    },
    /// A node pushed a beat whose card is not held: it is to be asked for it over its call. Asked
    /// again with its next beat, so this may be dropped.
    WantCard(NodeId),
}

/// What the keeper is told.
#[derive(Debug)]
pub(super) enum Told {
    Input(Box<Input>),
    Suspect(NodeId, &'static str),
    Unreachable(NodeId, &'static str),
    Sift(Box<Batch>, oneshot::Sender<Sifted>),
    Look(Look),
}

/// A question that the keeper answers by itself.
pub(super) struct Look(pub(super) Box<Ask>);
type Ask = dyn FnOnce(&Spread, &Roster, Now) + Send;

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Look")
    }
}

/// The fleet, for those who read it and those who have news. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fleet {
    snapshot: Arc<ArcSwap<Snapshot>>,
    inbox: mpsc::Sender<Told>,
    changed: watch::Receiver<u64>,
    refusals: Arc<Refusals>,
}

impl Fleet {
    /// Starts the keeper. What comes back beside it is for the edge of links.
    #[must_use]
    pub fn start(settings: FleetSettings) -> (Self, mpsc::Receiver<Outgoing>) {
        Self::start_by(settings, clock::now)
    }

    /// The same by another clock.
    pub(super) fn start_by(
        settings: FleetSettings,
        clock: impl Fn() -> Now + Send + 'static,
    ) -> (Self, mpsc::Receiver<Outgoing>) {
        let (inbox, told) = mpsc::channel(MAX_PENDING);
        let (outgoing, edge) = mpsc::channel(MAX_OUTGOING + MAX_ASIDE);
        let (published, changed) = watch::channel(0);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let refusals = Arc::<Refusals>::default();
        let readers = Readers {
            refusals: refusals.clone(),
            snapshot: snapshot.clone(),
            published,
        };
        let stop = settings.stop.clone();
        let keeper = Keeper::new(settings, readers, outgoing, Box::new(clock));
        tokio::spawn(keeper.run(told, stop));
        let fleet = Self {
            snapshot,
            inbox,
            changed,
            refusals,
        };
        (fleet, edge)
    }

    /// The fleet as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Told whenever a node came, went, changed, or is doubted; not of each change of load.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Tells what came, verified. Waits while too much is pending; who gets how much of that is
    /// the edge's to decide.
    pub async fn tell(&self, input: Input) {
        // The keeper ends only with the orchestrator, and then nobody needs to know.
        let _ = self.inbox.send(Told::Input(Box::new(input))).await;
    }

    /// Takes out of a peer's batch what is held already, before a verification is spent on it.
    /// Nothing once the orchestrator ends.
    pub async fn sift(&self, batch: Batch) -> Option<Sifted> {
        let (reply, sifted) = oneshot::channel();
        let _ = self.inbox.send(Told::Sift(Box::new(batch), reply)).await;
        sifted.await.ok()
    }

    /// The sealed cards of all nodes that live. Nothing once the orchestrator ends.
    pub async fn cards(&self) -> Vec<Arc<[u8]>> {
        let cards = self.look(|spread, _, _| {
            let all = spread.presence().iter();
            all.filter_map(|it| it.sealed_card().cloned()).collect()
        });
        cards.await.unwrap_or_default()
    }

    /// Remembers that something of a node was refused before it came here, for people.
    pub(crate) fn refused(&self, node: NodeId, reason: Rejected) {
        self.refusals.put(node, reason, clock::now().mono_ms);
    }

    /// The last refusals, by node.
    #[must_use]
    pub fn refusals(&self) -> Vec<Refusal> {
        self.refusals.all()
    }

    /// Looks at what presence knows beyond the snapshot, at the time by which silence is counted,
    /// for people. The keeper waits meanwhile: it must not take long. Nothing once the orchestrator
    /// ends.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Spread, &Roster, Now) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let ask = move |spread: &Spread, roster: &Roster, now| {
            // Whoever asked may have gone.
            let _ = reply.send(ask(spread, roster, now));
        };
        let _ = self.inbox.send(Told::Look(Look(Box::new(ask)))).await;
        answer.await.ok()
    }

    /// Says that a worker may be dead: chosen last until its next heartbeat, or until its link
    /// speaks again.
    pub async fn suspect(&self, worker: NodeId, why: &'static str) {
        let _ = self.inbox.send(Told::Suspect(worker, why)).await;
    }

    /// Says that the link to a node broke or cannot be had: suspect, and not dialled until it is
    /// heard or a while went by.
    pub async fn unreachable(&self, node: NodeId, why: &'static str) {
        let _ = self.inbox.send(Told::Unreachable(node, why)).await;
    }
}
