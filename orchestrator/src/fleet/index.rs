//! Who offers what, by model, version, artifact, tier and region.
//!
//! The artifact and the tier are in the key, so that strangers who offer another artifact under a
//! name, or come in their thousands, cannot crowd out those who count.

mod turns;

use super::candidate::Found;
use super::classes::Class;
use super::faulted::Faulted;
use super::group::{AWAY, Group, HERE, Kind};
use super::worker::WorkerView;
use crate::catalogue::Offered;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tether_wire::beat::NodeState;
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, ModelName, ModelRef, NodeId, Region, Tier};
#[cfg(test)]
pub(crate) use turns::RANK_MS;

/// Most groups of workers that are alike. What is offered beyond is not found, and its workers are
/// shown as not routable for it.
pub const MAX_GROUPS: usize = 16_384;
/// Most of them that hold untrusted workers, so that strangers leave room for the others.
pub const MAX_UNTRUSTED_GROUPS: usize = 4_096;
/// Groups of other regions that are looked at, for each tier.
const OTHER_REGIONS: usize = 2;

/// Most workers that are looked at for a request of no class, as long as there is one among them that is
/// well.
pub(crate) const MAX_LOOKED: usize = 2 * (HERE.all + OTHER_REGIONS * AWAY.all);

type Versions = BTreeMap<(u32, u32), BTreeMap<Digest, Artifact>>;
type Regions = BTreeMap<Region, Arc<Group>>;

/// All groups. A copy shares them; a change copies the part that it is in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    models: BTreeMap<ModelName, Arc<Versions>>,
    /// What is named and not offered.
    faulted: Arc<Faulted>,
    groups: usize,
    untrusted: usize,
    /// When groups were ranked. A new one takes its turn behind the others, so that who makes many
    /// does not keep them from theirs.
    ranked_ms: u64,
}

/// Those who offer one artifact under one name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Artifact {
    trusted: Regions,
    untrusted: Regions,
}

impl Artifact {
    fn tier(&self, tier: Tier) -> &Regions {
        match tier {
            Tier::Trusted => &self.trusted,
            Tier::Untrusted => &self.untrusted,
        }
    }

    fn tier_mut(&mut self, tier: Tier) -> &mut Regions {
        match tier {
            Tier::Trusted => &mut self.trusted,
            Tier::Untrusted => &mut self.untrusted,
        }
    }

    fn is_served(&self, tier: Tier) -> bool {
        (self.tier(tier).values()).any(|group| !group.serving().is_empty())
    }

    /// The offer of one that takes work.
    fn served_offer(&self, tier: Tier) -> Option<&ModelOffer> {
        let one = (self.tier(tier).values()).find_map(|group| group.serving().iter().next())?;
        Some(one.offer())
    }
}

impl Index {
    /// Puts a worker, or the new view of it, where it belongs. Says whether there was room for all
    /// that it offers.
    pub(crate) fn enter(&mut self, worker: &Arc<WorkerView>) -> bool {
        let mut fits = true;
        for offer in &worker.card().models {
            if !self.has_group(worker, offer) && !self.has_room(worker.tier) {
                fits = false;
                continue;
            }
            let serves = worker.state == NodeState::Serving;
            self.group_mut(worker, offer).put(worker, serves);
        }
        if Faulted::concerns(worker) {
            Arc::make_mut(&mut self.faulted).enter(worker);
        }
        fits
    }

    /// Takes a worker out of where it was, unless its new view is there as well.
    pub(crate) fn leave(&mut self, old: &WorkerView, new: Option<&WorkerView>) {
        if Faulted::concerns(old) {
            Arc::make_mut(&mut self.faulted).leave(old);
        }
        for offer in &old.card().models {
            let stays = new.is_some_and(|new| {
                new.tier == old.tier
                    && new.region() == old.region()
                    && (new.offering.position(&offer.model, &offer.digest)).is_some()
            });
            if !stays && self.has_group(old, offer) {
                self.group_mut(old, offer).remove(&old.id);
                self.prune(old, offer);
            }
        }
    }

    /// Whether those who offer this are found.
    pub(crate) fn has_group(&self, worker: &WorkerView, offer: &ModelOffer) -> bool {
        (self.artifact(&offer.model, &offer.digest))
            .is_some_and(|it| it.tier(worker.tier).contains_key(worker.region()))
    }

