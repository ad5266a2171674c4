//! Facts of one kind, within bounds. [T-CTL-6]
//!
//! Which of too many are kept depends on what came, and not on the order in which it came: of each
//! set that is too large its smallest, and of all together as many of each owner, so that none takes
//! the room of another. So all nodes that heard the same hold the same, and none is sent for ever
//! what it has no room for.

use crate::id::{Digest, NodeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Most facts of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Together.
    pub(super) all: usize,
    /// Of those that one key answers for.
    pub(super) of_one: usize,
}

/// On whose word something rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    /// Whom the operator of the mesh granted what it takes, whatever that key gave and passed on
    /// since; nobody where the operator signed itself.
    pub(super) owner: Option<NodeId>,
    /// All who signed.
    pub(super) signers: Arc<[NodeId]>,
}

/// What some facts rest on: the grant that was passed on, or the invite. It says all that is here, so
/// that whoever knows the group by its digest means the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Of the sealed grant or invite.
    pub(super) digest: Digest,
    /// On whose word.
    pub(super) basis: Basis,
    /// Unix milliseconds from which nothing that its facts are about can count.
    pub(super) ends_ms: u64,
    /// Most facts of it.
    pub(super) most: usize,
}

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put<T> {
    /// It is held, and this one had to go for it.
    Kept(Option<(Digest, T)>),
    /// It is held already, or its group holds as many that come before it.
    Idle,
    /// There is no room for it.
    Full,
}

#[derive(Clone, Debug)]
struct Held<T> {
    group: Group,
    items: BTreeSet<T>,
}

/// Where a group stands: those of the operator of the mesh come before all others.
type Place = (Option<NodeId>, Digest);

#[derive(Clone, Debug)]
pub(super) struct Shelf<T> {
    bounds: Bounds,
    groups: BTreeMap<Place, Held<T>>,
    of_owner: HashMap<NodeId, usize>,
    /// Owners by how many facts they have.
    by_count: BTreeSet<(usize, NodeId)>,
    len: usize,
}

