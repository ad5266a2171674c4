//! Workers that are alike to a request: one artifact, one region, one tier.
//!
//! Some of the best of a group are kept ready, so that placement looks at some dozens of workers
//! however many there are. They are a preference and no more: they are ranked anew from time to
//! time, and in between placement fills up with others of the group, and sees for itself what each
//! one has to do now. So nothing need be ranked because somebody came or went.

use super::best::{Best, Rated};
use super::candidate::{Candidate, Found};
use super::classes::{Class, Classes, READY, Ranking};
use super::merit::Merits;
use super::roll::Roll;
use super::worker::WorkerView;
use rand::Rng;
use std::sync::Arc;
use tether_wire::card::ModelOffer;
use tether_wire::{Digest, ModelRef, NodeId, Region, Tier};

/// Workers of a group that are kept ready.
pub(crate) const TOP: usize = 64;
/// Workers of a group that are looked at when it is ranked: the best of so many, drawn by chance,
/// are as good as the best of more, and the keeper is held up for no more than a millisecond or two.
pub(crate) const RANKED: usize = 4_096;

/// How many of a group are looked at for a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// In all, where there are so many.
    pub(crate) all: usize,
    /// The best of those that are ready. The rest of them take turns: all who ask would otherwise
    /// go to the same few.
    best: usize,
    /// Those that are drawn from all the rest, where not all are ready, so that whoever is not is
    /// reached all the same.
    drawn: usize,
}

impl Look {
    /// The same for so many fewer, of each part of them.
    fn less(self, count: usize) -> Self {
        let all = self.all - count;
        Self {
            all,
            best: self.best.min(all / 2),
            drawn: self.drawn.min(all / 2),
        }
    }
}

/// In the region of the request. More cost more, and serve worse where several orchestrators choose by
/// what is some seconds old: the more of the best are looked at the more choose the same ones. All
/// that are ready are good, so that none of them is always looked at.
pub(crate) const HERE: Look = Look {
    all: 12,
    best: 0,
    drawn: 4,
};
/// In another region.
pub(crate) const AWAY: Look = Look {
    all: 3,
    best: 1,
    drawn: 0,
};

/// What the workers of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) model: ModelRef,
    pub(crate) digest: Digest,
    pub(crate) tier: Tier,
    pub(crate) region: Region,
}

impl Kind {
    pub(crate) fn of(worker: &WorkerView, offer: &ModelOffer) -> Self {
        Self {
            model: offer.model.clone(),
            digest: offer.digest,
            tier: worker.tier,
            region: worker.region().clone(),
        }
    }

    fn found<'a>(&self, worker: &'a Arc<WorkerView>) -> Option<Found<'a>> {
        let offer = worker.offering.position(&self.model, &self.digest)?;
        Some(Found::new(worker, offer))
    }
}

/// A group of workers.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    kind: Arc<Kind>,
    /// Those that take work.
    serving: Roll<Candidate>,
    /// Those that offer the artifact and take no work.
    others: Roll,
    /// Those that are ready, all of them among `serving`; after a ranking the best first.
    top: Arc<Vec<Candidate>>,
    /// Those of each class that are ready, too.
    classes: Classes,
    /// When it was ranked; before that, when others were.
    ranked_ms: u64,
}

impl Group {
    pub(crate) fn new(kind: Kind, ranked_ms: u64) -> Self {
        Self {
            kind: Arc::new(kind),
            serving: Roll::default(),
            others: Roll::default(),
            top: Arc::default(),
            classes: Classes::default(),
            ranked_ms,
        }
    }

    pub(crate) fn kind(&self) -> &Arc<Kind> {
        &self.kind
    }

    pub(crate) fn serving(&self) -> &Roll<Candidate> {
        &self.serving
    }

    #[cfg(test)]
    pub(super) fn classes(&self) -> &Classes {
        &self.classes
    }

    #[cfg(test)]
    pub(crate) fn ready(&self) -> Vec<Candidate> {
        self.top.to_vec()
    }

