//! What is known, and when it changed. Pure.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tether_wire::grant::Mesh;
use tether_wire::membership::{Checked, ControlError, Fact, MAX_FACTS};
use tether_wire::{Digest, Membership, NodeId, codec};

/// A change of what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipNews {
    /// A fact, and the encoded control message that proves it.
    Learnt(Fact, Arc<[u8]>),
    /// A fact that no longer matters.
    Dropped(Fact),
}

/// Most control messages that are remembered for changing nothing.
const MAX_IDLE: usize = 65_536;

/// What a fact did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing.
    Idle,
    /// It is held beside the others.
    Added,
    /// It is held, and others went for it.
    Replaced,
}

/// An encoded control message, and the version that came with it.
struct Held {
    control: Arc<[u8]>,
    version: u64,
}

pub(super) struct State {
    membership: Membership,
    held: BTreeMap<Fact, Held>,
    /// The facts that are held, by the version that came with each.
    learnt: BTreeMap<u64, Fact>,
    /// The last ones that were dropped, with the version that came by it. Whoever misses some that
    /// were dropped before keeps them, which is no more than what all others once knew.
    dropped: VecDeque<(u64, Fact)>,
    /// Of the control messages that are held, so that none of them is verified twice.
    digests: HashSet<Digest>,
    /// Those that changed nothing since something was dropped last, and why one that had no room
    /// had none.
    idle: HashMap<Digest, Option<ControlError>>,
    /// Grows with each change.
    version: u64,
}

impl State {
    pub(super) fn new(mesh: Mesh) -> Self {
        Self {
            membership: Membership::new(mesh),
            held: BTreeMap::new(),
            learnt: BTreeMap::new(),
            dropped: VecDeque::new(),
            digests: HashSet::new(),
            idle: HashMap::new(),
            version: 0,
        }
    }

    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn allow_only(&mut self, keys: Option<HashSet<NodeId>>) {
        self.membership.allow_only(keys);
        self.version += 1;
    }

    /// What is known of this encoded control message, where it need not be looked at again: that it
    /// changes nothing, or that there is no room for it.
    pub(super) fn verdict(&self, control: &[u8]) -> Option<Result<(), ControlError>> {
        let digest = Digest::of(control);
        if self.digests.contains(&digest) {
            return Some(Ok(()));
        }
        let verdict = self.idle.get(&digest)?;
        Some(verdict.clone().map_or(Ok(()), Err))
    }

    /// Remembers that this encoded control message changes nothing, or why.
    pub(super) fn set_idle(&mut self, control: &[u8], why: Option<ControlError>) {
        if self.idle.len() >= MAX_IDLE {
            self.idle.clear();
        }
        self.idle.insert(Digest::of(control), why);
    }

    /// The encoded control message that proves this fact.
    pub(super) fn proof(&self, fact: &Fact) -> Option<Arc<[u8]>> {
        self.held.get(fact).map(|held| held.control.clone())
    }

    /// Encoded control messages, one for each fact.
    pub(super) fn sealed(&self) -> Vec<Arc<[u8]>> {
        self.held
            .values()
            .map(|held| held.control.clone())
            .collect()
    }

    /// Takes a fact; says whether it changed anything.
    pub(super) fn apply(&mut self, checked: &Checked, now_ms: u64) -> Result<Taken, ControlError> {
        let fact = *checked.fact();
        if self.held.contains_key(&fact) {
            return Ok(Taken::Idle);
        }
        let Some(gone) = self.membership.apply(checked, now_ms)? else {
            return Ok(Taken::Idle);
        };
        let taken = match gone.is_empty() {
            true => Taken::Added,
            false => Taken::Replaced,
        };
        self.drop_all(gone);
        self.version += 1;
        let control: Arc<[u8]> = codec::encode(checked.control()).into();
        self.digests.insert(Digest::of(&control));
        self.learnt.insert(self.version, fact);
        let version = self.version;
        self.held.insert(fact, Held { control, version });
        Ok(taken)
    }

    /// Forgets what is over at this time, in Unix milliseconds; says how much that was.
    pub(super) fn forget(&mut self, now_ms: u64) -> usize {
        // What was over by a clock that was wrong is looked at again.
        self.idle.clear();
        let gone = self.membership.forget(now_ms);
        let forgot = gone.len();
        self.drop_all(gone);
        forgot
    }

    fn drop_all(&mut self, gone: Vec<Fact>) {
        if !gone.is_empty() {
            self.idle.clear();
        }
        for fact in gone {
            if let Some(held) = self.held.remove(&fact) {
                self.learnt.remove(&held.version);
                self.digests.remove(&Digest::of(&held.control));
            }
            self.version += 1;
            self.dropped.push_back((self.version, fact));
            if self.dropped.len() > MAX_FACTS {
                self.dropped.pop_front();
            }
        }
    }

    /// See [`super::Members::since`].
    pub(super) fn since(&self, version: u64) -> (Vec<MembershipNews>, u64) {
        let after = version.saturating_add(1);
        let learnt = (self.learnt.range(after..)).filter_map(|(version, fact)| {
            let control = self.held.get(fact)?.control.clone();
            Some((*version, MembershipNews::Learnt(*fact, control)))
        });
        let first = (self.dropped).partition_point(|(dropped, _)| *dropped < after);
        let dropped = (self.dropped.range(first..))
            .map(|(version, fact)| (*version, MembershipNews::Dropped(*fact)));
        let mut news: Vec<_> = learnt.chain(dropped).collect();
        news.sort_by_key(|(version, _)| *version);
        (
            news.into_iter().map(|(_, news)| news).collect(),
            self.version,
        )
    }
}
