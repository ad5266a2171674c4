//! Turns that no worker counts yet, by where their requests may go. Pure.

use super::Within;
use std::collections::{BTreeSet, HashMap};
use tether_wire::{ModelRef, Region};

/// Turns of each model.
#[derive(Debug, Default)]
pub(super) struct Turns(HashMap<ModelRef, Vec<Bound>>);

/// Turns of requests that may go to the same regions.
#[derive(Debug)]
struct Bound {
    regions: Option<BTreeSet<Region>>,
    turns: u32,
}

impl Turns {
    pub(super) fn add(&mut self, model: &ModelRef, within: Within<'_>) {
        let all = self.0.entry(model.clone()).or_default();
        match all.iter_mut().find(|it| it.regions.as_ref() == within) {
            Some(it) => it.turns += 1,
            None => all.push(Bound {
                regions: within.cloned(),
                turns: 1,
            }),
        }
    }

    pub(super) fn remove(&mut self, model: &ModelRef, within: Within<'_>) {
        let Some(all) = self.0.get_mut(model) else {
            return;
        };
        if let Some(it) = all.iter_mut().find(|it| it.regions.as_ref() == within) {
            it.turns -= 1;
        }
        all.retain(|it| it.turns > 0);
        if all.is_empty() {
            self.0.remove(model);
        }
    }

    /// All of a model.
    pub(super) fn of(&self, model: &ModelRef) -> u32 {
        self.sum(model, |_| true)
    }

    /// Those of a model that may take a place in these regions, so many of whose workers' places are
    /// free outside of them: whoever may go anywhere is counted here only where it finds none there.
    pub(super) fn within(
        &self,
        model: &ModelRef,
        within: Within<'_>,
        elsewhere: impl FnOnce() -> u32,
    ) -> u32 {
        let Some(regions) = within else {
            return self.of(model);
        };
        let is_bound_here = |it: &Within<'_>| it.is_some_and(|bound| !bound.is_disjoint(regions));
        let bound = self.sum(model, |it| is_bound_here(&it));
        let unbound = self.sum(model, |it| it.is_none());
        let more = if unbound > 0 {
            unbound.saturating_sub(elsewhere())
        } else {
            0
        };
        bound + more
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sum(&self, model: &ModelRef, which: impl Fn(Within<'_>) -> bool) -> u32 {
        let all = self.0.get(model).into_iter().flatten();
        let counted = all.filter(|it| which(it.regions.as_ref()));
        counted.map(|it| it.turns).sum()
    }
}
