//! The processes of one engine: what each is doing, how much each has to do, and what they are
//! together.
//!
//! Together they are ready as long as one of them is, and give as many answers at once as those that
//! are ready; who asks is given to the one that has the least to do. They are one engine to the rest
//! of the worker, so their answers must be the same: a process that computes in another way than those
//! that answer already, because the program was replaced meanwhile, is not let in beside them.

use crate::engine::handle::{EngineState, Fallen, Ready};
use crate::sandbox::Shield;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// What is known of an engine's processes.
#[derive(Debug)]
pub(super) struct Board {
    lanes: Mutex<Vec<Lane>>,
    together: watch::Sender<EngineState>,
    /// Cancelled when one of them was ready for the first time.
    proven: CancellationToken,
    /// Something of them changed.
    changed: Notify,
}

/// One process.
#[derive(Clone, Debug)]
struct Lane {
    state: EngineState,
    /// Why it fell, until it answers again.
    fallen: Option<Fallen>,
    /// Whether its turn to start has come.
    has_begun: bool,
    /// Requests that it has.
    requests: u32,
}

/// Where it is said what becomes of one process. Who drops it does so no more.
#[derive(Debug)]
pub(super) struct Post {
    board: Arc<Board>,
    process: usize,
}

/// A request's place with a process; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    board: Arc<Board>,
    process: usize,
}

/// Room for a request that has been with a process already.
#[derive(Debug)]
pub(super) enum Room {
    Free(Place),
    /// All that answer have as much to do as they can at once.
    Full,
    /// None answers.
    None,
}

impl Board {
    pub(super) fn new(processes: u32) -> Arc<Self> {
        let lanes = (0..processes).map(|process| Lane {
            state: EngineState::Starting,
            fallen: None,
            has_begun: process == 0,
            requests: 0,
        });
        Arc::new(Self {
            lanes: Mutex::new(lanes.collect()),
            together: watch::Sender::new(EngineState::Starting),
            proven: CancellationToken::new(),
            changed: Notify::new(),
        })
    }

    pub(super) fn post(self: &Arc<Self>, process: u32) -> Post {
        Post {
            board: self.clone(),
            process: process as usize,
        }
    }

    /// What they are together, as it changes.
    pub(super) fn watch(&self) -> watch::Receiver<EngineState> {
        self.together.subscribe()
    }

    /// A place with the process that is ready and has the least to do; the first of several. While
    /// none is ready, with one that will say why.
    pub(super) fn take(self: &Arc<Self>) -> Result<Place, RpcError> {
        let mut lanes = self.lanes();
        let unavailable = |reason| Err(RpcError::new(Code::Unavailable, reason));
        let is_ready = match together(&lanes) {
            EngineState::Down { reason, .. } => return unavailable(reason),
            EngineState::Refused(refused) => return unavailable(refused.reason),
            EngineState::Stopped => return unavailable("the engine was stopped".to_owned()),
            EngineState::Starting => false,
            EngineState::Ready(_) => true,
        };
        let fits = |lane: &Lane| match lane.state {
            EngineState::Ready(_) => is_ready,
            EngineState::Starting => !is_ready && lane.has_begun,
            _ => false,
        };
        let open = lanes.iter_mut().enumerate().filter(|(_, it)| fits(it));
        let Some((process, lane)) = open.min_by_key(|(_, it)| it.requests) else {
            return unavailable("the engine takes no requests now".to_owned());
        };
        lane.requests += 1;
        Ok(Place {
            board: self.clone(),
            process,
        })
    }

    /// A place with the process that has the least to do, if it answers what it is given at once.
    pub(super) fn room(self: &Arc<Self>) -> Room {
        let mut lanes = self.lanes();
        let open = (lanes.iter_mut().enumerate())
            .filter_map(|(process, lane)| Some((process, lane.ready()?.sequences, lane)));
        match open.min_by_key(|(_, _, lane)| lane.requests) {
            None => Room::None,
            Some((_, sequences, lane)) if lane.requests >= sequences => Room::Full,
            Some((process, _, lane)) => {
                lane.requests += 1;
                Room::Free(Place {
                    board: self.clone(),
                    process,
                })
            }
        }
    }

    /// Waits for the next change of what they do or have to do.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Within the lock, so that what is seen of them changes in the order in which they did.
    fn change<T>(&self, change: impl FnOnce(&mut Vec<Lane>) -> T) -> T {
        let mut lanes = self.lanes();
        let result = change(&mut lanes);
        let now = together(&lanes);
        self.together.send_if_modified(|seen| {
            let is_new = *seen != now;
            *seen = now;
            is_new
        });
        self.changed.notify_waiters();
        result
    }
}

impl Post {
    /// Which process this is about.
    pub(super) fn process(&self) -> u32 {
        u32::try_from(self.process).unwrap_or(u32::MAX)
    }