    fn has_room(&self, tier: Tier) -> bool {
        self.groups < MAX_GROUPS && (tier == Tier::Trusted || self.untrusted < MAX_UNTRUSTED_GROUPS)
    }

    fn group_mut(&mut self, worker: &WorkerView, offer: &ModelOffer) -> &mut Group {
        let versions = Arc::make_mut(self.models.entry(offer.model.name.clone()).or_default());
        let artifacts = versions.entry(offer.model.version.numbers()).or_default();
        let artifact = artifacts.entry(offer.digest).or_default();
        let regions = artifact.tier_mut(worker.tier);
        let group = regions.entry(worker.region().clone()).or_insert_with(|| {
            self.groups += 1;
            self.untrusted += usize::from(worker.tier == Tier::Untrusted);
            Arc::new(Group::new(Kind::of(worker, offer), self.ranked_ms))
        });
        Arc::make_mut(group)
    }

    /// Removes the group of an offer, and what is around it, where nobody is left.
    fn prune(&mut self, worker: &WorkerView, offer: &ModelOffer) {
        let Some(versions) = self.models.get_mut(&offer.model.name) else {
            return;
        };
        let versions = Arc::make_mut(versions);
        let number = offer.model.version.numbers();
        let Some(artifacts) = versions.get_mut(&number) else {
            return;
        };
        if let Some(artifact) = artifacts.get_mut(&offer.digest) {
            let regions = artifact.tier_mut(worker.tier);
            if regions.get(worker.region()).is_some_and(|it| it.is_empty()) {
                regions.remove(worker.region());
                self.groups -= 1;
                self.untrusted -= usize::from(worker.tier == Tier::Untrusted);
            }
            if artifact.trusted.is_empty() && artifact.untrusted.is_empty() {
                artifacts.remove(&offer.digest);
            }
        }
        if artifacts.is_empty() {
            versions.remove(&number);
        }
        if versions.is_empty() {
            self.models.remove(&offer.model.name);
        }
    }

    fn artifacts(&self) -> impl Iterator<Item = ((&ModelName, (u32, u32)), &Digest, &Artifact)> {
        self.models.iter().flat_map(|(name, versions)| {
            versions.iter().flat_map(move |(version, artifacts)| {
                (artifacts.iter()).map(move |(digest, it)| ((name, *version), digest, it))
            })
        })
    }

    fn artifact(&self, model: &ModelRef, digest: &Digest) -> Option<&Artifact> {
        (self.models.get(&model.name)?)
            .get(&model.version.numbers())?
            .get(digest)
    }

    /// Whether somebody takes work for an artifact.
    pub(crate) fn is_served(&self, model: &ModelRef, digest: &Digest) -> bool {
        let artifact = self.artifact(model, digest);
        artifact.is_some_and(|it| it.is_served(Tier::Trusted) || it.is_served(Tier::Untrusted))
    }

