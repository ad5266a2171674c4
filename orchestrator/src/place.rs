//! Which worker gets a request. Pure: candidates and randomness in, a ranked list out. (SCH-1)
//!
//! The candidates are what [`crate::fleet::Snapshot::candidates`] finds: some dozens, however large
//! the fleet is.

use crate::fleet::{Candidate, Found};
use crate::score::{Terms, Traits, Wanted, Weights, score, terms};
use rand::Rng;
use tether_wire::{NodeId, Region};

/// What is to be placed.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The region of the request.
    pub region: &'a Region,
    /// Workers that were tried already.
    pub tried: &'a [NodeId],
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
        .map(|found| rank(found, query.region, weights))
        .collect();
    scored.sort_unstable_by(|a, b| {
        (a.suspect.cmp(&b.suspect))
            .then(b.score.total_cmp(&a.score))
            .then_with(|| a.found.worker.id().cmp(&b.found.worker.id()))
    });
    draw_first(&mut scored, near_equal, rng);
    let best = scored.into_iter().take(RANKED);
    best.map(|it| Ranked {
        candidate: it.found.to_owned(),
        score: it.score,
        terms: it.terms,
        suspect: it.suspect,
    })
    .collect()
}

fn rank<'a>(found: Found<'a>, region: &Region, weights: &Weights) -> Scored<'a> {
    let (worker, card, offer) = (found.worker, found.worker.card(), found.offer());
    let wanted = Wanted {
        region,
        // Those of another artifact are no candidates.
        digest: None,
        gpu_class: None,
    };
    let terms = terms(
        &wanted,
        &Traits {
            region: worker.region(),
            digest: offer.digest,
            gpu_class: &card.gpu_class,
            load: worker.load(),
            capacity: card.capacity,
            warm: offer.warm,
            tier: worker.tier,
            price_per_1k_micro: card.price_per_1k_micro,
            first_token_ms: worker.first_token_ms(),
        },
    );
    Scored {
        found,
        score: score(&terms, weights),
        terms,
        suspect: worker.is_suspect(),
    }
}

/// Moves the drawn one to the front; the rest keeps its order.
fn draw_first(ranked: &mut [Scored<'_>], near_equal: f32, rng: &mut impl Rng) {
    let Some(best) = ranked.first() else { return };
    let (floor, suspect) = (best.score - near_equal, best.suspect);
    let equals = ranked
        .iter()
        .take_while(|r| r.suspect == suspect && r.score >= floor)
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