impl<T: Copy + Ord> Shelf<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            groups: BTreeMap::new(),
            of_owner: HashMap::new(),
            by_count: BTreeSet::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The facts of a group, the first ones first.
    pub(super) fn of(&self, group: &Group) -> Option<&BTreeSet<T>> {
        let held = self.groups.get(&(group.basis.owner, group.digest))?;
        Some(&held.items)
    }

    /// Adds a fact; where that is one too many, the last of those that are too many goes.
    pub(super) fn put(&mut self, group: &Group, item: T) -> Put<T> {
        let owner = group.basis.owner;
        let place = (owner, group.digest);
        let held = self.groups.entry(place).or_insert_with(|| Held {
            group: group.clone(),
            items: BTreeSet::new(),
        });
        if !held.items.insert(item) {
            return Put::Idle;
        }
        let of_group = held.items.len();
        let of_owner = self.count(owner, 1);
        let over = if of_group > group.most {
            Some(place)
        } else if owner.is_some() && of_owner > self.bounds.of_one {
            self.last_of(owner)
        } else if self.len > self.bounds.all {
            // Who has most loses first, so that whoever has little never does.
            let most = self.by_count.last().map(|(_, owner)| *owner);
            self.last_of(most)
        } else {
            None
        };
        let last = over.and_then(|place| Some((place, *self.groups.get(&place)?.items.last()?)));
        let Some((from, last)) = last else {
            return Put::Kept(None);
        };
        self.take(from, &last);
        match (from, last) == (place, item) {
            true if of_group > group.most => Put::Idle,
            true => Put::Full,
            false => Put::Kept(Some((from.1, last))),
        }
    }

    /// The last group of an owner.
    fn last_of(&self, owner: Option<NodeId>) -> Option<Place> {
        let all = (owner, Digest([0; 32]))..=(owner, Digest([u8::MAX; 32]));
        self.groups.range(all).next_back().map(|(place, _)| *place)
    }

    /// Takes a fact away; says whether it was there.
    pub(super) fn remove(&mut self, group: &Group, item: &T) -> bool {
        self.take((group.basis.owner, group.digest), item)
    }

    fn take(&mut self, place: Place, item: &T) -> bool {
        let Some(held) = self.groups.get_mut(&place) else {
            return false;
        };
        if !held.items.remove(item) {
            return false;
        }
        if held.items.is_empty() {
            self.groups.remove(&place);
        }
        self.count(place.0, -1);
        true
    }

    /// Counts facts of an owner that came or went; how many it has now.
    fn count(&mut self, owner: Option<NodeId>, change: isize) -> usize {
        self.len = self.len.saturating_add_signed(change);
        let Some(owner) = owner else {
            return 0;
        };
        let before = self.of_owner.get(&owner).copied().unwrap_or(0);
        let now = before.saturating_add_signed(change);
        self.by_count.remove(&(before, owner));
        if now == 0 {
            self.of_owner.remove(&owner);
        } else {
            self.of_owner.insert(owner, now);
            self.by_count.insert((now, owner));
        }
        now
    }

    /// Takes away all facts of the groups that are over by some rule.
    pub(super) fn drop_groups(&mut self, is_over: impl Fn(&Group) -> bool) -> Vec<(Digest, T)> {
        let mut gone = Vec::new();
        for (place, held) in self.groups.extract_if(.., |_, held| is_over(&held.group)) {
            gone.push((place, held.items));
        }
        for (place, items) in &gone {
            self.count(place.0, -items.len().cast_signed());
        }
        (gone.into_iter())
            .flat_map(|(place, items)| items.into_iter().map(move |item| (place.1, item)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n: u8, owner: Option<u8>, most: usize) -> Group {
        Group {
            digest: Digest([n; 32]),
            basis: Basis {
                owner: owner.map(|n| NodeId([n; 32])),
                signers: Arc::default(),
            },
            ends_ms: u64::from(n),
            most,
        }
    }
    fn shelf() -> Shelf<u32> {
        Shelf::new(Bounds { all: 6, of_one: 4 })
    }
    fn held(shelf: &Shelf<u32>) -> Vec<(Digest, u32)> {
        let all = shelf.groups.iter();
        all.flat_map(|(place, held)| held.items.iter().map(move |item| (place.1, *item)))
            .collect()
    }

    #[test]
    fn each_bound_is_kept_and_the_smallest_stay() {
        let mut shelf = shelf();
        let own = group(1, Some(7), 2);
        assert_eq!(shelf.put(&own, 5), Put::Kept(None));
        assert_eq!(shelf.put(&own, 5), Put::Idle);
        assert_eq!(shelf.put(&own, 4), Put::Kept(None));
        assert_eq!(shelf.put(&own, 6), Put::Idle, "its group is full");
        assert_eq!(shelf.put(&own, 3), Put::Kept(Some((Digest([1; 32]), 5))));
        let next = group(2, Some(7), 9);
        assert_eq!(shelf.put(&next, 1), Put::Kept(None));
        assert_eq!(shelf.put(&next, 2), Put::Kept(None));
        assert_eq!(shelf.put(&next, 3), Put::Full, "its owner is");
        for item in 0..2 {
            assert_eq!(shelf.put(&group(9, None, 9), item), Put::Kept(None));
        }
        // The operator's come before those of others, and who has most loses first.
        let gone = Put::Kept(Some((Digest([2; 32]), 2)));
        assert_eq!(shelf.put(&group(9, None, 9), 2), gone);
        let gone = Put::Kept(Some((Digest([2; 32]), 1)));
        assert_eq!(shelf.put(&group(8, Some(8), 9), 0), gone);
        assert_eq!(shelf.put(&group(8, Some(8), 9), 1), Put::Full, "as many");
        assert_eq!(shelf.len(), 6);
        let over = shelf.drop_groups(|group| group.ends_ms < 5);
        assert_eq!((over.len(), shelf.len()), (2, 4));
        assert!(shelf.of(&own).is_none());
        assert_eq!(shelf.by_count.len(), 1);
        shelf.drop_groups(|_| true);
        assert!(shelf.len() == 0 && shelf.of_owner.is_empty() && shelf.by_count.is_empty());
    }

    #[test]
    fn what_is_kept_does_not_depend_on_the_order() {
        let mut all: Vec<(Group, u32)> = (0..4u8)
            .flat_map(|n| (0..4).map(move |item| (n, item)))
            .map(|(n, item)| (group(n, (n > 0).then_some(n % 3), 3), item))
            .collect();
        let kept = |all: &[(Group, u32)]| {
            let mut shelf = shelf();
            for (group, item) in all {
                shelf.put(group, *item);
            }
            held(&shelf)
        };
        let first = kept(&all);
        assert_eq!(first.len(), 6);
        let mut random = 1u64;
        for _ in 0..500 {
            for n in (1..all.len()).rev() {
                random = (random.wrapping_mul(6_364_136_223_846_793_005)).wrapping_add(1);
                all.swap(n, usize::try_from(random >> 33).expect("small") % (n + 1));
            }
            assert_eq!(kept(&all), first);
        }
    }
}
