//! Which worker gets a request. Pure: candidates and randomness in, a ranked list out. (SCH-1)
//!
//! The candidates are what [`crate::fleet::Snapshot::candidates`] finds: some dozens, however large
//! the fleet is.

use crate::fleet::{Candidate, Found};
use crate::score::{Terms, Wanted, Weights, score, terms};
use rand::Rng;
use tether_wire::{NodeId, Region};

/// What is to be placed.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The region of the request.
    pub region: &'a Region,
    /// Workers that were tried already.
    pub tried: &'a [NodeId],
    /// The class in which an answer is to go on: those of another come after all of it, since theirs
    /// is not provably the answer that would have come.
    pub numerics_class: Option<&'a str>,
    /// Who makes the answer still, for an orchestrator that is lost: it has not to make it anew, and so
    /// comes first, however busy it is.
    pub left_at: Option<NodeId>,
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
    /// Whether it may be dead, so that all others come first.
    pub suspect: bool,
}

/// A candidate, lent, with its rank.
struct Scored<'a> {
    found: Found<'a>,
    score: f32,
    terms: Terms,
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
    weights: &Weights,
    near_equal: f32,
    rng: &mut impl Rng,
) -> Vec<Ranked> {
    let mut scored: Vec<Scored<'a>> = (candidates.into_iter())
        .filter(|found| !query.tried.contains(&found.worker.id()))
        .map(|found| rank(found, query, weights))
        .collect();
    scored.sort_unstable_by(|a, b| {
        (a.suspect.cmp(&b.suspect))
            .then(a.other_class.cmp(&b.other_class))
            .then(b.score.total_cmp(&a.score))
            .then_with(|| a.found.worker.id().cmp(&b.found.worker.id()))
    });
    draw_first(&mut scored, near_equal, rng);
    let left_at = |it: &Scored<'_>| Some(it.found.worker.id()) == query.left_at && !it.suspect;
    if let Some(at) = scored.iter().position(left_at) {
        scored[..=at].rotate_right(1);
    }
    let best = scored.into_iter().take(RANKED);
    best.map(|it| Ranked {
        candidate: it.found.to_owned(),
        score: it.score,
        terms: it.terms,
        suspect: it.suspect,
    })
    .collect()
}

fn rank<'a>(found: Found<'a>, query: &Query<'_>, weights: &Weights) -> Scored<'a> {
    let wanted = Wanted {
        region: query.region,
        // Those of another artifact are no candidates.
        digest: None,
        gpu_class: None,
    };
    let terms = terms(&wanted, &found.worker.traits(found.offer()));
    Scored {
        found,
        score: score(&terms, weights),
        terms,
        suspect: found.worker.is_suspect(),
        other_class: (query.numerics_class)
            .is_some_and(|class| class != found.offer().numerics_class),
    }
}

/// Moves the drawn one to the front; the rest keeps its order.
fn draw_first(ranked: &mut [Scored<'_>], near_equal: f32, rng: &mut impl Rng) {
    let Some(best) = ranked.first() else { return };
    let floor = best.score - near_equal;
    let kind = (best.suspect, best.other_class);
    let equals = ranked
        .iter()
        .take_while(|r| (r.suspect, r.other_class) == kind && r.score >= floor)
        .count();
    if equals < 2 {
        return;
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
}

#[cfg(test)]
#[path = "place/tests.rs"]
mod tests;
