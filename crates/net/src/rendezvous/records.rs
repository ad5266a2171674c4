//! Records that were seen, so that an older one is never taken for the newest. [T-REC-1]

use super::Resolved;
use std::collections::{HashMap, VecDeque};
use tether_wire::NodeId;

/// Most peers whose records are remembered; the longest known are forgotten first. Some 1 kB each.
pub(crate) const MAX_REMEMBERED: usize = 8_192;

/// The newest record seen of each peer.
#[derive(Default)]
pub(crate) struct Records {
    known: HashMap<NodeId, Resolved>,
    order: VecDeque<NodeId>,
}

impl Records {
    /// What is remembered of a peer.
    pub(crate) fn get(&self, peer: &NodeId) -> Option<&Resolved> {
        self.known.get(peer)
    }

    /// Remembers a record, unless a newer one is known.
    pub(crate) fn insert(&mut self, peer: NodeId, found: Resolved) {
        match self.known.get_mut(&peer) {
            Some(known) if known.seq > found.seq => {}
            Some(known) => *known = found,
            None => {
                if self.order.len() >= MAX_REMEMBERED
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.known.remove(&oldest);
                }
                self.order.push_back(peer);
                self.known.insert(peer, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::record::Record;

    fn at(seq: u64) -> Resolved {
        let record = Record {
            v: 1,
            addresses: vec![],
            relay: None,
        };
        Resolved { seq, record }
    }

    #[test]
    fn an_older_record_never_takes_the_place_of_a_newer_one() {
        let peer = NodeId([1; 32]);
        let mut records = Records::default();
        records.insert(peer, at(5));
        records.insert(peer, at(4));
        assert_eq!(records.get(&peer).map(|r| r.seq), Some(5));
        records.insert(peer, at(6));
        assert_eq!(records.get(&peer).map(|r| r.seq), Some(6));
    }

    #[test]
    fn strangers_cannot_grow_the_memory_of_records() {
        let mut records = Records::default();
        for n in 0..MAX_REMEMBERED + 10 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            records.insert(NodeId(id), at(1));
        }
        assert_eq!(records.known.len(), MAX_REMEMBERED);
        assert_eq!(records.order.len(), MAX_REMEMBERED);
    }
}
