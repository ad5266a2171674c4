//! Which worker gets a request. Pure: candidates and randomness in, a ranked list out. (SCH-1, SCH-2)
//!
//! The candidates are what [`crate::fleet::Snapshot::candidates`] finds: some dozens, however large
//! the fleet is. Nothing is allocated for each of them.
//!
//! Orchestrators do not agree on a worker, and what they know of others' requests is as old as the last
//! heartbeats. Three things keep them from all going to the same one: what each has given itself counts
//! at once; what a worker said is believed the less the older it is, and the mean of all instead; and
//! among those nearly as good as the best one is drawn. (Mitzenmacher, How useful is old information?,
//! 2000)
//!
//! Who was sent a prompt's beginning before is preferred for it, but only as long as its load is within
//! a bound on the mean: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2016),
//! by what was sent where instead of by a hash. So a beginning that everybody uses spreads over as many
//! workers as it needs, and no worker becomes a hotspot for being warm.

use crate::fleet::{Candidate, Class, Found};
use crate::placement::Placement;
use crate::score::{self, Terms, Wanted, Weights};
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
    /// The class in which an answer is to go on: those of another come after all of it, since theirs
    /// is not provably the answer that would have come.
    pub numerics_class: Option<&'a str>,
    /// Orchestrators that place requests, this one among them.
    pub orchestrators: u32,
    /// Now, on the clock that only goes forward.
    pub now_mono_ms: u64,
    /// Who makes the answer still, for an orchestrator that is lost: it has not to make it anew, and so
    /// comes first, however busy it is.
    pub left_at: Option<NodeId>,
}

impl<'a> Query<'a> {
    /// Of which class somebody is to be among the candidates. An answer that goes on is to stay the same
    /// before all else.
    #[must_use]
    pub fn class(&self) -> Class<'a> {
        match (self.numerics_class, self.gpu_class) {
            (Some(class), _) => Class::Numerics(class),
            (None, Some(class)) => Class::Accelerator(class),
            (None, None) => Class::Any,
        }
    }
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
    /// Requests that run or wait there, by the best knowledge.
    pub load: f32,
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
    /// Workers that were no candidates, since a breaker leaves them alone.
    pub left_alone: Vec<NodeId>,
    /// Whether others try some of those now, which may be well in a moment.
    pub is_tried: bool,
    /// How much each term counted.
    pub weights: Weights,
}

impl Placed {
    /// Who is to have the request.
    #[must_use]
    pub fn best(&self) -> Option<&Ranked> {
        self.ranked.first()
    }

    /// The first ones cannot have it: breakers let nothing more through to them.
    pub(crate) fn pass_over(&mut self, first: usize) {
        if first == 0 {
            return;
        }
        let passed = self.ranked.drain(..first);
        self.left_alone
            .extend(passed.map(|it| it.candidate.worker.id()));
        self.choice = Choice {
            looked_at: self.choice.looked_at.saturating_sub(first),
            equals: 1,
        };
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
    slots: f32,
    score: f32,
    terms: Terms,
    load: f32,
    prefix_blocks: u32,
    over_bound: bool,
    suspect: bool,
    other_class: bool,
}

/// Age of a beat at which what it says of others' requests is believed by a third, and their mean by
/// two thirds. Answers take some seconds, so that a load of five seconds ago says little of that of
/// now, and what all orchestrators heard at once all of them act upon.
const BELIEVED_MS: f32 = 1_000.0;

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
    let mut said = Loads::default();
    for found in candidates {
        let one = look(found, query);
        if !one.suspect {
            said.count(precise(found.worker.others()), one.slots);
        }
        scored.push(one);
    }
    let mut loads = Loads::default();
    for one in &mut scored {
        one.load = one.load(said.mean(), query.now_mono_ms);
        if !one.suspect {
            loads.count(one.load, one.slots);
        }
    }
    for one in &mut scored {
        one.weigh(query, placement, &loads);
    }
    let mut order: Vec<Place> = scored.iter().zip(0..).map(Place::of).collect();
    order.sort_unstable();
    let choice = Choice {
        looked_at: scored.len(),
        equals: draw_first(&scored, &mut order, placement, rng),
    };
    let left_at = |it: &Scored<'_>| Some(it.found.worker.id()) == query.left_at && !it.suspect;
    if query.left_at.is_some()
        && let Some(at) = order.iter().position(|it| left_at(it.among(&scored)))
    {
        order[..=at].rotate_right(1);
    }
    let best = order.iter().take(RANKED).map(|it| it.among(&scored));
    let ranked = best.map(Scored::to_ranked).collect();
    Placed {
        ranked,
        choice,
        left_alone: Vec::new(),
        is_tried: false,
        weights: placement.weights,
    }
}

fn look<'a>(found: Found<'a>, query: &Query<'_>) -> Scored<'a> {
    let (worker, offer) = (found.worker, found.offer());
    Scored {
        found,
        slots: precise(worker.card().capacity.max(1)),
        score: 0.0,
        terms: Terms::default(),
        load: 0.0,
        prefix_blocks: found.prefix_blocks,
        over_bound: false,
        suspect: worker.is_suspect(),
        other_class: (query.numerics_class).is_some_and(|class| class != offer.numerics_class),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a score needs no more than seven digits"
)]
fn precise(count: u32) -> f32 {
    count as f32
}

