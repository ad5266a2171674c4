//! Keeps links to the chosen orchestrators and pushes every heartbeat there.

use crate::presence::beat::Beat;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_net::{Link, Lonely, Node};
use tether_presence::plan::{self, Known};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::rpc::{RpcError, method};
use tether_wire::{NodeId, Role, Topic};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a look-up may take before it is given up.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Links {
    pub(crate) node: Node,
    /// How many orchestrators are kept.
    pub(crate) k: usize,
    pub(crate) beats: watch::Receiver<Option<Arc<Beat>>>,
    pub(crate) wishes: mpsc::Sender<()>,
    pub(crate) linked: watch::Sender<usize>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// Every task that keeps a link; the goodbye waits for them.
    pub(crate) tasks: TaskTracker,
    pub(crate) leaving: CancellationToken,
}

/// How a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is dialled for the first time.
    New,
    /// Heartbeats are pushed on it.
    Up,
    /// It was lost, or never came up, and is dialled again.
    Failing,
}

/// A task that keeps one link.
struct Kept {
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
}

impl Links {
    pub(crate) async fn run(self) {
        let control = Topic::Control(self.node.region().clone());
        let mut known = Known::default();
        let mut kept: BTreeMap<NodeId, Kept> = BTreeMap::new();
        let (changes, mut changed) = mpsc::channel(1);
        let mut look_now = true;
        let mut lonely = Lonely::default();
        loop {
            if look_now {
                let found = tokio::select! {
                    () = self.leaving.cancelled() => return,
                    found = tokio::time::timeout(LOOKUP_TIMEOUT, self.node.lookup(&control)) => found,
                };
                match found {
                    Ok(Ok(found)) => known.looked_up(&found),
                    Ok(Err(error)) => tracing::debug!(%error, "no orchestrators were looked up"),
                    Err(_) => tracing::debug!("a look-up of orchestrators took too long"),
                }
            }
            let up = standing(&kept, Standing::Up);
            let failing = standing(&kept, Standing::Failing);
            if lonely.is_due(up.is_empty(), Instant::now()) {
                let (region, mesh) = (self.node.region(), self.node.mesh().id);
                tracing::warn!(
                    "no orchestrator of region {region} is found in mesh {mesh}: check node.mesh, node.region and node.bootstrap, and that an orchestrator runs there"
                );
            }
            self.linked.send_if_modified(|count| {
                let is_new = *count != up.len();
                *count = up.len();
                is_new
            });
            self.metrics.set_orchestrators(up.len());
            let chosen = known.choose(self.node.id(), &up, &failing, self.k);
            kept.retain(|node, kept| {
                let stays = chosen.contains(node);
                if !stays {
                    kept.stop.cancel();
                }
                stays
            });
            for node in chosen {
                kept.entry(node)
                    .or_insert_with(|| self.keep(node, &changes));
            }
            let wait = plan::next_lookup_ms(up.len(), rand::random());
            look_now = tokio::select! {
                () = self.leaving.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(wait)) => true,
                // `changes` lives in this scope, so the channel is open.
                _ = changed.recv() => false,
            };
        }
    }

    fn keep(&self, orchestrator: NodeId, changes: &mpsc::Sender<()>) -> Kept {
        let (sender, standing) = watch::channel(Standing::New);
        let stop = CancellationToken::new();
        let keeper = Keeper {
            node: self.node.clone(),
            orchestrator,
            beats: self.beats.clone(),
            wishes: self.wishes.clone(),
            standing: sender,
            changes: changes.clone(),
            metrics: self.metrics.clone(),
            leaving: self.leaving.clone(),
        };
        let stopped = stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = keeper.run() => {}
                () = stopped.cancelled() => {}
            }
        });
        Kept { standing, stop }
    }
}

/// Those that stand so.
fn standing(kept: &BTreeMap<NodeId, Kept>, wanted: Standing) -> BTreeSet<NodeId> {
    kept.iter()
        .filter(|(_, kept)| *kept.standing.borrow() == wanted)
        .map(|(node, _)| *node)
        .collect()
}

/// Keeps one link: dials, pushes, dials again.
struct Keeper {
    node: Node,
    orchestrator: NodeId,
    beats: watch::Receiver<Option<Arc<Beat>>>,
    wishes: mpsc::Sender<()>,
    standing: watch::Sender<Standing>,
    changes: mpsc::Sender<()>,
    metrics: Arc<WorkerMetrics>,
    leaving: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let orchestrator = self.orchestrator.short();
        let mut failures = 0;
        loop {
            let link = tokio::select! {
                link = self.node.link(self.orchestrator, Role::Orchestrator) => link,
                () = self.leaving.cancelled() => return,
            };
            match link {
                Ok(link) => {
                    let mut pushed = 0;
                    let end = self.push(&link, &mut pushed).await;
                    let Err(error) = end else { return };
                    if pushed > 0 {
                        failures = 0;
                    }
                    tracing::info!(orchestrator, %error, "lost an orchestrator");
                }
                // The first failure may be news, the later ones are not.
                Err(error) if failures == 0 => {
                    tracing::warn!(orchestrator, %error, "cannot link with an orchestrator");
                }
                Err(error) => tracing::debug!(orchestrator, %error, "still no link"),
            }
            self.set(Standing::Failing);
            failures += 1;
            let wait = plan::redial_ms(failures, rand::random());
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                () = self.leaving.cancelled() => return,
            }
        }
    }

    /// Pushes heartbeats until the link is lost, or until the goodbye was heard.
    async fn push(&self, link: &Link, pushed: &mut u64) -> Result<(), RpcError> {
        let mut beats = self.beats.clone();
        beats.mark_unchanged();
        let mut call = link.call(method::PRESENCE, None, &[]).await?;
        // A full channel already holds a wish.
        let _ = self.wishes.try_send(());
        loop {
            tokio::select! {
                changed = beats.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = link.until_quiet() => {
                    let why = "nothing is heard of the orchestrator";
                    return Err(RpcError::new(tether_wire::rpc::Code::Unavailable, why));
                }
                ended = call.next() => {
                    let why = "the orchestrator ended the call";
                    return Err(ended.err().unwrap_or_else(|| {
                        RpcError::new(tether_wire::rpc::Code::Unavailable, why)
                    }));
                }
            }
            let Some(beat) = beats.borrow_and_update().clone() else {
                continue;
            };
            call.send(&beat.item).await?;
            *pushed += 1;
            self.metrics.heartbeat_sent();
            self.set(Standing::Up);
            if beat.is_goodbye {
                call.finish_sending().await;
                // Its end says that it was heard.
                let _ = call.next().await;
                return Ok(());
            }
        }
    }

    fn set(&self, standing: Standing) {
        let changed = self
            .standing
            .send_if_modified(|now| std::mem::replace(now, standing) != standing);
        if changed {
            // A full channel already holds the news.
            let _ = self.changes.try_send(());
        }
    }
}