    /// The best who serve an artifact, in no order; never more than some hundreds. `within`: only
    /// those of these regions, however many others there are.
    pub(crate) fn find<'a>(
        &'a self,
        (model, digest): (&ModelRef, &Digest),
        region: &Region,
        within: Option<&BTreeSet<Region>>,
        class: Class<'_>,
        rng: &mut impl Rng,
        found: &mut Vec<Found<'a>>,
    ) {
        let Some(artifact) = self.artifact(model, digest) else {
            return;
        };
        for tier in [Tier::Trusted, Tier::Untrusted] {
            let regions = artifact.tier(tier);
            let is_within = within.is_none_or(|within| within.contains(region));
            if let Some(group) = regions.get(region).filter(|_| is_within) {
                group.find(HERE, class, rng, found);
            }
            let mut left = OTHER_REGIONS;
            for group in others(regions, region, within, rng.random()) {
                let before = found.len();
                group.find(AWAY, class, rng, found);
                let serves = |it: &Found<'_>| !it.worker.is_suspect() && class.is_of(it);
                left -= usize::from(found[before..].iter().any(serves));
                if left == 0 {
                    break;
                }
            }
        }
    }

    /// All who serve an artifact.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn find_all<'a>(
        &'a self,
        model: &ModelRef,
        digest: &Digest,
        found: &mut Vec<Found<'a>>,
    ) {
        for tier in [Tier::Trusted, Tier::Untrusted] {
            let artifact = self.artifact(model, digest).into_iter();
            let groups = artifact.flat_map(|it| it.tier(tier).values());
            groups.for_each(|group| group.find_all(found));
        }
    }

    /// The model that is meant by a name and, where it is given, a version: the highest one that a
    /// trusted worker serves, or else the highest one.
    pub(crate) fn named(
        &self,
        name: &ModelName,
        version: Option<(u32, u32)>,
    ) -> Option<&ModelOffer> {
        let versions = self.models.get(name)?;
        [Tier::Trusted, Tier::Untrusted]
            .into_iter()
            .find_map(|tier| {
                (versions.iter().rev())
                    .filter(|(number, _)| version.is_none_or(|it| it == **number))
                    .flat_map(|(_, artifacts)| artifacts.values())
                    .find_map(|artifact| artifact.served_offer(tier))
            })
    }

    /// Whether a live worker has a model of this name, and of this version where it is given, and
    /// does not serve it; with the kind of its fault, where it says one. Only versions that `may` be
    /// told of count.
    pub(crate) fn withheld(
        &self,
        name: &ModelName,
        version: Option<(u32, u32)>,
        may: impl Fn((u32, u32)) -> bool,
    ) -> Option<Option<&str>> {
        let is_offered = || {
            let mut versions = self.models.get(name)?.keys();
            let has = versions.any(|it| version.is_none_or(|version| version == *it) && may(*it));
            has.then_some(None)
        };
        (self.faulted.find(name, version, &may)).or_else(is_offered)
    }

    /// Each artifact that is offered under each name, whether its workers take work or not, and for
    /// each one of them, a trusted one first.
    pub(crate) fn offers(&self) -> Vec<Offered> {
        let one = |(model, digest, artifact): ((&ModelName, (u32, u32)), &Digest, &Artifact)| {
            let of = |tier| artifact.tier(tier).values().find_map(|group| group.any());
            let (worker, trusted) = (of(Tier::Trusted).map(|it| (it, true)))
                .or_else(|| of(Tier::Untrusted).map(|it| (it, false)))?;
            let offer = (worker.card().models.iter()).find(|it| {
                it.digest == *digest
                    && it.model.name == *model.0
                    && it.model.version.numbers() == model.1
            })?;
            let worker: NodeId = worker.id;
            Some(Offered {
                model: offer.model.clone(),
                digest: *digest,
                worker,
                trusted,
            })
        };
        self.artifacts().filter_map(one).collect()
    }

    #[cfg(test)]
    fn group(&self, kind: &Kind) -> Option<&Arc<Group>> {
        let artifact = self.artifact(&kind.model, &kind.digest)?;
        artifact.tier(kind.tier).get(&kind.region)
    }

    #[cfg(test)]
    pub(crate) fn ready(&self, kind: &Kind) -> Vec<super::candidate::Candidate> {
        (self.group(kind)).map_or_else(Vec::new, |group| group.ready())
    }

    #[cfg(test)]
    pub(super) fn classes(&self, kind: &Kind) -> super::classes::Classes {
        (self.group(kind)).map_or_else(Default::default, |group| group.classes().clone())
    }

    #[cfg(test)]
    pub(crate) fn ranked_ms(&self, kind: &Kind) -> Option<u64> {
        self.group(kind)?.ranked_ms()
    }

    #[cfg(test)]
    pub(crate) fn groups(&self) -> (usize, usize) {
        (self.groups, self.untrusted)
    }
}

/// Groups of other regions, a bounded number, from one on that a random number chooses: where the first
/// ones are full, or breakers bar them, others are looked at another time.
fn others<'a, 'b>(
    regions: &'a Regions,
    region: &'b Region,
    within: Option<&'b BTreeSet<Region>>,
    random: u64,
) -> impl Iterator<Item = &'a Arc<Group>> {
    let count = within.map_or(regions.len(), BTreeSet::len);
    let first = usize::try_from(random % (count as u64).max(1)).unwrap_or(0);
    let all = within.is_none().then(|| {
        let all = regions.iter().cycle().skip(first).take(count);
        all.filter(move |(at, _)| *at != region)
            .map(|(_, group)| group)
    });
    let some = within.map(|within| {
        let some = within.iter().cycle().skip(first).take(count);
        some.filter(move |at| *at != region)
            .filter_map(move |at| regions.get(at))
    });
    let found = all.into_iter().flatten().chain(some.into_iter().flatten());
    found.take(OTHER_REGIONS * OTHER_REGIONS)
}