    /// Waits until this process is to start: the first at once, the others once one was ready.
    pub(super) async fn turn(&self) {
        if self.process > 0 {
            self.board.proven.cancelled().await;
        }
        self.board
            .change(|lanes| lanes[self.process].has_begun = true);
    }

    pub(super) fn set(&self, state: EngineState) {
        self.change(|it| *it = state);
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut EngineState)) {
        self.board.change(|lanes| {
            let lane = &mut lanes[self.process];
            change(&mut lane.state);
            lane.note();
        });
    }

    /// Whether the engine answers, or will, whatever became of this process.
    pub(super) fn has_hope(&self) -> bool {
        !matches!(
            together(&self.board.lanes()),
            EngineState::Refused(_) | EngineState::Stopped
        )
    }

    /// Whether who looks at the engine does not see what became of this process.
    pub(super) fn is_hidden(&self) -> bool {
        matches!(
            together(&self.board.lanes()),
            EngineState::Ready(_) | EngineState::Starting
        )
    }

    /// It has loaded the model.
    ///
    /// # Errors
    /// How it is another engine than those that answer.
    pub(super) fn ready(&self, ready: Ready) -> Result<(), String> {
        self.board.change(|lanes| {
            let others = lanes.iter().enumerate().filter(|(n, _)| *n != self.process);
            let mut answering = others.filter_map(|(_, lane)| lane.ready());
            if let Some(difference) = answering.find_map(|other| difference(&ready, other)) {
                return Err(difference);
            }
            lanes[self.process].state = EngineState::Ready(ready);
            lanes[self.process].note();
            Ok(())
        })?;
        self.board.proven.cancel();
        Ok(())
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.change(|state| {
            if !matches!(state, EngineState::Refused(_)) {
                *state = EngineState::Stopped;
            }
        });
    }
}

impl Place {
    /// The process that it is with.
    pub(super) fn process(&self) -> usize {
        self.process
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.board.lanes()[self.process].requests -= 1;
        self.board.changed.notify_waiters();
    }
}

impl Lane {
    /// Keeps why it fell for as long as that is so: a process that is tried again has not risen yet.
    fn note(&mut self) {
        self.fallen = match &self.state {
            EngineState::Down { code, reason } => Some(Fallen {
                code,
                reason: reason.clone(),
            }),
            EngineState::Refused(refused) => Some(Fallen {
                code: refused.code,
                reason: refused.reason.clone(),
            }),
            EngineState::Starting => self.fallen.take(),
            EngineState::Ready(_) | EngineState::Stopped => None,
        };
    }

    fn ready(&self) -> Option<&Ready> {
        match &self.state {
            EngineState::Ready(ready) => Some(ready),
            _ => None,
        }
    }
}

/// How answers of one process could differ from those of another.
fn difference(new: &Ready, old: &Ready) -> Option<String> {
    let facts = |it: &Ready| (it.context_tokens, it.max_token_bytes);
    let names = |it: &Ready| format!("{} {}", it.engine, it.numerics_class);
    (facts(new) != facts(old) || names(new) != names(old)).then(|| {
        format!(
            "the engine's program has changed: a process of it would answer as {}, beside others that \
             answer as {}",
            names(new),
            names(old)
        )
    })
}

/// What processes are together: whatever gives the most hope.
fn together(lanes: &[Lane]) -> EngineState {
    let mut ready: Option<Ready> = None;
    for one in lanes.iter().filter_map(Lane::ready) {
        ready = Some(match ready {
            Some(all) => joined(all, one),
            None => one.clone(),
        });
    }
    if let Some(ready) = ready {
        let fallen = lanes.iter().filter_map(|lane| lane.fallen.clone());
        return EngineState::Ready(Ready {
            fallen: fallen.collect(),
            ..ready
        });
    }
    let hope = |state: &EngineState| match state {
        EngineState::Ready(_) => 4,
        EngineState::Starting => 3,
        EngineState::Down { .. } => 2,
        EngineState::Refused(_) => 1,
        EngineState::Stopped => 0,
    };
    // The first of those that are alike.
    let begun = lanes.iter().filter(|it| it.has_begun).rev();
    begun
        .map(|lane| &lane.state)
        .max_by_key(|state| hope(state))
        .map_or(EngineState::Stopped, EngineState::clone)
}

fn joined(all: Ready, one: &Ready) -> Ready {
    Ready {
        sequences: all.sequences.saturating_add(one.sequences),
        load_ms: all.load_ms.max(one.load_ms),
        pids: [all.pids, one.pids.clone()].concat(),
        shields: weakest(all.shields, &one.shields),
        ..all
    }
}

/// What keeps both in.
fn weakest(all: Vec<Shield>, one: &[Shield]) -> Vec<Shield> {
    let weaker = |shield: &Shield| {
        let mut same = one.iter().filter(|it| it.protection == shield.protection);
        same.find(|it| !it.enforced).cloned()
    };
    all.into_iter()
        .map(|shield| weaker(&shield).unwrap_or(shield))
        .collect()
}

#[cfg(test)]
mod tests;
