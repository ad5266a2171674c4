//! Whom a worker that joins asks, for how long, and what the answers come to.
//!
//! Anybody may announce itself as an orchestrator, be slow, and refuse. So the patience bounds all of
//! it, whoever is being waited for, and a refusal counts where the one who refuses has proved to be
//! an orchestrator. Even then another may let the worker in, and is asked before it is believed.

use super::JoinError;
use futures_util::{StreamExt, stream};
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;
use tether_wire::NodeId;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

/// How many are asked at once.
const AT_ONCE: usize = 4;
/// Attempts in a row in which all orchestrators that answered refused, after which it is believed.
const REFUSED_ROUNDS: u32 = 2;

/// How long is waited.
pub(super) struct Times {
    /// In all.
    pub(super) patience: Duration,
    /// Pauses between two attempts: the first, and the longest.
    pub(super) first_pause: Duration,
    pub(super) longest_pause: Duration,
}

/// The nodes among which somebody is to let a worker in.
pub(super) trait Around {
    /// What it then has.
    type In;

    /// Whom to ask now, in this order.
    fn look_up(&self) -> impl Future<Output = Vec<NodeId>>;

    /// What one of them says.
    fn ask(&self, id: NodeId) -> impl Future<Output = Said<Self::In>>;
}

/// What one peer said.
pub(super) enum Said<In> {
    In(In),
    /// By one that has proved to be an orchestrator.
    Refused(JoinError),
    /// By one that has not.
    Unproven(String),
    Nothing(String),
}

/// Why nobody let a worker in.
#[derive(Debug)]
pub(super) enum Failure {
    Refused(JoinError),
    /// Most that were found at once, and what was the matter with them.
    Nobody {
        found: usize,
        why: String,
    },
}

/// What was heard so far.
#[derive(Default)]
struct Heard {
    found: usize,
    refusal: Option<JoinError>,
    trouble: Option<String>,
    unproven: BTreeSet<NodeId>,
    /// Those of whom it was told already.
    told: BTreeSet<NodeId>,
}

/// Asks around until somebody lets this worker in, all refuse, or the patience is over.
pub(super) async fn search<A: Around>(around: &A, times: &Times) -> Result<A::In, Failure> {
    let mut heard = Heard::default();
    let patience = Instant::now() + times.patience;
    match timeout_at(patience, rounds(around, times, &mut heard)).await {
        Ok(Some(it)) => Ok(it),
        Ok(None) | Err(_) => Err(heard.failure()),
    }
}

/// Nothing where all orchestrators refuse.
async fn rounds<A: Around>(around: &A, times: &Times, heard: &mut Heard) -> Option<A::In> {
    let mut pause = times.first_pause;
    let mut refused_rounds = 0;
    loop {
        let found = around.look_up().await;
        let count = found.len();
        heard.found = heard.found.max(count);
        let (mut refusals, mut troubles) = (0, 0);
        let mut asked = stream::iter(found)
            .map(|id| async move { (id, around.ask(id).await) })
            .buffer_unordered(AT_ONCE);
        while let Some((id, said)) = asked.next().await {
            match said {
                Said::In(it) => return Some(it),
                Said::Refused(error) => {
                    heard.refuses(id, error);
                    refusals += 1;
                }
                Said::Unproven(why) => heard.strange(id, &why),
                Said::Nothing(why) => {
                    heard.troubles(id, why);
                    troubles += 1;
                }
            }
        }
        refused_rounds = match (refusals, troubles) {
            (1.., 0) => refused_rounds + 1,
            _ => 0,
        };
        if refused_rounds >= REFUSED_ROUNDS {
            return None;
        }
        if count == 0 && pause == times.longest_pause {
            info!("still looking for an orchestrator");
        }
        sleep(pause).await;
        pause = (pause * 2).min(times.longest_pause);
    }
}

impl Heard {
    fn refuses(&mut self, id: NodeId, error: JoinError) {
        if self.told.insert(id) {
            warn!(peer = %id, "not let in there: {error}");
        }
        self.refusal = Some(match (self.refusal.take(), error) {
            // The one that says more.
            (Some(one), JoinError::Refused(_)) => one,
            (_, other) => other,
        });
    }

    fn strange(&mut self, id: NodeId, why: &str) {
        if self.told.insert(id) {
            warn!(peer = %id, "refused by one that has not proved to be an orchestrator: {why}");
        }
        self.unproven.insert(id);
    }

    fn troubles(&mut self, id: NodeId, why: String) {
        if self.told.insert(id) {
            warn!(peer = %id, "no answer there: {why}");
        }
        self.trouble = Some(why);
    }

    fn failure(self) -> Failure {
        if let Some(refusal) = self.refusal {
            return Failure::Refused(refusal);
        }
        let strange = match self.unproven.len() {
            0 => None,
            count => Some(format!(
                "{count} refused without having proved to be an orchestrator"
            )),
        };
        let why: Vec<String> = strange.into_iter().chain(self.trouble).collect();
        Failure::Nobody {
            found: self.found,
            why: match why.is_empty() {
                true => "nobody answers".to_owned(),
                false => why.join("; "),
            },
        }
    }
}

#[cfg(test)]
mod tests;
