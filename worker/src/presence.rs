//! What orchestrators and the DHT hear of this worker. (PRE-1, PRE-2, PRE-3)
//!
//! A [`Herald`] speaks for it: every 5 s, at once when its models or its state change, and when its
//! load is another than its orchestrators can know.
//!
//! # Layout
//!
//! * `telling` – what is said: the card's offers, and the state
//! * `announce` – the topics of this worker on the DHT

mod announce;
mod telling;

use crate::models::Models;
use crate::serve::Shared;
use std::sync::Arc;
pub(crate) use telling::Profile;
use telling::Teller;
use tether_net::{Herald, Node, Nudge, Pushes, UplinkLook, Uplinks};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The presence of a worker, until it says goodbye.
#[derive(Debug)]
pub(crate) struct Presence {
    pushes: Pushes,
    uplinks: Uplinks,
    _tasks: [AbortOnDropHandle<()>; 4],
}

impl Presence {
    /// Announces, finds orchestrators, says that the worker lives; `epoch` is the number of this
    /// run, `orchestrators` with how many it keeps links.
    pub(crate) fn start(
        node: &Node,
        epoch: u64,
        orchestrators: usize,
        profile: Profile,
        shared: &Arc<Shared>,
        models: &Models,
    ) -> Self {
        let teller = Teller {
            profile,
            max_slots: shared.max_slots,
            draining: shared.draining.clone(),
            models: models.watch(),
            strain: shared.health.strain(),
        };
        let (told, telling) = watch::channel(teller.told());
        let loaded = shared.clone();
        let herald = Herald::start(node, epoch, telling, move || telling::load(&loaded));
        let departures = tell_departures(shared.clone(), herald.nudge());
        let uplinks = Uplinks::start(node, orchestrators);
        let metrics = shared.metrics.clone();
        let pushes = Pushes::start(herald, uplinks.watch(), move || metrics.heartbeat_sent());
        let counting = count(shared.clone(), pushes.hearing());
        let announcing = announce::run(node.clone(), models.watch());
        Self {
            pushes,
            uplinks,
            _tasks: [
                AbortOnDropHandle::new(tokio::spawn(teller.run(told))),
                AbortOnDropHandle::new(tokio::spawn(departures)),
                AbortOnDropHandle::new(tokio::spawn(counting)),
                AbortOnDropHandle::new(tokio::spawn(announcing)),
            ],
        }
    }

    /// Orchestrators that hear this worker, as it changes.
    pub(crate) fn linked(&self) -> watch::Receiver<usize> {
        self.pushes.hearing()
    }

    /// To look at the orchestrators that are known.
    pub(crate) fn look(&self) -> UplinkLook {
        self.uplinks.look()
    }

    /// Says goodbye on every link and waits until it was heard, for a moment.
    pub(crate) async fn goodbye(&self) {
        self.pushes.goodbye().await;
    }
}

/// What whoever gave an order cannot know: that its request still runs after its caller went, and
/// when it does no longer.
async fn tell_departures(shared: Arc<Shared>, nudge: Nudge) {
    loop {
        shared.slots.departure().await;
        nudge.soon();
    }
}

async fn count(shared: Arc<Shared>, mut hearing: watch::Receiver<usize>) {
    loop {
        let count = *hearing.borrow_and_update();
        shared.metrics.set_orchestrators(count);
        if hearing.changed().await.is_err() {
            return;
        }
    }
}
