//! What orchestrators hear of this gateway: that it lives, what it is doing, how much it answers.
//! (PRE-1, PRE-2)

use crate::routes::App;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tether_net::{Herald, Load, Node, Pushes, Told, epoch};
use tether_wire::beat::NodeState;
use tokio::sync::watch;

/// The presence of a gateway, until it says goodbye.
pub(crate) struct Presence {
    told: watch::Sender<Told>,
    pushes: Pushes,
}

/// The number of this run: from the data folder, or the time where a gateway keeps nothing.
pub(crate) fn epoch(data_dir: Option<&Path>) -> io::Result<u64> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or_default();
    data_dir.map_or(Ok(now_ms), |data_dir| epoch::next(data_dir, now_ms))
}

impl Presence {
    /// Says that the gateway serves, and goes on saying so.
    pub(crate) fn start(node: &Node, epoch: u64, app: &Arc<App>) -> Self {
        let (told, telling) = watch::channel(Told {
            state: NodeState::Serving,
            worker: None,
        });
        let asked = app.clone();
        let load = move || Load {
            in_flight: u32::try_from(asked.limits.in_flight()).unwrap_or(u32::MAX),
            ..Load::default()
        };
        let herald = Herald::start(node, epoch, telling, load);
        Self {
            told,
            pushes: Pushes::start(herald, app.orchestrators.links(), || ()),
        }
    }

    /// Says that nothing new is taken.
    pub(crate) fn draining(&self) {
        self.told
            .send_modify(|told| told.state = NodeState::Draining);
    }

    /// Says goodbye and waits until it was heard, for a moment.
    pub(crate) async fn goodbye(&self) {
        self.pushes.goodbye().await;
    }
}
