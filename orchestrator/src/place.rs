//! Which worker gets a request. Pure: candidates and randomness in, a ranked list out. (SCH-1)

use crate::fleet::Candidate;
use crate::score::{Terms, Traits, Wanted, Weights, score, terms};
use rand::Rng;
use tether_wire::{Digest, ModelRef, NodeId, Region};

/// What is to be placed.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The model, resolved.
    pub model: &'a ModelRef,
    /// The artifact that the name is bound to; others of the same name are no candidates.
    pub digest: Option<Digest>,
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

/// Ranks the candidates, best first. The first is drawn among those nearly as good as the best,
/// by two choices: two at random, the less loaded of them. Suspects come after all others.
#[must_use]
pub fn place<'a>(
    candidates: impl IntoIterator<Item = &'a Candidate>,
    query: &Query<'_>,
    weights: &Weights,
    near_equal: f32,
    rng: &mut impl Rng,
) -> Vec<Ranked> {
    let wanted = Wanted {
        region: query.region,
        digest: query.digest,
        gpu_class: None,
    };
    let mut ranked: Vec<Ranked> = candidates
        .into_iter()
        .filter(|candidate| !query.tried.contains(&candidate.worker.id()))
        .filter(|candidate| {
            query
                .digest
                .is_none_or(|digest| digest == candidate.offer().digest)
        })
        .map(|candidate| rank(candidate, &wanted, weights))
        .collect();
    ranked.sort_by(|a, b| {
        (a.suspect.cmp(&b.suspect))
            .then(b.score.total_cmp(&a.score))
            .then_with(|| a.candidate.worker.id().cmp(&b.candidate.worker.id()))
    });
    draw_first(&mut ranked, near_equal, rng);
    ranked
}

fn rank(candidate: &Candidate, wanted: &Wanted<'_>, weights: &Weights) -> Ranked {
    let (worker, beat, offer) = (&candidate.worker, &candidate.worker.beat, candidate.offer());
    let terms = terms(
        wanted,
        &Traits {
            region: &beat.region,
            digest: offer.digest,
            gpu_class: &beat.gpu_class,
            load: worker.load(),
            capacity: beat.capacity,
            warm: offer.warm,
            tier: worker.tier,
            price_per_1k_micro: beat.price_per_1k_micro,
            first_token_ms: beat.first_token_ms,
        },
    );
    Ranked {
        candidate: candidate.clone(),
        score: score(&terms, weights),
        terms,
        suspect: worker.suspect,
    }
}

/// Moves the drawn one to the front; the rest keeps its order.
fn draw_first(ranked: &mut [Ranked], near_equal: f32, rng: &mut impl Rng) {
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
