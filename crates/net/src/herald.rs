//! Says that this node lives, and what it is: seals its beats and its card. (PRE-1, PRE-2)
//!
//! # Layout
//!
//! * `cadence` – when the next beat is due; pure
//! * `compose` – what is in it, and when the card is a new one; pure
//! * `push` – which pushes over a call carry the card (pure), and the pushing
//! * `pushes` – over the uplinks of a node, until the goodbye was heard
//!
//! Workers and gateways push what is sealed here over `presence` calls to their orchestrators
//! ([`Pushes`]); an orchestrator spreads its own with those of others.

mod cadence;
mod compose;
mod push;
mod pushes;

pub use compose::{Load, Sealed, Told};
pub use pushes::Pushes;

use crate::node::Node;
use cadence::Cadence;
use compose::{Composer, Identity};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tether_wire::beat::NodeState;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Longest nap; the clock of sleeps and the monotonic one may part.
const LONGEST_NAP: Duration = Duration::from_secs(1);

/// The herald of a node. It speaks until it says goodbye or is dropped.
#[derive(Debug)]
pub struct Herald {
    sealed: watch::Receiver<Option<Arc<Sealed>>>,
    wishes: mpsc::Sender<()>,
    leaving: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Herald {
    /// Speaks for a node in its run `epoch` ([`crate::epoch`]). What it is comes through `told`,
    /// each change of which is said at once; how busy it is is asked with each beat.
    #[must_use]
    pub fn start(
        node: &Node,
        epoch: u64,
        told: watch::Receiver<Told>,
        load: impl Fn() -> Load + Send + 'static,
    ) -> Self {
        let identity = node.identity(epoch);
        let (sender, sealed) = watch::channel(None);
        // One wish is enough to be granted; more mean the same.
        let (wishes, wished) = mpsc::channel(1);
        let leaving = CancellationToken::new();
        let speaker = Speaker {
            node: node.clone(),
            composer: Composer::new(identity),
            told,
            load: Box::new(load),
            sealed: sender,
            wished,
            leaving: leaving.clone(),
        };
        Self {
            sealed,
            wishes,
            leaving,
            _task: AbortOnDropHandle::new(tokio::spawn(speaker.run())),
        }
    }

    /// The newest card and beat, as they come; nothing only before the first.
    #[must_use]
    pub fn sealed(&self) -> watch::Receiver<Option<Arc<Sealed>>> {
        self.sealed.clone()
    }

    /// What makes it speak at once, for what only the load tells.
    #[must_use]
    pub fn nudge(&self) -> Nudge {
        Nudge(self.wishes.clone())
    }

    /// Says goodbye with a last beat, and waits until that is sealed.
    pub async fn goodbye(&self) {
        self.leaving.cancel();
        let mut sealed = self.sealed.clone();
        // An error means that it is over already.
        let _ = sealed
            .wait_for(|it| it.as_ref().is_some_and(|it| it.is_goodbye))
            .await;
    }
}

/// Asks a herald to speak.
#[derive(Clone, Debug)]
pub struct Nudge(mpsc::Sender<()>);

impl Nudge {
    /// Speak soon: the load is another than what was said last. Those that come together are one.
    pub fn soon(&self) {
        // A full channel already holds a wish.
        let _ = self.0.try_send(());
    }
}

struct Speaker {
    node: Node,
    composer: Composer,
    told: watch::Receiver<Told>,
    load: Box<dyn Fn() -> Load + Send>,
    sealed: watch::Sender<Option<Arc<Sealed>>>,
    /// A new call wishes for a beat of its own: it may not be given one that was seen elsewhere.
    wished: mpsc::Receiver<()>,
    leaving: CancellationToken,
}

impl Speaker {
    async fn run(mut self) {
        let started = Instant::now();
        let now_ms = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut cadence = Cadence::new(now_ms());
        let mut is_told = true;
        loop {
            let is_leaving = self.leaving.is_cancelled();
            if is_leaving || cadence.due_ms() <= now_ms() {
                self.speak(is_leaving);
                if is_leaving {
                    return;
                }
                cadence.spoken(now_ms(), rand::random());
            }
            let nap = Duration::from_millis(cadence.due_ms().saturating_sub(now_ms()));
            tokio::select! {
                () = tokio::time::sleep(nap.min(LONGEST_NAP)) => {}
                // Without a teller what was told last holds.
                changed = self.told.changed(), if is_told => match changed {
                    Ok(()) => cadence.changed(now_ms()),
                    Err(_) => is_told = false,
                },
                Some(()) = self.wished.recv() => cadence.changed(now_ms()),
                () = self.leaving.cancelled() => {}
            }
        }
    }

    fn speak(&mut self, is_leaving: bool) {
        let mut told = self.told.borrow_and_update().clone();
        if is_leaving {
            told.state = NodeState::Leaving;
        }
        let addresses = self.node.addresses();
        let (load, nonce) = ((self.load)(), rand::random());
        match (self.composer).compose(&told, &addresses, load, unix_ms(), nonce) {
            Ok(sealed) => {
                self.sealed.send_replace(Some(Arc::new(sealed)));
            }
            Err(error) => tracing::error!(%error, "this node cannot say that it lives"),
        }
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

impl Node {
    fn identity(&self, epoch: u64) -> Identity {
        let config = self.config();
        Identity {
            key: config.key.clone(),
            mesh: config.members.mesh().id,
            role: config.role,
            region: config.region.clone(),
            grant: config.grant.clone(),
            agent: crate::node::AGENT.to_owned(),
            epoch,
        }
    }
}
