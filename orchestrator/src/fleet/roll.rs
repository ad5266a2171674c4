//! A set of workers that many snapshots share.
//!
//! The set is cut into shards by a keyed hash of the id: strangers choose their keys, and could
//! otherwise crowd one shard. A copy shares everything; a change copies the shard that it is in,
//! once per published snapshot. Measured beside persistent maps from the registry, which cost ten
//! times the memory for a reference of eight bytes.

use super::worker::WorkerView;
use rand::Rng;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};
use tether_wire::NodeId;

/// Workers in a shard on average, after it was cut.
const SHARD: usize = 16;
/// Workers in a shard on average at which shards are cut in two.
const FULL: usize = 2 * SHARD;
/// Places that a shard grows by: a shard that doubled would waste half of its memory.
const GROWTH: usize = 4;

type Shard = Arc<Vec<Arc<WorkerView>>>;

/// Workers by id. The number of shards is a power of two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roll {
    shards: Arc<Vec<Shard>>,
    len: usize,
}

impl Roll {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<WorkerView>> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    pub(crate) fn get(&self, id: &NodeId) -> Option<&Arc<WorkerView>> {
        let shard = self.shards.get(self.place(id))?;
        Some(&shard[search(shard, id).ok()?])
    }

    /// Adds a worker, or replaces the view of it.
    pub(crate) fn put(&mut self, view: Arc<WorkerView>) -> Option<Arc<WorkerView>> {
        if self.len >= self.shards.len() * FULL {
            self.cut((self.shards.len() * 2).max(1));
        }
        let place = self.place(&view.id);
        let shard = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place]);
        match search(shard, &view.id) {
            Ok(at) => Some(std::mem::replace(&mut shard[at], view)),
            Err(at) => {
                if shard.len() == shard.capacity() {
                    shard.reserve_exact(GROWTH);
                }
                shard.insert(at, view);
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &NodeId) -> Option<Arc<WorkerView>> {
        let place = self.place(id);
        let at = search(self.shards.get(place)?, id).ok()?;
        let gone = Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[place]).remove(at);
        self.len -= 1;
        let shards = self.shards.len();
        if shards > 1 && self.len < shards * SHARD / 4 {
            self.cut(shards / 2);
        }
        Some(gone)
    }

    /// One of them by chance, nearly evenly.
    pub(crate) fn sample(&self, rng: &mut impl Rng) -> Option<&Arc<WorkerView>> {
        if self.len == 0 {
            return None;
        }
        let shards = self.shards.len();
        let first = rng.random_range(0..shards);
        let shard = (0..shards)
            .map(|step| &self.shards[(first + step) % shards])
            .find(|shard| !shard.is_empty())?;
        shard.get(rng.random_range(0..shard.len()))
    }

    /// Deals all out to so many shards.
    fn cut(&mut self, shards: usize) {
        let mut dealt: Vec<Vec<Arc<WorkerView>>> = Vec::new();
        dealt.resize_with(shards, Vec::new);
        for view in self.iter() {
            dealt[place(&view.id, shards)].push(view.clone());
        }
        let packed = dealt.into_iter().map(|mut shard| {
            shard.sort_unstable_by_key(|view| view.id);
            shard.shrink_to_fit();
            Arc::new(shard)
        });
        self.shards = Arc::new(packed.collect());
    }

    fn place(&self, id: &NodeId) -> usize {
        place(id, self.shards.len())
    }
}

fn search(shard: &[Arc<WorkerView>], id: &NodeId) -> Result<usize, usize> {
    shard.binary_search_by(|view| view.id.cmp(id))
}

/// The shard of a worker, of a power of two of them.
fn place(id: &NodeId, shards: usize) -> usize {
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let hash = KEY.get_or_init(RandomState::new).hash_one(id.0);
    // As many of its low bits as there are shards.
    usize::try_from(hash & (shards as u64).saturating_sub(1)).unwrap_or(0)
}
