//! Pushes every heartbeat over the links to the chosen orchestrators.

use crate::presence::beat::Beat;
use std::collections::BTreeMap;
use std::sync::Arc;
use tether_net::{Link, Uplinks, redial_pause};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::NodeId;
use tether_wire::rpc::{Code, RpcError, method};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) struct Links {
    pub(crate) uplinks: Uplinks,
    pub(crate) beats: watch::Receiver<Option<Arc<Beat>>>,
    pub(crate) wishes: mpsc::Sender<()>,
    pub(crate) linked: watch::Sender<usize>,
    pub(crate) metrics: Arc<WorkerMetrics>,
    /// Every task that pushes; the goodbye waits for them.
    pub(crate) tasks: TaskTracker,
    pub(crate) leaving: CancellationToken,
}

impl Links {
    /// Pushes on the links as they come and go, until the worker leaves; the goodbye is pushed on
    /// those that there are then.
    pub(crate) async fn run(self) {
        let mut links = self.uplinks.watch();
        let mut pushed: BTreeMap<NodeId, (Link, CancellationToken)> = BTreeMap::new();
        loop {
            let now = links.borrow_and_update().clone();
            pushed.retain(|_, (link, stop)| {
                let stays = now.iter().any(|chosen| chosen.is_same(link));
                if !stays {
                    stop.cancel();
                }
                stays
            });
            for link in now {
                let id = link.peer().id;
                pushed
                    .entry(id)
                    .or_insert_with(|| (link.clone(), self.push_on(link)));
            }
            tokio::select! {
                () = self.leaving.cancelled() => return,
                changed = links.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Pushes on a link until it is lost, or until what this returns is cancelled.
    fn push_on(&self, link: Link) -> CancellationToken {
        let stop = CancellationToken::new();
        let pusher = Pusher {
            link,
            beats: self.beats.clone(),
            wishes: self.wishes.clone(),
            linked: self.linked.clone(),
            metrics: self.metrics.clone(),
            leaving: self.leaving.clone(),
        };
        let stopped = stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = pusher.run() => {}
                () = stopped.cancelled() => {}
            }
        });
        stop
    }
}

/// Pushes on one link.
struct Pusher {
    link: Link,
    beats: watch::Receiver<Option<Arc<Beat>>>,
    wishes: mpsc::Sender<()>,
    linked: watch::Sender<usize>,
    metrics: Arc<WorkerMetrics>,
    leaving: CancellationToken,
}

impl Pusher {
    async fn run(self) {
        let orchestrator = self.link.peer().id.short();
        let mut failures = 0;
        loop {
            let mut counted = None;
            let end = self.push(&mut counted).await;
            if counted.is_some() {
                failures = 0;
            }
            drop(counted);
            let Err(error) = end else { return };
            if failures == 0 {
                tracing::info!(orchestrator, %error, "heartbeats are not taken any more");
            }
            failures += 1;
            tokio::select! {
                () = tokio::time::sleep(redial_pause(failures)) => {}
                // Another link takes its place.
                () = self.link.until_quiet() => return,
                () = self.leaving.cancelled() => return,
            }
        }
    }

    /// Pushes heartbeats until the call ends or the link is lost, or until the goodbye was heard.
    async fn push(&self, counted: &mut Option<Counted>) -> Result<(), RpcError> {
        let mut beats = self.beats.clone();
        beats.mark_unchanged();
        let mut call = self.link.call(method::PRESENCE, None, &[]).await?;
        // A full channel already holds a wish.
        let _ = self.wishes.try_send(());
        let unavailable = |why| RpcError::new(Code::Unavailable, why);
        loop {
            tokio::select! {
                changed = beats.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = self.link.until_quiet() => {
                    return Err(unavailable("nothing is heard of the orchestrator"));
                }
                ended = call.next() => {
                    let why = "the orchestrator ended the call";
                    return Err(ended.err().unwrap_or_else(|| unavailable(why)));
                }
            }
            let Some(beat) = beats.borrow_and_update().clone() else {
                continue;
            };
            call.send(&beat.item).await?;
            self.metrics.heartbeat_sent();
            counted.get_or_insert_with(|| Counted::new(self.linked.clone(), self.metrics.clone()));
            if beat.is_goodbye {
                call.finish_sending().await;
                // Its end says that it was heard.
                let _ = call.next().await;
                return Ok(());
            }
        }
    }
}

/// An orchestrator that heartbeats are pushed to, counted until it is dropped.
struct Counted {
    linked: watch::Sender<usize>,
    metrics: Arc<WorkerMetrics>,
}

impl Counted {
    fn new(linked: watch::Sender<usize>, metrics: Arc<WorkerMetrics>) -> Self {
        let counted = Self { linked, metrics };
        counted.change(|count| count + 1);
        counted
    }

    fn change(&self, change: impl Fn(usize) -> usize) {
        self.linked.send_modify(|count| {
            *count = change(*count);
            self.metrics.set_orchestrators(*count);
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.change(|count| count.saturating_sub(1));
    }
}
