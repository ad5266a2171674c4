//! Pushes of nodes, from their calls into the fleet. (PRE-2, PRE-3) [T-PUS-1] to [T-PUS-5]
//!
//! Each link has a token bucket and a queue of its own. What waits is verified in batches on
//! threads that may block, one push of each link in a batch, so that neither a flood nor a crowd
//! holds up the runtime or the links of others.

use super::fair::Fair;
use crate::clock;
use crate::fleet::keeper::{Fleet, reject};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tether_net::{Incoming, Members, TokenBucket};
use tether_presence::check::{self, Nothing};
use tether_presence::{Event, Input, Rejected, Signatures, Verifier};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::codec::{self, CodecError};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::spread::{
    MAX_PUSH_BYTES, MAX_PUSHES_AT_ONCE, MAX_PUSHES_PER_SECOND, Push, PushReply,
};
use tether_wire::{NodeId, Role};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What is read at most, so that something a little too long is counted and not fatal.
const READ_LIMIT: usize = 2 * MAX_PUSH_BYTES;
/// Pushes that are verified in one go.
const MAX_BATCH: usize = 256;
/// Pushes for which a thread of its own is worth it: verifying one takes some 50 µs.
const WORTH_A_THREAD: usize = 16;

/// Serves `presence` calls.
pub(crate) struct Intake {
    members: Members,
    fleet: Fleet,
    metrics: Arc<OrchestratorMetrics>,
    waiting: Mutex<Fair>,
    /// Something waits.
    came: Notify,
    /// Nodes that push. As many as there are links.
    lines: Mutex<HashMap<NodeId, Weak<Line>>>,
}

/// One node that pushes, over however many calls.
struct Line {
    bucket: Mutex<TokenBucket>,
    /// Its card is wanted.
    wish: Notify,
}

/// What was found of a push: the second value is what was wrong with its card.
type Judged = Result<(Event, Option<Rejected>), Rejected>;

impl Intake {
    pub(crate) fn new(members: Members, fleet: Fleet, metrics: Arc<OrchestratorMetrics>) -> Self {
        Self {
            members,
            fleet,
            metrics,
            waiting: Mutex::default(),
            came: Notify::new(),
            lines: Mutex::default(),
        }
    }

    /// Takes beats until the node ends the call.
    pub(crate) async fn serve(&self, mut call: Incoming) -> Result<(), RpcError> {
        let peer = call.peer().clone();
        if !matches!(peer.role, Role::Worker | Role::Gateway) {
            return Err(RpcError::new(
                Code::Forbidden,
                format!("a {} has no presence to push", peer.role),
            ));
        }
        let line = self.line(peer.id);
        let result = self.read(&mut call, peer.id, &line).await;
        drop(line);
        let mut lines = lock(&self.lines);
        if (lines.get(&peer.id)).is_some_and(|line| line.strong_count() == 0) {
            lines.remove(&peer.id);
        }
        drop(lines);
        result
    }

    fn line(&self, node: NodeId) -> Arc<Line> {
        let mut lines = lock(&self.lines);
        if let Some(line) = lines.get(&node).and_then(Weak::upgrade) {
            return line;
        }
        let now_ms = clock::now().mono_ms;
        let bucket = TokenBucket::new(MAX_PUSHES_PER_SECOND, MAX_PUSHES_AT_ONCE, now_ms);
        let line = Arc::new(Line {
            bucket: Mutex::new(bucket),
            wish: Notify::new(),
        });
        lines.insert(node, Arc::downgrade(&line));
        line
    }

    async fn read(&self, call: &mut Incoming, peer: NodeId, line: &Line) -> Result<(), RpcError> {
        loop {
            let item = tokio::select! {
                item = call.recv(READ_LIMIT) => item,
                () = line.wish.notified() => {
                    let wants_card = true;
                    call.send(&codec::encode(&PushReply { wants_card })).await?;
                    continue;
                }
            };
            let item = match item {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(error) => {
                    if error.code == Code::Invalid {
                        self.reject(peer, Rejected::Oversized);
                    }
                    return Err(error);
                }
            };
            // Before the signature is looked at: verification is what a flood would spend.
            let is_shed = !lock(&line.bucket).take(clock::now().mono_ms)
                || lock(&self.waiting).put(peer, item);
            if is_shed {
                self.reject(peer, Rejected::Flood);
            }
            self.came.notify_one();
        }
    }

    /// Counts what was dropped, and remembers it for people.
    fn reject(&self, peer: NodeId, reason: Rejected) {
        reject(&self.metrics, Some(peer), reason);
        self.fleet.refused(peer, reason);
    }

    /// Asks a node for its card, where it pushes here.
    pub(crate) fn ask(&self, node: &NodeId) {
        let line = lock(&self.lines).get(node).and_then(Weak::upgrade);
        if let Some(line) = line {
            line.wish.notify_one();
        }
    }

    /// Verifies what waits and tells the fleet, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            if stop.is_cancelled() {
                return;
            }
            let batch = lock(&self.waiting).take(MAX_BATCH);
            if batch.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.came.notified() => continue,
                }
            }
            for (peer, judged) in verified(batch, &self.members).await {
                let (event, wrong) = match judged {
                    Ok((event, wrong)) => (Some(event), wrong),
                    Err(reason) => (None, Some(reason)),
                };
                if let Some(reason) = wrong {
                    self.reject(peer, reason);
                }
                if let Some(event) = event {
                    self.fleet.tell(Input::Own(event)).await;
                }
            }
        }
    }
}

/// Verifies pushes on threads that may block, in the order in which they are given.
async fn verified(batch: Vec<(NodeId, Vec<u8>)>, members: &Members) -> Vec<(NodeId, Judged)> {
    let members = members.current();
    let threads = super::parallelism();
    let each = batch.len().div_ceil(threads).max(WORTH_A_THREAD);
    let mut batch = batch.into_iter();
    let mut parts = Vec::new();
    loop {
        let part: Vec<_> = batch.by_ref().take(each).collect();
        if part.is_empty() {
            break;
        }
        let verifier = Signatures {
            members: members.clone(),
        };
        parts.push(tokio::task::spawn_blocking(move || {
            let now_ms = clock::now().unix_ms;
            part.into_iter()
                .map(|(peer, item)| (peer, judge(&item, peer, &verifier, now_ms)))
                .collect::<Vec<_>>()
        }));
    }
    let mut all = Vec::new();
    for part in parts {
        // An error means that the runtime ends.
        all.extend(part.await.unwrap_or_default());
    }
    all
}

/// Everything that can be said about a push without knowing the ones before it. The second value is
/// what was wrong with the card in it.
///
/// # Errors
/// The first reason against it.
pub fn judge(
    item: &[u8],
    peer: NodeId,
    verifier: &impl Verifier,
    now_unix_ms: u64,
) -> Result<(Event, Option<Rejected>), Rejected> {
    let push = Push::decode(item).map_err(|error| match error {
        CodecError::TooLarge { .. } => Rejected::Oversized,
        _ => Rejected::Malformed,
    })?;
    check::push(push, peer, verifier, &Nothing, now_unix_ms)
}

/// Each change is one step, so that a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "intake/tests.rs"]
mod tests;
