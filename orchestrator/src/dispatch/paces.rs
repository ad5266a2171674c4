//! What is known of the pace of each worker with each model, from the answers that it gave. Nothing
//! is lost where it is forgotten but some time.

use super::pace::{First, Gaps};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::{ModelRef, NodeId};

/// Most workers and models of which the pace is remembered. Beyond it the one that gave no answer
/// for the longest is forgotten.
const MAX_PACES: usize = 16_384;

/// What an answer leaves to the next one of its worker and model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Learnt {
    /// From the turn to the first piece.
    pub(super) first: First,
    /// From one piece to the next.
    pub(super) gaps: Gaps,
}

type Key = (NodeId, ModelRef);

/// The paces. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paces(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    paces: HashMap<Key, (u64, Learnt)>,
    by_turn: BTreeMap<u64, Key>,
    turn: u64,
}

impl Paces {
    /// What is known.
    pub(super) fn of(&self, worker: NodeId, model: &ModelRef) -> Learnt {
        let known = self.known();
        let found = known.paces.get(&(worker, model.clone()));
        found.map_or_else(Learnt::default, |(_, learnt)| *learnt)
    }

    /// Remembers what an answer showed.
    pub(super) fn learn(&self, worker: NodeId, model: &ModelRef, learnt: Learnt) {
        if learnt == Learnt::default() {
            return;
        }
        let mut known = self.known();
        known.turn += 1;
        let (turn, key) = (known.turn, (worker, model.clone()));
        if let Some((before, _)) = known.paces.insert(key.clone(), (turn, learnt)) {
            known.by_turn.remove(&before);
        }
        known.by_turn.insert(turn, key);
        if known.paces.len() > MAX_PACES
            && let Some((_, oldest)) = known.by_turn.pop_first()
        {
            known.paces.remove(&oldest);
        }
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(took_ms: u64) -> Learnt {
        let mut learnt = Learnt::default();
        learnt.first.add(took_ms, 10, 60_000);
        learnt
    }

    #[test]
    fn the_pace_of_as_many_as_are_busy_is_remembered_and_the_idle_are_forgotten() {
        let paces = Paces::default();
        let model: ModelRef = "m@1.0".parse().expect("valid");
        let worker = |n: usize| {
            let mut id = NodeId([0; 32]);
            id.0[..8].copy_from_slice(&n.to_be_bytes());
            id
        };
        for n in 0..MAX_PACES {
            paces.learn(worker(n), &model, learnt(5));
        }
        paces.learn(worker(0), &model, learnt(7));
        paces.learn(worker(MAX_PACES), &model, learnt(5));
        paces.learn(worker(MAX_PACES + 1), &model, Learnt::default());
        assert_eq!(paces.of(worker(0), &model), learnt(7));
        assert_eq!(paces.of(worker(1), &model), Learnt::default());
        let known = paces.known();
        assert_eq!(
            (known.paces.len(), known.by_turn.len()),
            (MAX_PACES, MAX_PACES)
        );
    }
}