impl Scored<'_> {
    /// What it has to do by the best knowledge: ours exactly, and of others what it said, as far as that
    /// is believed, and otherwise the mean of a slot.
    fn load(&self, mean: f32, now_mono_ms: u64) -> f32 {
        let worker = self.found.worker;
        let age_ms = now_mono_ms.saturating_sub(worker.heard_mono_ms());
        let age_ms = precise(u32::try_from(age_ms).unwrap_or(u32::MAX));
        let believed = (-age_ms / BELIEVED_MS).exp();
        let usual = mean * self.slots;
        precise(worker.in_flight()) + usual + (precise(worker.others()) - usual) * believed
    }

    fn weigh(&mut self, query: &Query<'_>, placement: &Placement, loads: &Loads) {
        let wanted = Wanted {
            region: query.region,
            // Those of another artifact are no candidates.
            digest: None,
            gpu_class: query.gpu_class,
        };
        let traits = (self.found.worker).traits(self.found.offer(), self.load);
        self.terms = score::terms(&wanted, &traits);
        if self.prefix_blocks > 0 {
            // Each orchestrator may add to the mean its part of what may be added.
            let more = (placement.prefix_load - 1.0) / precise(query.orchestrators.max(1));
            let most = loads.bound(1.0 + more, self.slots);
            self.over_bound = self.load + 1.0 > most;
            if !self.over_bound {
                self.terms.prefix = score::prefix(self.prefix_blocks);
            }
        }
        self.score = score::score(&self.terms, &placement.weights);
    }

    /// Whether a slot is free, by whole requests.
    fn is_free(&self) -> bool {
        self.load + 0.5 < self.slots
    }

    /// Whether it was sent the prompt's beginning, and has not too much to do for that to count.
    fn is_warm(&self) -> bool {
        self.prefix_blocks > 0 && !self.over_bound
    }

    /// Those of a lower kind come first, whatever their score.
    fn kind(&self) -> u8 {
        2 * u8::from(self.suspect) + u8::from(self.other_class)
    }

    fn to_ranked(&self) -> Ranked {
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

/// What several workers have to do together.
#[derive(Clone, Copy, Debug, Default)]
struct Loads {
    all: f32,
    slots: f32,
}

impl Loads {
    fn count(&mut self, load: f32, slots: f32) {
        self.all += load;
        self.slots += slots;
    }

    /// Of a slot.
    fn mean(&self) -> f32 {
        self.all / self.slots.max(1.0)
    }

    /// Up to which load a worker has the prefixes that were sent to it: so many times the mean load of
    /// a slot, the request counted, and whole requests. Who has less than the mean is within it.
    fn bound(&self, most: f32, slots: f32) -> f32 {
        (most * (self.all + 1.0) / self.slots.max(1.0) * slots).ceil()
    }
}

/// The place of a candidate among all, and where its record lies, which need not be moved.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    kind: u8,
    /// Less is better: the bits of numbers that are not negative are in the order of the numbers.
    worse: u32,
    at: u32,
}

impl Place {
    fn of((it, at): (&Scored<'_>, u32)) -> Self {
        Self {
            kind: it.kind(),
            worse: u32::MAX - it.score.max(0.0).to_bits(),
            at,
        }
    }

    fn among<'s, 'a>(self, scored: &'s [Scored<'a>]) -> &'s Scored<'a> {
        &scored[self.at as usize]
    }
}

/// Moves some to the front, which keep their order as the others do. Says how many they are.
fn front(order: &mut [Place], is_one: impl Fn(&Place) -> bool) -> usize {
    order.sort_by_key(|it| !is_one(it));
    order.partition_point(is_one)
}

/// Moves the drawn one to the front; the rest keeps its order. Says among how many it was drawn.
fn draw_first(
    scored: &[Scored<'_>],
    order: &mut [Place],
    placement: &Placement,
    rng: &mut impl Rng,
) -> usize {
    let Some(best) = order.first().map(|it| it.among(scored)) else {
        return 0;
    };
    let (floor, kind) = (best.score - placement.near_equal, best.kind());
    let is_equal = |it: &Scored<'_>| it.kind() == kind && it.score >= floor;
    let mut equals = order.partition_point(|it| is_equal(it.among(scored)));
    // Nobody waits behind another one's answer where somebody as good is free.
    let free = front(&mut order[..equals], |it| it.among(scored).is_free());
    equals = if free > 0 { free } else { equals };
    // Where a short beginning is warm scores hardly more than elsewhere: among as good ones it decides.
    // They are within the bound, so that nobody becomes a hotspot by that either.
    if placement.weights.prefix > 0.0 {
        let warm = front(&mut order[..equals], |it| it.among(scored).is_warm());
        equals = if warm > 0 { warm } else { equals };
    }
    if equals < 2 {
        return equals;
    }
    let one = rng.random_range(0..equals);
    let other = (one + rng.random_range(1..equals)) % equals;
    let queue = |at: usize| order[at].among(scored).terms.queue;
    let chosen = if queue(other) > queue(one) {
        other
    } else {
        one
    };
    order[..=chosen].rotate_right(1);
    equals
}

#[cfg(test)]
#[path = "place/tests.rs"]
mod tests;
