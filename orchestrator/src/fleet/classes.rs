//! The classes of a group's workers, and who of each is ready: those of a rare one would hardly be found
//! among many others by chance. A model is best given to one class of accelerator, and an answer goes on
//! bit for bit in one class of numerics.
//!
//! As long as all of a class fit its list they are all in it, since everybody who comes is entered. Of
//! more the best of those that are looked at when the group is ranked are in it.

use super::best::{Best, Rated};
use super::candidate::{Candidate, Found};
use super::worker::WorkerView;
use rand::Rng;
use std::sync::Arc;

/// Most classes of a group that are told apart, which strangers may make up. Workers of others are found
/// by chance alone.
pub(super) const MAX_CLASSES: usize = 16;
/// Workers of a class that are ready.
pub(super) const READY: usize = 32;

/// Of which class somebody is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class<'a> {
    /// Of any.
    #[default]
    Any,
    /// Of this class of accelerators, where they are as good.
    Accelerator(&'a str),
    /// Of this numerics class, before all others.
    Numerics(&'a str),
}

impl Class<'_> {
    pub(super) fn is_of(&self, found: &Found<'_>) -> bool {
        match self {
            Self::Any => true,
            Self::Accelerator(class) => found.worker.card().gpu_class == *class,
            Self::Numerics(class) => found.offer().numerics_class == *class,
        }
    }
}

/// Who is ready of each class: accelerator and numerics. No list is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes(Vec<Arc<Vec<Candidate>>>);

impl Classes {
    /// Some of those that are ready of a class, each once, in turns.
    pub(super) fn find<'a>(
        &'a self,
        class: Class<'_>,
        most: usize,
        rng: &mut impl Rng,
        found: &mut Vec<Found<'a>>,
    ) {
        let is_it = |ready: &&Arc<Vec<Candidate>>| {
            (ready.first()).is_some_and(|it| class.is_of(&it.found()))
        };
        let ready = self.0.iter().filter(is_it).flat_map(|it| it.iter());
        let count = ready.clone().count();
        if count > 0 {
            let turns = ready.cycle().skip(rng.random_range(0..count));
            found.extend(turns.take(count.min(most)).map(Candidate::found));
        }
    }

    /// Enters one that serves, in the place of its older view where there is one.
    pub(super) fn put(&mut self, old: Option<&Arc<WorkerView>>, new: Found<'_>) {
        if let Some((list, at)) = old.and_then(|old| self.place(old)) {
            if is_same(self.0[list][at].found(), new) {
                Arc::make_mut(&mut self.0[list])[at] = new.to_owned();
                return;
            }
            self.remove_at(list, at);
        }
        let is_its = |list: &Arc<Vec<Candidate>>| is_same(list[0].found(), new);
        match self.0.iter().position(is_its) {
            Some(at) if self.0[at].len() < READY => {
                Arc::make_mut(&mut self.0[at]).push(new.to_owned());
            }
            None if self.0.len() < MAX_CLASSES => self.0.push(Arc::new(vec![new.to_owned()])),
            _ => {}
        }
    }

    /// One that serves no more.
    pub(super) fn remove(&mut self, old: &Arc<WorkerView>) {
        if let Some((list, at)) = self.place(old) {
            self.remove_at(list, at);
        }
    }

    fn remove_at(&mut self, list: usize, at: usize) {
        if self.0[list].len() == 1 {
            self.0.remove(list);
        } else {
            Arc::make_mut(&mut self.0[list]).remove(at);
        }
    }

    fn place(&self, worker: &Arc<WorkerView>) -> Option<(usize, usize)> {
        let is_it = |it: &Candidate| Arc::ptr_eq(&it.worker, worker);
        let mut lists = self.0.iter().enumerate();
        lists.find_map(|(list, ready)| Some((list, ready.iter().position(is_it)?)))
    }

    /// All that are ready.
    pub(super) fn iter(&self) -> impl Iterator<Item = Found<'_>> {
        self.0
            .iter()
            .flat_map(|list| list.iter().map(Candidate::found))
    }
}

/// Classes while their group is ranked.
#[derive(Default)]
pub(super) struct Ranking<'a>(Vec<(Found<'a>, Best<'a>)>);

impl<'a> Ranking<'a> {
    pub(super) fn take(&mut self, rated: Rated<'a>) {
        let known = self
            .0
            .iter()
            .position(|(one, _)| is_same(*one, rated.found));
        let at = known.unwrap_or(self.0.len());
        if known.is_none() && at < MAX_CLASSES {
            self.0.push((rated.found, Best::of(READY)));
        }
        if let Some((_, best)) = self.0.get_mut(at) {
            best.take(rated);
        }
    }

    /// Whether a view is among the best of its class so far.
    pub(super) fn has(&self, worker: &Arc<WorkerView>) -> bool {
        self.0.iter().any(|(_, best)| best.has(worker))
    }

    pub(super) fn into_classes(self) -> Classes {
        let lists = self
            .0
            .into_iter()
            .map(|(_, best)| Arc::new(best.into_candidates()));
        Classes(lists.collect())
    }
}

/// Whether two are of one class. Most say the same, and share it.
fn is_same(one: Found<'_>, other: Found<'_>) -> bool {
    let (a, b) = (one.worker, other.worker);
    Arc::ptr_eq(&a.offering, &b.offering)
        || (a.card().gpu_class == b.card().gpu_class
            && one.offer().numerics_class == other.offer().numerics_class)
}

#[cfg(test)]
mod tests;
