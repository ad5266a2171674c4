//! What waits for its verification, of each link a little: links take turns, and one that sends
//! more than can be verified loses its own oldest, never others'. Pure. [T-PUS-5]

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use tether_wire::NodeId;
use tether_wire::spread::MAX_PUSHES_AT_ONCE;

/// Pushes of one link that wait at most: as many as it may send at once.
pub(crate) const MAX_WAITING: usize = MAX_PUSHES_AT_ONCE as usize;
/// Bytes of all links' that wait at most; some 200,000 pushes, without cards.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Queues of links, in the order of their turns. As many as there are links.
#[derive(Debug, Default)]
pub(crate) struct Fair {
    queues: HashMap<NodeId, VecDeque<Vec<u8>>>,
    turns: VecDeque<NodeId>,
    bytes: usize,
}

impl Fair {
    /// Puts one in; whether one had to go for it, the link's oldest.
    #[must_use]
    pub(crate) fn put(&mut self, link: NodeId, item: Vec<u8>) -> bool {
        let is_full = self.bytes + item.len() > MAX_BYTES;
        let queue = match self.queues.entry(link) {
            Entry::Occupied(entry) => entry.into_mut(),
            // Whoever has nothing here loses what it brings.
            Entry::Vacant(_) if is_full => return true,
            Entry::Vacant(entry) => {
                self.turns.push_back(link);
                entry.insert(VecDeque::with_capacity(1))
            }
        };
        self.bytes += item.len();
        queue.push_back(item);
        let sheds = is_full || queue.len() > MAX_WAITING;
        if sheds && let Some(oldest) = queue.pop_front() {
            self.bytes -= oldest.len();
        }
        sheds
    }

    /// The next of each of at most `max` links whose turn it is. Two of one link are never given
    /// together, so that their order is kept by whoever asks again only when done.
    pub(crate) fn take(&mut self, max: usize) -> Vec<(NodeId, Vec<u8>)> {
        let mut taken = Vec::new();
        for _ in 0..self.turns.len().min(max) {
            let Some(link) = self.turns.pop_front() else {
                break;
            };
            let Some(queue) = self.queues.get_mut(&link) else {
                continue;
            };
            if let Some(item) = queue.pop_front() {
                self.bytes -= item.len();
                taken.push((link, item));
            }
            if queue.is_empty() {
                self.queues.remove(&link);
            } else {
                self.turns.push_back(link);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(n: u8) -> NodeId {
        NodeId([n; 32])
    }

    fn taken(fair: &mut Fair, max: usize) -> Vec<(u8, u8)> {
        let taken = fair.take(max);
        taken.iter().map(|(id, item)| (id.0[0], item[0])).collect()
    }

    #[test]
    fn links_take_turns_however_much_one_of_them_sends() {
        let mut fair = Fair::default();
        for n in 0..4 {
            assert!(!fair.put(link(1), vec![n]));
        }
        assert!(!fair.put(link(2), vec![100]) && !fair.put(link(3), vec![200]));
        assert_eq!(taken(&mut fair, 2), [(1, 0), (2, 100)]);
        assert_eq!(taken(&mut fair, 9), [(3, 200), (1, 1)]);
        assert_eq!(taken(&mut fair, 9), [(1, 2)]);
        assert_eq!(taken(&mut fair, 9), [(1, 3)]);
        assert_eq!(taken(&mut fair, 9), []);
        assert_eq!(fair.bytes, 0);
    }

    #[test]
    fn one_that_sends_too_much_loses_its_own_oldest() {
        let mut fair = Fair::default();
        assert!(!fair.put(link(2), vec![100]));
        for n in 0..MAX_WAITING + 2 {
            let n = u8::try_from(n).expect("small");
            assert_eq!(fair.put(link(1), vec![n]), usize::from(n) >= MAX_WAITING);
        }
        assert_eq!(taken(&mut fair, 9), [(2, 100), (1, 2)]);
        assert_eq!(fair.queues.len(), 1, "who waits for nothing is forgotten");
    }

    #[test]
    fn all_links_together_hold_no_more_than_there_is_room_for() {
        let mut fair = Fair::default();
        let (half, links) = (vec![0; MAX_BYTES / 2], [1, 2].map(link));
        assert!(!fair.put(links[0], half.clone()) && !fair.put(links[1], half.clone()));
        assert!(fair.put(link(3), vec![3]), "nothing of its own to give");
        assert!(fair.put(links[0], vec![1]), "its own oldest goes");
        assert_eq!(fair.bytes, MAX_BYTES / 2 + 1);
        assert!(!fair.put(link(3), vec![3]));
    }
}
