//! Breakers of one kind, as many as there is room for. Pure.

use super::circuit::{Circuit, Moment};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Breakers by what they stand before.
#[derive(Debug)]
pub(super) struct Shelf<K> {
    circuits: HashMap<K, (u64, Circuit)>,
    /// The order in which they last counted: where there is no room, the first goes.
    by_turn: BTreeMap<u64, K>,
    max: usize,
}

impl<K: Clone + Eq + Hash> Shelf<K> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            circuits: HashMap::new(),
            by_turn: BTreeMap::new(),
            max,
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<&Circuit> {
        self.circuits.get(key).map(|(_, circuit)| circuit)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut Circuit> {
        self.circuits.get_mut(key).map(|(_, circuit)| circuit)
    }

    /// The breaker that is to count something, made where there is none. `turn` grows with each
    /// call.
    pub(super) fn counting(
        &mut self,
        key: &K,
        epoch: u64,
        turn: u64,
        at: &Moment<'_>,
    ) -> &mut Circuit {
        if let Some((last, _)) = self.circuits.get(key) {
            self.by_turn.remove(last);
        } else {
            self.make_room(at);
        }
        self.by_turn.insert(turn, key.clone());
        let made = || (turn, Circuit::closed(epoch, at.now_ms));
        let (last, circuit) = self.circuits.entry(key.clone()).or_insert_with(made);
        *last = turn;
        circuit
    }

    /// Forgets up to two that are spent, so that they go faster than they come, and one that is not
    /// where there is no room otherwise.
    fn make_room(&mut self, at: &Moment<'_>) {
        for _ in 0..2 {
            let is_full = self.circuits.len() >= self.max;
            let Some(oldest) = self.by_turn.first_entry() else {
                return;
            };
            let circuit = self.circuits.get(oldest.get());
            if !is_full && circuit.is_some_and(|(_, it)| !it.is_spent(at)) {
                return;
            }
            self.circuits.remove(&oldest.remove());
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Circuit> {
        self.circuits.values().map(|(_, circuit)| circuit)
    }
}
