//! This orchestrator's own beats, into its own fleet: from there they spread like all others, so
//! that it is defined which orchestrators live. (PRE-5) [T-BEA-2]

use crate::clock;
use crate::dispatch::open::OpenJobs;
use crate::fleet::keeper::Fleet;
use std::sync::Arc;
use std::time::Duration;
use tether_net::{Herald, Load, Members, Node, Sealed, Told};
use tether_presence::spread::FLUSH_MS;
use tether_presence::{Event, Input, Origin, Signatures, Verifier};
use tether_wire::beat::NodeState;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Time for the goodbye to be in a batch and that on its way, before links close.
const LAST_WORDS: Duration = Duration::from_millis(4 * FLUSH_MS);

/// The presence of this orchestrator, until it says goodbye.
pub(crate) struct Own {
    herald: Herald,
    told: watch::Sender<Told>,
    telling: AbortOnDropHandle<()>,
}

impl Own {
    /// Says that it serves, in its run `epoch`.
    pub(crate) fn start(node: &Node, epoch: u64, fleet: Fleet, jobs: OpenJobs) -> Self {
        let (told, telling) = watch::channel(Told {
            state: NodeState::Serving,
            worker: None,
        });
        let load = move || Load {
            in_flight: u32::try_from(jobs.len()).unwrap_or(u32::MAX),
            ..Load::default()
        };
        let herald = Herald::start(node, epoch, telling, load);
        let telling = tokio::spawn(tell(herald.sealed(), node.members().clone(), fleet));
        Self {
            herald,
            told,
            telling: AbortOnDropHandle::new(telling),
        }
    }

    /// Says that nothing new is taken.
    pub(crate) fn draining(&self) {
        self.told
            .send_modify(|told| told.state = NodeState::Draining);
    }

    /// Says goodbye, and gives it time to be on its way.
    pub(crate) async fn goodbye(mut self) {
        self.herald.goodbye().await;
        drop(self.herald);
        // Ends with the last beat.
        let _ = (&mut self.telling).await;
        tokio::time::sleep(LAST_WORDS).await;
    }
}

/// Tells the fleet of each beat, until the last.
async fn tell(mut sealed: watch::Receiver<Option<Arc<Sealed>>>, members: Members, fleet: Fleet) {
    let mut known = None;
    loop {
        let next = sealed.borrow_and_update().clone();
        if let Some(next) = next {
            let members = members.current();
            let verifier = Signatures { members };
            let is_new = known != Some(next.digest);
            let card = is_new.then(|| verifier.card(&next.card, clock::now().unix_ms));
            let beat = verifier.beat(&next.beat);
            match (beat, card.transpose()) {
                (Ok(beat), Ok(card)) => {
                    known = Some(next.digest);
                    let (card, origin) = (card.map(Box::new), Origin::Direct);
                    let event = Event::Beat { beat, card, origin };
                    fleet.tell(Input::Own(event)).await;
                }
                (Err(reason), _) | (_, Err(reason)) => {
                    let reason = reason.as_str();
                    tracing::error!(reason, "this orchestrator would not be believed");
                }
            }
            if next.is_goodbye {
                return;
            }
        }
        if sealed.changed().await.is_err() {
            return;
        }
    }
}
