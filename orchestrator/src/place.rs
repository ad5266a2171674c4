//! Which worker gets a request. Pure: candidates and randomness in, a ranked list out. (SCH-1, SCH-2)
//!
//! The candidates are what [`crate::fleet::Snapshot::candidates`] finds: some dozens, however large
//! the fleet is. Nothing is allocated for each of them.
//!
//! Orchestrators do not agree on a worker, and what they know of others' requests is as old as the last
//! heartbeats. Two things keep them from all going to the same one: what each has given itself counts
//! at once, and among those nearly as good as the best one is drawn.
//!
//! Who was sent a prompt's beginning before is preferred for it, but only as long as its load is within
//! a bound on the mean: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016),
//! by what was sent where instead of by a hash. So a beginning that everybody uses spreads over as many
//! workers as it needs, and no worker becomes a hotspot for being warm.

use crate::fleet::{Candidate, Found};
use crate::placement::Placement;
use crate::score::{self, Terms, Wanted, Weights};
use crate::warmth::Warm;
use rand::Rng;
use std::fmt;
use tether_wire::{NodeId, Region};

/// What is to be placed.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The region of the request.
    pub region: &'a Region,
    /// The class of accelerator that its model is best given to.
    pub gpu_class: Option<&'a str>,
    /// Workers that were tried already.
    pub tried: &'a [NodeId],
    /// The class in which an answer is to go on: those of another come after all of it, since theirs
    /// is not provably the answer that would have come.
    pub numerics_class: Option<&'a str>,
    /// Where the beginning of its prompt was sent.
    pub warm: &'a Warm,
}

/// A candidate with the reasons for its rank.
#[derive(Clone, Debug)]
pub struct Ranked {
    /// The worker and its offer.
    pub candidate: Candidate,
    /// Weighted mean of the terms.
    pub score: f32,
    /// The terms.
    pub terms: Terms,
    /// Requests that run or wait there.
    pub load: u32,
    /// Blocks of the prompt's beginning that it was sent before.
    pub prefix_blocks: u32,
    /// Whether it has too much to do for that to count.
    pub over_bound: bool,
    /// Whether it may be dead, so that all others come first.
    pub suspect: bool,
    /// Whether it is of another numerics class than the answer.
    pub other_class: bool,
}

/// How the first of those that are ranked became the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Candidates.
    pub looked_at: usize,
    /// Those as good as the best, among which it was drawn.
    pub equals: usize,
}

/// Candidates in their order.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// The best, of which the first is to have the request.
    pub ranked: Vec<Ranked>,
    /// How that one was chosen.
    pub choice: Choice,
}

impl Placed {
    /// Who is to have the request.
    #[must_use]
    pub fn best(&self) -> Option<&Ranked> {
        self.ranked.first()
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.looked_at, self.equals) {
            (0, _) => f.write_str("nobody could be asked"),
            (1, _) => f.write_str("the only one that could be asked"),
            (of, 0 | 1) => write!(f, "the best of {of}"),
            (of, equals) => write!(
                f,
                "the less loaded of two that were drawn among {equals} as good as the best of {of}"
            ),
        }
    }
}

/// A candidate, lent, with its rank.
struct Scored<'a> {
    found: Found<'a>,
    /// Less is better.
    order: u64,
    score: f32,
    terms: Terms,
    load: u32,
    prefix_blocks: u32,
    over_bound: bool,
    suspect: bool,
    other_class: bool,
}

/// How many of the best are given back: more than a request is ever given to, and enough to see why
/// others were not chosen.
pub const RANKED: usize = 16;