    /// Those to look at for a request, each once, in no order: as many as are asked for, or all.
    /// Where all of these are doubted, the others that are ready, too. `class`: somebody of it is among
    /// them, where there is somebody. For a numerics class all that are ready are looked at: an answer
    /// seldom goes on elsewhere, and is only there the same.
    pub(crate) fn find<'a>(
        &'a self,
        look: Look,
        class: Class<'_>,
        rng: &mut impl Rng,
        found: &mut Vec<Found<'a>>,
    ) {
        let before = found.len();
        let most = match class {
            Class::Any => 0,
            Class::Accelerator(_) => look.all / 2,
            Class::Numerics(_) => READY,
        };
        if most > 0 {
            self.classes.find(class, most, rng, found);
        }
        let behind = found.len();
        let left = look.less((behind - before).min(look.all / 2));
        self.find_any(left, before, rng, found);
        let mut at = behind;
        while at < found.len() && behind > before {
            if found[at].is_among(&found[before..behind]) {
                found.swap_remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// The same of no class. Those that are drawn are none of those that were found, from `of_class`
    /// on.
    fn find_any<'a>(
        &'a self,
        look: Look,
        of_class: usize,
        rng: &mut impl Rng,
        found: &mut Vec<Found<'a>>,
    ) {
        let before = found.len();
        let others = self.serving.len().saturating_sub(self.top.len());
        let ready = look.all - look.drawn.min(others);
        let (best, rest) = self.top.split_at(self.top.len().min(look.best));
        found.extend(best.iter().map(Candidate::found));
        let turns = ready - best.len();
        let first = if rest.len() > turns {
            rng.random_range(0..rest.len())
        } else {
            0
        };
        let mut rest = rest.iter().cycle().skip(first).take(rest.len());
        found.extend(rest.by_ref().take(turns).map(Candidate::found));
        // Also in the place of those that were ready and left.
        let drawn = (look.all + before - found.len()).min(others);
        if drawn > 0 {
            let most = found.len() + drawn;
            let some = self.serving.iter_from(rng.random());
            add_new(some.map(Candidate::found), of_class, most, found);
        }
        let is_well = |it: &Found<'_>| !it.worker.is_suspect() && !it.worker.is_withdrawn();
        if !found[before..].iter().any(is_well) {
            add_new(rest.map(Candidate::found), of_class, usize::MAX, found);
        }
    }

    /// All of them.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn find_all<'a>(&'a self, found: &mut Vec<Found<'a>>) {
        let all = self.serving.iter();
        found.extend(all.map(Candidate::found));
    }

    /// One that offers the artifact, whether it takes work or not.
    pub(crate) fn any(&self) -> Option<&Arc<WorkerView>> {
        let serving = self.serving.iter().map(|it| &it.worker);
        serving.chain(self.others.iter()).next()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.serving.is_empty() && self.others.is_empty()
    }

    /// Adds a worker, or replaces the view of it.
    pub(crate) fn put(&mut self, worker: &Arc<WorkerView>, serves: bool) {
        let Some(found) = self.kind.found(worker).filter(|_| serves) else {
            self.withdraw(&worker.id);
            self.others.put(worker.clone());
            return;
        };
        self.others.remove(&worker.id);
        let old = self.serving.put(found.to_owned()).map(|it| it.worker);
        self.classes.put(old.as_ref(), found);
        match old {
            Some(old) => {
                if let Some(at) = self.place_in_top(&old) {
                    Arc::make_mut(&mut self.top)[at] = found.to_owned();
                }
            }
            None if self.top.len() < TOP => Arc::make_mut(&mut self.top).push(found.to_owned()),
            None => {}
        }
    }

    pub(crate) fn remove(&mut self, id: &NodeId) {
        self.others.remove(id);
        self.withdraw(id);
    }

    fn withdraw(&mut self, id: &NodeId) {
        let Some(Candidate { worker: gone, .. }) = self.serving.remove(id) else {
            return;
        };
        self.classes.remove(&gone);
        if let Some(at) = self.place_in_top(&gone) {
            Arc::make_mut(&mut self.top).remove(at);
        }
    }

    /// The views that are ready are those that serve, so that nothing of them need be read.
    fn place_in_top(&self, worker: &Arc<WorkerView>) -> Option<usize> {
        self.top
            .iter()
            .position(|it| Arc::ptr_eq(&it.worker, worker))
    }

    /// When it was ranked, where that makes a difference: of a few all are looked at.
    pub(crate) fn ranked_ms(&self) -> Option<u64> {
        (self.serving.len() > AWAY.all).then_some(self.ranked_ms)
    }

    /// Workers that are looked at to rank it.
    pub(crate) fn cost(&self) -> usize {
        self.serving.len().min(RANKED)
    }

    /// Chooses anew who is ready.
    pub(crate) fn rank(&mut self, merits: &Merits, now_ms: u64) {
        let (mut best, mut classes) = (Best::of(TOP), Ranking::default());
        let merit = |found: Found<'_>| merits.of(found.worker, found.offer());
        let some = self.serving.iter_from(merits.seed).take(RANKED);
        for found in some.map(Candidate::found) {
            let merit = merit(found);
            best.take(Rated { merit, found });
            classes.take(Rated { merit, found });
        }
        // Where not all were looked at, those of a rare class would be lost.
        if self.serving.len() > RANKED {
            for found in self.classes.iter() {
                if !classes.has(found.worker) {
                    let merit = merit(found);
                    classes.take(Rated { merit, found });
                }
            }
        }
        let (best, classes) = (best.into_candidates(), classes.into_classes());
        self.top = Arc::new(best);
        self.classes = classes;
        self.ranked_ms = now_ms;
    }
}

/// Adds those that are not among these yet, from `before` on, until there are so many.
fn add_new<'a>(
    some: impl Iterator<Item = Found<'a>>,
    before: usize,
    most: usize,
    found: &mut Vec<Found<'a>>,
) {
    for it in some {
        if found.len() >= most {
            return;
        }
        if !it.is_among(&found[before..]) {
            found.push(it);
        }
    }
}
