//! A set of workers that many snapshots share.
//!
//! The set is cut into shards by a keyed hash of the id: strangers choose their keys, and could
//! otherwise crowd one shard. A copy shares everything; a change copies the shard that it is in,
//! once per published snapshot. Measured beside persistent maps from the registry, which cost ten
//! times the memory for a reference of eight bytes.

use super::worker::WorkerView;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use tether_wire::NodeId;

/// Workers in a shard on average, after it was cut.
const SHARD: usize = 16;
/// Workers in a shard on average at which shards are cut in two.
const FULL: usize = 2 * SHARD;
/// Places that a shard grows by: a shard that doubled would waste half of its memory.
const GROWTH: usize = 4;

type Shard<T> = Arc<Vec<Entry<T>>>;

/// A worker, with the beginning of its id: memory far away is read for the one that is looked for,
/// not for those beside it.
#[derive(Clone, Debug)]
struct Entry<T> {
    first: u64,
    view: T,
}

impl<T: AsRef<WorkerView>> Entry<T> {
    fn new(view: T) -> Self {
        Self {
            first: first_eight(&view.as_ref().id),
            view,
        }
    }
}

/// Workers by id: views of them, or candidates. The number of shards is a power of two.
#[derive(Clone, Debug)]
pub(crate) struct Roll<T = Arc<WorkerView>> {
    shards: Arc<Vec<Shard<T>>>,
    len: usize,
}

impl<T> Default for Roll<T> {
    fn default() -> Self {
        Self {
            shards: Arc::default(),
            len: 0,
        }
    }
}

impl<T: AsRef<WorkerView> + Clone> Roll<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        (self.shards.iter()).flat_map(|shard| shard.iter().map(|entry| &entry.view))
    }

    pub(crate) fn get(&self, id: &NodeId) -> Option<&T> {
        let shard = self.shards.get(self.place(id))?;
        Some(&shard[search(shard, id).ok()?].view)
    }

    /// Adds a worker, or replaces the view of it.
    pub(crate) fn put(&mut self, view: T) -> Option<T> {
        if self.len >= self.shards.len() * FULL {
            self.cut((self.shards.len() * 2).max(1));
        }
        let id = view.as_ref().id;
        let place = self.place(&id);
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place]);
        match search(shard, &id) {
            Ok(at) => Some(std::mem::replace(&mut shard[at].view, view)),
            Err(at) => {
                if shard.len() == shard.capacity() {
                    shard.reserve_exact(GROWTH);
                }
                shard.insert(at, Entry::new(view));
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &NodeId) -> Option<T> {
        let place = self.place(id);
        let at = search(self.shards.get(place)?, id).ok()?;
        let gone = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place]).remove(at);
        self.len -= 1;
        let shards = self.shards.len();
        if shards > 1 && self.len < shards * SHARD / 4 {
            self.cut(shards / 2);
        }
        Some(gone.view)
    }

    /// All of them, from one on that a random number chooses, nearly evenly. Neighbours stay
    /// neighbours for a while, but nobody can choose theirs.
    pub(crate) fn iter_from(&self, random: u64) -> impl Iterator<Item = &T> {
        let draw = |random: u64, of: usize| {
            let drawn = random % (of as u64).max(1);
            usize::try_from(drawn).unwrap_or(0)
        };
        let (before, from) = self.shards.split_at(draw(random, self.shards.len()));
        let (first, behind) = from
            .split_first()
            .map_or((&[][..], &[][..]), |(first, rest)| (&first[..], rest));
        let (head, tail) = first.split_at(draw(random >> 32, first.len()));
        let others = behind.iter().chain(before).flat_map(|shard| shard.iter());
        (tail.iter().chain(others).chain(head)).map(|entry| &entry.view)
    }

    /// Deals all out to so many shards.
    fn cut(&mut self, shards: usize) {
        let mut dealt: Vec<Vec<Entry<T>>> = Vec::new();
        dealt.resize_with(shards, Vec::new);
        for view in self.iter() {
            dealt[place(&view.as_ref().id, shards)].push(Entry::new(view.clone()));
        }
        let packed = dealt.into_iter().map(|mut shard| {
            shard.sort_unstable_by_key(|entry| entry.view.as_ref().id);
            shard.shrink_to_fit();
            Arc::new(shard)
        });
        self.shards = Arc::new(packed.collect());
    }

    fn place(&self, id: &NodeId) -> usize {
        place(id, self.shards.len())
    }
}

fn search<T: AsRef<WorkerView>>(shard: &[Entry<T>], id: &NodeId) -> Result<usize, usize> {
    let first = first_eight(id);
    shard.binary_search_by(|entry| {
        let rest = || entry.view.as_ref().id.cmp(id);
        entry.first.cmp(&first).then_with(rest)
    })
}

/// In the order of ids.
fn first_eight(id: &NodeId) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&id.0[..8]);
    u64::from_be_bytes(first)
}

/// The shard of a worker, of a power of two of them.
fn place(id: &NodeId, shards: usize) -> usize {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let hash = KEY.get_or_init(RandomState::new).hash_one(id.0);
    // As many of its low bits as there are shards.
    usize::try_from(hash & (shards as u64).saturating_sub(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
