//! Who offers what, by model, version, artifact, tier and region.
//!
//! The artifact and the tier are in the key, so that strangers who offer another artifact under a
//! name, or come in their thousands, cannot crowd out those who count.

use super::group::Group;
use super::worker::{Found, WorkerView};
use crate::catalogue::Offered;
use rand::Rng;
use std::collections::BTreeMap;
use std::sync::Arc;
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, ModelName, ModelRef, NodeId, Region, Tier};

/// Most groups of workers that are alike. What is offered beyond is not found, and its workers are
/// shown as not routable for it.
pub const MAX_GROUPS: usize = 16_384;
/// Most of them that hold untrusted workers, so that strangers leave room for the others.
pub const MAX_UNTRUSTED_GROUPS: usize = 4_096;
/// Workers that are drawn by chance from a group beside its best.
const SAMPLES: usize = 16;
/// Groups of other regions that are looked at, for each tier.
const OTHER_REGIONS: usize = 4;
/// Workers that are looked at in each of them.
const OF_ANOTHER_REGION: usize = 16;

type Versions = BTreeMap<(u32, u32), BTreeMap<Digest, Artifact>>;
type Regions = BTreeMap<Region, Arc<Group>>;

/// All groups. A copy shares them; a change copies the part that it is in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    models: BTreeMap<ModelName, Arc<Versions>>,
    groups: usize,
    untrusted: usize,
}

/// A group whose best are to be chosen anew.
#[derive(Debug)]
pub(crate) struct Due {
    name: ModelName,
    version: (u32, u32),
    digest: Digest,
    tier: Tier,
    region: Region,
}

impl Due {
    /// The place of its artifact among what a worker offers.
    fn place(&self, view: &WorkerView) -> Option<u32> {
        let is_it = |it: &ModelOffer| {
            it.digest == self.digest
                && it.model.name == self.name
                && it.model.version.numbers() == self.version
        };
        u32::try_from(view.card().models.iter().position(is_it)?).ok()
    }
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
    fn served_offer(&self, model: &ModelName, tier: Tier, digest: &Digest) -> Option<&ModelOffer> {
        let worker = (self.tier(tier).values()).find_map(|group| group.serving().iter().next())?;
        (worker.card().models.iter()).find(|it| it.model.name == *model && it.digest == *digest)
    }
}

impl Index {
    /// Puts a worker, or the new view of it, where it belongs. Says whether there was room for all
    /// that it offers.
    pub(crate) fn enter(&mut self, worker: &Arc<WorkerView>, seed: u64) -> bool {
        let mut fits = true;
        for offer in &worker.card().models {
            if !self.has_group(worker, offer) && !self.has_room(worker.tier) {
                fits = false;
                continue;
            }
            let serves = worker.state == tether_wire::beat::NodeState::Serving;
            let group = self.group_mut(worker, offer);
            let place = |view: &WorkerView| view.offering.position(&offer.model, &offer.digest);
            group.put(worker, serves, place, seed);
        }
        fits
    }

    /// Takes a worker out of where it was, unless its new view is there as well.
    pub(crate) fn leave(&mut self, old: &WorkerView, new: Option<&WorkerView>, seed: u64) {
        for offer in &old.card().models {
            let stays = new.is_some_and(|new| {
                new.tier == old.tier
                    && new.region() == old.region()
                    && (new.offering.position(&offer.model, &offer.digest)).is_some()
            });
            if !stays && self.has_group(old, offer) {
                let place = |view: &WorkerView| view.offering.position(&offer.model, &offer.digest);
                self.group_mut(old, offer).remove(&old.id, place, seed);
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
            Arc::default()
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

    /// The groups whose best are to be chosen anew.
    pub(crate) fn due(&self, now_ms: u64) -> Vec<Due> {
        let mut due = Vec::new();
        for ((name, version), digest, artifact) in self.artifacts() {
            for tier in [Tier::Trusted, Tier::Untrusted] {
                let groups = artifact.tier(tier).iter();
                due.extend(
                    groups
                        .filter(|(_, it)| it.is_due(now_ms))
                        .map(|(region, _)| Due {
                            name: name.clone(),
                            version,
                            digest: *digest,
                            tier,
                            region: region.clone(),
                        }),
                );
            }
        }
        due
    }

    /// Chooses the best of these groups anew.
    pub(crate) fn rank(&mut self, due: &[Due], seed: u64, now_ms: u64) {
        for it in due {
            let group = (self.models.get_mut(&it.name))
                .and_then(|models| {
                    Arc::make_mut(models)
                        .get_mut(&it.version)?
                        .get_mut(&it.digest)
                })
                .and_then(|artifact| artifact.tier_mut(it.tier).get_mut(&it.region));
            if let Some(group) = group {
                let place = |view: &WorkerView| it.place(view);
                Arc::make_mut(group).rank_again(place, seed, now_ms);
            }
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

    /// The best who serve an artifact, in no order; never more than some hundreds.
    pub(crate) fn find<'a>(
        &'a self,
        (model, digest): (&ModelRef, &Digest),
        region: &Region,
        rng: &mut impl Rng,
        found: &mut Vec<Found<'a>>,
    ) {
        let Some(artifact) = self.artifact(model, digest) else {
            return;
        };
        for tier in [Tier::Trusted, Tier::Untrusted] {
            let regions = artifact.tier(tier);
            if let Some(group) = regions.get(region) {
                let first = found.len();
                found.extend(group.top().iter().map(|it| it.found()));
                if group.serving().len() > group.top().len() {
                    for _ in 0..SAMPLES {
                        let Some(worker) = group.serving().sample(rng) else {
                            break;
                        };
                        let is_it = |it: &Found<'_>| Arc::ptr_eq(it.worker, worker);
                        if found[first..].iter().any(is_it) {
                            continue;
                        }
                        if let Some(offer) = worker.offering.position(model, digest) {
                            found.push(Found { worker, offer });
                        }
                    }
                }
            }
            // Each region begins with another one of the others, where there are many.
            let (before, behind) = (regions.range(..region), regions.range(region..));
            let others = behind.chain(before).filter(|(at, _)| *at != region);
            let mut left = OTHER_REGIONS;
            for (_, group) in others.take(OTHER_REGIONS * OTHER_REGIONS) {
                let some = group.top().iter().take(OF_ANOTHER_REGION);
                found.extend(some.clone().map(|it| it.found()));
                left -= usize::from(some.clone().any(|it| !it.worker.is_suspect()));
                if left == 0 {
                    break;
                }
            }
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
                    .flat_map(|(_, artifacts)| artifacts)
                    .find_map(|(digest, artifact)| artifact.served_offer(name, tier, digest))
            })
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
    pub(crate) fn groups(&self) -> (usize, usize) {
        (self.groups, self.untrusted)
    }
}
