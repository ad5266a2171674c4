//! Facts of one kind, within bounds. [T-CTL-6]
//!
//! Which of too many are kept depends on what came, and not on the order in which it came: of each
//! set that is too large its smallest, of all together as many of each owner, and of an owner as many
//! of each group, so that none takes the room of another. So all nodes that heard the same hold the same, and none is sent for ever
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

/// On whose word something rests, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    /// Whom the operator of the mesh granted what it takes, whatever that key gave and passed on
    /// since; nobody where the operator signed itself.
    pub(super) owner: Option<NodeId>,
    /// All who signed.
    pub(super) signers: Arc<[NodeId]>,
    /// Unix milliseconds from which nothing that it is about can count.
    pub(super) ends_ms: u64,
}

/// Facts that are about one thing: a key whose grant was passed on, or an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Which.
    pub(super) name: Digest,
    /// Who answers for it.
    pub(super) owner: Option<NodeId>,
    /// Most facts of it.
    pub(super) most: usize,
}

/// What became of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put<T> {
    /// It is held, and this one had to go for it.
    Kept(Option<(Group, T)>),
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
    owners: BTreeSet<(usize, NodeId)>,
    /// Groups of each owner by how many facts they have.
    sizes: BTreeSet<(Option<NodeId>, usize, Digest)>,
    len: usize,
}

impl<T: Copy + Ord> Shelf<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            groups: BTreeMap::new(),
            of_owner: HashMap::new(),
            owners: BTreeSet::new(),
            sizes: BTreeSet::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The facts of a group, the first ones first.
    pub(super) fn of(&self, group: &Group) -> Option<&BTreeSet<T>> {
        let held = self.groups.get(&(group.owner, group.name))?;
        Some(&held.items)
    }

    /// Adds a fact; where that is one too many, the last of those that are too many goes.
    pub(super) fn put(&mut self, group: &Group, item: T) -> Put<T> {
        let place = (group.owner, group.name);
        let held = self.groups.entry(place).or_insert_with(|| Held {
            group: *group,
            items: BTreeSet::new(),
        });
        if !held.items.insert(item) {
            return Put::Idle;
        }
        let of_group = held.items.len();
        let of_owner = self.count(place, of_group - 1, of_group);
        // Who has most loses first, so that whoever has little never does.
        let over = if of_group > group.most {
            Some(place)
        } else if group.owner.is_some() && of_owner > self.bounds.of_one {
            self.largest_of(group.owner)
        } else if self.len > self.bounds.all {
            self.largest_of(self.owners.last().map(|(_, owner)| *owner))
        } else {
            None
        };
        let last = over.and_then(|place| {
            let held = self.groups.get(&place)?;
            Some((held.group, *held.items.last()?))
        });
        let Some((from, last)) = last else {
            return Put::Kept(None);
        };
        self.remove(&from, &last);
        match (from, last) == (*group, item) {
            true if of_group > group.most => Put::Idle,
            true => Put::Full,
            false => Put::Kept(Some((from, last))),
        }
    }

    /// The largest group of an owner.
    fn largest_of(&self, owner: Option<NodeId>) -> Option<Place> {
        let all = (owner, 0, Digest([0; 32]))..=(owner, usize::MAX, Digest([u8::MAX; 32]));
        let (owner, _, name) = self.sizes.range(all).next_back()?;
        Some((*owner, *name))
    }

    /// Takes a fact away; says whether it was there.
    pub(super) fn remove(&mut self, group: &Group, item: &T) -> bool {
        let place = (group.owner, group.name);
        let Some(held) = self.groups.get_mut(&place) else {
            return false;
        };
        if !held.items.remove(item) {
            return false;
        }
        let left = held.items.len();
        if left == 0 {
            self.groups.remove(&place);
        }
        self.count(place, left + 1, left);
        true
    }

    /// Counts that a group grew or shrank; how many facts its owner has now.
    fn count(&mut self, place: Place, before: usize, now: usize) -> usize {
        let (owner, name) = place;
        self.sizes.remove(&(owner, before, name));
        if now > 0 {
            self.sizes.insert((owner, now, name));
        }
        self.len = self.len + now - before;
        let Some(owner) = owner else {
            return 0;
        };
        let owned = self.of_owner.get(&owner).copied().unwrap_or(0);
        let owns = owned + now - before;
        self.owners.remove(&(owned, owner));
        if owns == 0 {
            self.of_owner.remove(&owner);
        } else {
            self.of_owner.insert(owner, owns);
            self.owners.insert((owns, owner));
        }
        owns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n: u8, owner: Option<u8>, most: usize) -> Group {
        Group {
            name: Digest([n; 32]),
            owner: owner.map(|n| NodeId([n; 32])),
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
    fn each_bound_is_kept_and_who_has_most_loses_first() {
        let mut shelf = shelf();
        let own = group(1, Some(7), 3);
        assert_eq!(shelf.put(&own, 5), Put::Kept(None));
        assert_eq!(shelf.put(&own, 5), Put::Idle);
        assert_eq!(shelf.put(&own, 4), Put::Kept(None));
        assert_eq!(shelf.put(&own, 7), Put::Kept(None));
        assert_eq!(shelf.put(&own, 8), Put::Idle, "its group is full");
        assert_eq!(shelf.put(&own, 3), Put::Kept(Some((own, 7))));
        let next = group(2, Some(7), 9);
        assert_eq!(shelf.put(&next, 1), Put::Kept(None));
        assert_eq!(shelf.put(&next, 2), Put::Kept(Some((own, 5))));
        assert_eq!(shelf.put(&next, 3), Put::Full, "its owner has no more");
        let operators = group(9, None, 9);
        for item in 0..2 {
            assert_eq!(shelf.put(&operators, item), Put::Kept(None));
        }
        // The operator's come before those of others.
        assert_eq!(shelf.put(&operators, 2), Put::Kept(Some((next, 2))));
        let little = group(8, Some(8), 9);
        assert_eq!(shelf.put(&little, 0), Put::Kept(Some((own, 4))));
        assert_eq!(shelf.put(&little, 1), Put::Full, "as many");
        assert_eq!(shelf.len(), 6);
        for (group, item) in [(own, 3), (next, 1), (little, 0)] {
            assert!(shelf.remove(&group, &item) && !shelf.remove(&group, &item));
        }
        assert!(shelf.of_owner.is_empty() && shelf.owners.is_empty());
        assert_eq!((shelf.sizes.len(), shelf.len()), (1, 3));
        assert!(shelf.of(&own).is_none());
    }

    #[test]
    fn what_is_kept_does_not_depend_on_the_order() {
        let mut all: Vec<(Group, u32)> = (0..6u8)
            .flat_map(|n| (0..4).map(move |item| (n, item)))
            .map(|(n, item)| (group(n, (n > 0).then_some(n % 3), 3), item))
            .collect();
        for len in [24, 9] {
            all.truncate(len);
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
}
