//! Pushes a herald's beats over a node's uplinks, as these come and go, until the goodbye was heard.

use super::{Herald, push};
use crate::link::Link;
use crate::uplinks::redial_pause;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::NodeId;
use tether_wire::rpc::RpcError;
use tether_wire::spread::PUSHED_TO;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long goodbyes may take on all links together.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Counts pushes.
pub(super) type Pushed = Arc<dyn Fn() + Send + Sync>;

/// The pushes of a node to its orchestrators. They end when this is dropped, or well with
/// [`Pushes::goodbye`].
#[derive(Debug)]
pub struct Pushes {
    herald: Arc<Herald>,
    hearing: watch::Receiver<usize>,
    /// Every task that pushes; the goodbye waits for them.
    tasks: TaskTracker,
    leaving: CancellationToken,
    _keeper: AbortOnDropHandle<()>,
}

impl Pushes {
    /// Pushes over the first [`PUSHED_TO`] links of [`crate::Uplinks::watch`]; `pushed` is called
    /// for each push.
    #[must_use]
    pub fn start(
        herald: Herald,
        links: watch::Receiver<Vec<Link>>,
        pushed: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let herald = Arc::new(herald);
        let (counted, hearing) = watch::channel(0);
        let (tasks, leaving) = (TaskTracker::new(), CancellationToken::new());
        let keeper = Keeper {
            herald: herald.clone(),
            pushed: Arc::new(pushed),
            counted,
            tasks: tasks.clone(),
            leaving: leaving.clone(),
        };
        Self {
            herald,
            hearing,
            tasks,
            leaving,
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeper.run(links))),
        }
    }

    /// Orchestrators that hear this node's beats, as it changes.
    #[must_use]
    pub fn hearing(&self) -> watch::Receiver<usize> {
        self.hearing.clone()
    }

    /// Says goodbye on every link and waits until it was heard, for a moment.
    pub async fn goodbye(&self) {
        self.herald.goodbye().await;
        self.leaving.cancel();
        self.tasks.close();
        let heard = tokio::time::timeout(GOODBYE_TIMEOUT, self.tasks.wait());
        if heard.await.is_err() {
            tracing::warn!(
                "an orchestrator did not hear the goodbye in time; it will expire this node"
            );
        }
    }
}

struct Keeper {
    herald: Arc<Herald>,
    pushed: Pushed,
    counted: watch::Sender<usize>,
    tasks: TaskTracker,
    leaving: CancellationToken,
}

impl Keeper {
    /// The goodbye is pushed on the links that there are then.
    async fn run(self, mut links: watch::Receiver<Vec<Link>>) {
        let mut pushed: BTreeMap<NodeId, (Link, AbortOnDropToken)> = BTreeMap::new();
        loop {
            let mut now = links.borrow_and_update().clone();
            now.truncate(PUSHED_TO);
            pushed.retain(|_, (link, _)| now.iter().any(|chosen| chosen.is_same(link)));
            for link in now {
                let id = link.peer().id;
                (pushed.entry(id)).or_insert_with(|| (link.clone(), self.push_on(link)));
            }
            tokio::select! {
                () = self.leaving.cancelled() => break,
                changed = links.changed() => if changed.is_err() { break },
            }
        }
        // The last pushes end by themselves.
        self.tasks.wait().await;
    }

    /// Pushes on a link until it is lost, or until what this returns is dropped.
    fn push_on(&self, link: Link) -> AbortOnDropToken {
        let stop = CancellationToken::new();
        let pusher = Pusher {
            herald: self.herald.clone(),
            link,
            pushed: self.pushed.clone(),
            counted: self.counted.clone(),
            leaving: self.leaving.clone(),
        };
        let stopped = stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = pusher.run() => {}
                () = stopped.cancelled() => {}
            }
        });
        AbortOnDropToken(stop)
    }
}

/// Cancels when it is dropped.
struct AbortOnDropToken(CancellationToken);

impl Drop for AbortOnDropToken {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Pushes on one link.
struct Pusher {
    herald: Arc<Herald>,
    link: Link,
    pushed: Pushed,
    counted: watch::Sender<usize>,
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
                tracing::info!(orchestrator, %error, "beats are not taken any more");
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

    async fn push(&self, counted: &mut Option<Counted>) -> Result<(), RpcError> {
        let (sealed, wishes) = (self.herald.sealed(), self.herald.wishes.clone());
        let on_push = || {
            (self.pushed)();
            counted.get_or_insert_with(|| Counted::new(self.counted.clone()));
        };
        push::run(self.link.clone(), sealed, wishes, on_push).await
    }
}

/// An orchestrator that beats are pushed to, counted until it is dropped.
struct Counted(watch::Sender<usize>);

impl Counted {
    fn new(count: watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.0).send_modify(|count| *count = count.saturating_sub(1));
    }
}