/// Ranks the candidates, best first, and gives back the best. The first is drawn among those nearly
/// as good as the best, by two choices: two at random, the less loaded of them. Suspects come after
/// all others.
#[must_use]
pub fn place<'a>(
    candidates: impl IntoIterator<Item = Found<'a>>,
    query: &Query<'_>,
    placement: &Placement,
    rng: &mut impl Rng,
) -> Placed {
    let candidates = candidates.into_iter();
    let mut scored: Vec<Scored<'a>> = Vec::with_capacity(candidates.size_hint().1.unwrap_or(0));
    let mut bound = Bound::new(placement.prefix_load);
    for found in candidates.filter(|found| !query.tried.contains(&found.worker.id())) {
        let one = look(found, query, &placement.weights);
        if !one.suspect {
            bound.count(one.load, found.worker.card().capacity);
        }
        scored.push(one);
    }
    for one in scored.iter_mut().filter(|one| one.prefix_blocks > 0) {
        let capacity = one.found.worker.card().capacity;
        one.over_bound = !bound.has_room(one.load, capacity);
        if !one.over_bound {
            one.terms.prefix = score::prefix(one.prefix_blocks);
            one.rate(&placement.weights);
        }
    }
    scored.sort_unstable_by(|a, b| {
        let ids = || a.found.worker.id().cmp(&b.found.worker.id());
        a.order.cmp(&b.order).then_with(ids)
    });
    let choice = Choice {
        looked_at: scored.len(),
        equals: draw_first(&mut scored, placement.near_equal, rng),
    };
    let best = scored.into_iter().take(RANKED);
    let ranked = best.map(Scored::into_ranked).collect();
    Placed { ranked, choice }
}

fn look<'a>(found: Found<'a>, query: &Query<'_>, weights: &Weights) -> Scored<'a> {
    let wanted = Wanted {
        region: query.region,
        // Those of another artifact are no candidates.
        digest: None,
        gpu_class: query.gpu_class,
    };
    let (worker, offer) = (found.worker, found.offer());
    let traits = worker.traits(offer);
    let mut scored = Scored {
        found,
        order: 0,
        score: 0.0,
        terms: score::terms(&wanted, &traits),
        load: traits.load,
        prefix_blocks: query.warm.at(&worker.id, worker.epoch()),
        over_bound: false,
        suspect: worker.is_suspect(),
        other_class: (query.numerics_class).is_some_and(|class| class != offer.numerics_class),
    };
    scored.rate(weights);
    scored
}

impl Scored<'_> {
    fn rate(&mut self, weights: &Weights) {
        self.score = score::score(&self.terms, weights);
        // The bits of numbers that are not negative are in the order of the numbers.
        self.order = (self.kind() << 32) | u64::from(u32::MAX - self.score.max(0.0).to_bits());
    }

    /// Those of a lower kind come first, whatever their score.
    fn kind(&self) -> u64 {
        2 * u64::from(self.suspect) + u64::from(self.other_class)
    }

    fn into_ranked(self) -> Ranked {
        Ranked {
            candidate: self.found.to_owned(),
            score: self.score,
            terms: self.terms,
            load: self.load,
            prefix_blocks: self.prefix_blocks,
            over_bound: self.over_bound,
            suspect: self.suspect,
            other_class: self.other_class,
        }
    }
}

/// Up to which load a worker has the prefixes that were sent to it: so many times the mean load of a
/// slot, the request counted, and whole requests. Who has less than the mean is always within it.
#[derive(Clone, Copy, Debug)]
struct Bound {
    most: f32,
    load: u64,
    slots: u64,
}

impl Bound {
    fn new(most: f32) -> Self {
        Self {
            most,
            load: 1,
            slots: 0,
        }
    }

    fn count(&mut self, load: u32, capacity: u32) {
        self.load += u64::from(load);
        self.slots += u64::from(capacity.max(1));
    }

    fn has_room(&self, load: u32, capacity: u32) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a bound on a mean needs no more than seven digits"
        )]
        let (all, slots, own, load) = (
            self.load as f32,
            self.slots.max(1) as f32,
            capacity.max(1) as f32,
            load as f32,
        );
        load + 1.0 <= (self.most * all / slots * own).ceil()
    }
}

/// Moves the drawn one to the front; the rest keeps its order. Says among how many it was drawn.
fn draw_first(ranked: &mut [Scored<'_>], near_equal: f32, rng: &mut impl Rng) -> usize {
    let Some(best) = ranked.first() else { return 0 };
    let (floor, kind) = (best.score - near_equal, best.kind());
    let equals = ranked
        .iter()
        .take_while(|it| it.kind() == kind && it.score >= floor)
        .count();
    if equals < 2 {
        return equals;
    }
    let one = rng.random_range(0..equals);
    let other = (one + rng.random_range(1..equals)) % equals;
    let queue = |at: usize| ranked[at].terms.queue;
    let chosen = if queue(other) > queue(one) {
        other
    } else {
        one
    };
    ranked[..=chosen].rotate_right(1);
    equals
}

#[cfg(test)]
#[path = "place/tests.rs"]
mod tests;
