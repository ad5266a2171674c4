//! What this node announces on the DHT and saw there, written down for people. Nothing reads it to
//! decide anything.

use crate::error::NetError;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tether_wire::{NodeId, TopicKey};

/// Most topics that are written down; the one that nothing happened to for longest makes room. A
/// worker announces one for each of its models, and these are 64 at most.
pub(crate) const MAX_TOPICS: usize = 128;
/// Most of the keys that a look-up gave which are kept.
pub(crate) const MAX_SEEN: usize = 64;

/// An announcement that is kept up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// When the DHT took it last.
    pub last: Option<Instant>,
    /// When it is announced again.
    pub next: Option<Instant>,
    /// Failures since the last success.
    pub failures: u32,
    /// Why it failed last, if it did since.
    pub error: Option<String>,
}

/// What a look-up gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When it ended.
    pub at: Instant,
    /// How many keys the last one that was answered gave, without this node's own.
    pub found: usize,
    /// Some of them, in no order.
    pub keys: Vec<NodeId>,
    /// Why the last one was not answered, if it was not.
    pub error: Option<String>,
}

/// One topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) announced: Option<Announcement>,
    pub(crate) seen: Option<Sighting>,
    /// Counts what happened on the board: the order of entries.
    touched: u64,
}

/// The board.
#[derive(Debug, Default)]
pub(crate) struct Board {
    entries: Mutex<(u64, HashMap<TopicKey, Entry>)>,
}

impl Board {
    /// Everything on it, by name.
    pub(crate) fn entries(&self) -> Vec<(TopicKey, Entry)> {
        let board = self.lock();
        let entries = board.1.iter().map(|(key, it)| (*key, it.clone()));
        let mut entries: Vec<(TopicKey, Entry)> = entries.collect();
        entries.sort_by(|a, b| (&a.1.name, a.0.0).cmp(&(&b.1.name, b.0.0)));
        entries
    }

    /// The name of a topic: its key does not tell.
    pub(crate) fn name(&self, topic: TopicKey, name: String) {
        self.change(topic, |entry| entry.name = name);
    }

    /// It was announced, or that failed; it is tried again after `wait`.
    pub(crate) fn announced(&self, topic: TopicKey, error: Option<&NetError>, wait: Duration) {
        let now = Instant::now();
        self.change(topic, |entry| {
            let it = entry.announced.get_or_insert_default();
            it.next = Some(now + wait);
            it.error = error.map(ToString::to_string);
            if error.is_none() {
                it.last = Some(now);
                it.failures = 0;
            } else {
                it.failures = it.failures.saturating_add(1);
            }
        });
    }

    /// It is announced no more.
    pub(crate) fn withdrawn(&self, topic: &TopicKey) {
        self.change(*topic, |entry| entry.announced = None);
    }

    /// A look-up ended.
    pub(crate) fn looked_up(&self, topic: TopicKey, answer: Result<&[NodeId], &NetError>) {
        self.change(topic, |entry| {
            let before = entry.seen.take();
            let (found, keys, error) = match answer {
                Ok(keys) => {
                    let kept = keys.iter().take(MAX_SEEN).copied().collect();
                    (keys.len(), kept, None)
                }
                // What was seen before may well be there still.
                Err(error) => {
                    let (found, keys) = before.map_or((0, Vec::new()), |it| (it.found, it.keys));
                    (found, keys, Some(error.to_string()))
                }
            };
            entry.seen = Some(Sighting {
                at: Instant::now(),
                found,
                keys,
                error,
            });
        });
    }

    fn change(&self, topic: TopicKey, change: impl FnOnce(&mut Entry)) {
        let mut board = self.lock();
        let (clock, entries) = &mut *board;
        *clock += 1;
        if !entries.contains_key(&topic) && entries.len() >= MAX_TOPICS {
            let oldest = entries.iter().min_by_key(|(_, it)| it.touched);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                entries.remove(&oldest);
            }
        }
        let entry = entries.entry(topic).or_default();
        entry.touched = *clock;
        change(entry);
    }

    fn lock(&self) -> MutexGuard<'_, (u64, HashMap<TopicKey, Entry>)> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(board: &Board) -> Entry {
        let mut all = board.entries();
        assert_eq!(all.len(), 1);
        all.remove(0).1
    }

    fn key(n: u8) -> TopicKey {
        TopicKey([n; 32])
    }

    fn error() -> NetError {
        NetError::Dht {
            what: "announce",
            why: "no DHT node took it".to_owned(),
        }
    }

    #[test]
    fn a_failure_is_told_until_it_went_well_again_and_the_last_success_stays() {
        let board = Board::default();
        board.name(key(1), "control/eu".to_owned());
        board.announced(key(1), None, Duration::from_secs(150));
        let well = only(&board).announced.expect("announced");
        assert!(well.last.is_some() && well.next > well.last);
        board.announced(key(1), Some(&error()), Duration::from_secs(1));
        board.announced(key(1), Some(&error()), Duration::from_secs(2));
        let failed = only(&board).announced.expect("announced");
        assert_eq!((failed.failures, failed.last), (2, well.last));
        assert!(failed.error.expect("an error").contains("no DHT node"));
        board.announced(key(1), None, Duration::from_secs(150));
        let again = only(&board).announced.expect("announced");
        assert_eq!((again.failures, again.error), (0, None));
        board.withdrawn(&key(1));
        let gone = only(&board);
        assert_eq!((gone.announced, gone.name.as_str()), (None, "control/eu"));
    }

    #[test]
    fn a_look_up_in_vain_leaves_what_was_seen_before_and_says_so() {
        let board = Board::default();
        let keys: Vec<NodeId> = (0..200).map(|n| NodeId([n; 32])).collect();
        board.looked_up(key(1), Ok(&keys));
        let seen = only(&board).seen.expect("seen");
        assert_eq!((seen.found, seen.keys.len()), (200, MAX_SEEN));
        board.looked_up(key(1), Err(&error()));
        let seen = only(&board).seen.expect("seen");
        assert_eq!((seen.found, seen.keys.len()), (200, MAX_SEEN));
        assert!(seen.error.is_some());
    }

    #[test]
    fn the_board_is_bounded_and_forgets_what_nothing_happened_to() {
        let board = Board::default();
        for n in 0..MAX_TOPICS {
            board.looked_up(key(u8::try_from(n).expect("small")), Ok(&[]));
        }
        board.announced(key(0), None, Duration::ZERO);
        board.looked_up(key(255), Ok(&[]));
        let keys: Vec<TopicKey> = board.entries().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), MAX_TOPICS);
        assert!(keys.contains(&key(0)) && keys.contains(&key(255)));
        assert!(!keys.contains(&key(1)));
    }
}
