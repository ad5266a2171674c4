//! Everything that is known of one node, for `tether fleet explain`. (FLT-3)

mod find;

pub(super) use find::{Answer, find, unknown};
pub use find::{MAX_NAMED, Prefix};

use super::rows::{FleetRow, Sight};
use crate::fleet::{Class, Found, Refusal, WorkerView};
use crate::place::{Query, Ranked, place};
use crate::placement::Placement;
use crate::score::Terms;
use crate::warmth::Warm;
use find::Known;
use rand::Rng;
use serde::Serialize;
use std::sync::Arc;
use tether_presence::Standing;
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::{Beat, Card, Digest, MeshId, NodeId, Region, Role, Signed, Tier};

/// What is known of one node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// Its key.
    pub id: NodeId,
    /// `live`; `unproven`: heard of, in what proves no life here and now; `departed`, `expired`,
    /// `revoked` or `ungranted`: gone.
    pub standing: &'static str,
    /// Milliseconds since it was last heard, or went.
    pub age_ms: u64,
    /// Its role, by its card.
    pub role: Option<Role>,
    /// What it says that it does.
    pub state: &'static str,
    /// Unix milliseconds since which it says so, as heard here.
    pub state_since_ms: u64,
    /// Its row in the fleet, where it is a worker there.
    pub row: Option<FleetRow>,
    /// Why it is chosen last, where it is.
    pub suspect: Option<Suspect>,
    /// Its last beat.
    pub beat: LastBeat,
    /// How this orchestrator reaches it.
    pub link: Link,
    /// Milliseconds since a second process of its key was heard.
    pub clone_seen_ms_ago: Option<u64>,
    /// What of it was refused last.
    pub refused: Option<Refused>,
    /// How far it is believed, by its grant.
    pub tier: Option<Tier>,
    /// Unix milliseconds at which its grant ends; null without one.
    pub granted_until_ms: Option<u64>,
    /// What it says of itself; null while its card has not come, and once it is gone.
    pub card: Option<CardView>,
    /// What it has to do.
    pub load: Option<LoadView>,
    /// What would become of a request for each of its models.
    pub models: Vec<ModelView>,
}

/// Why a node is chosen last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suspect {
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// Why.
    pub why: &'static str,
}

/// What of a node was refused last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// As in the metrics.
    pub reason: &'static str,
    /// What that means.
    pub means: &'static str,
    /// When, in milliseconds ago.
    pub ms_ago: u64,
    /// How many times in a row.
    pub count: u64,
}

impl Refused {
    pub(super) fn of(refusal: &Refusal, now_mono_ms: u64) -> Self {
        Self {
            reason: refusal.reason.as_str(),
            means: refusal.means(),
            ms_ago: now_mono_ms.saturating_sub(refusal.mono_ms),
            count: refusal.count,
        }
    }
}

/// The last beat of a node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastBeat {
    /// The run of its process.
    pub epoch: u64,
    /// Unix milliseconds at which that run was first heard here.
    pub epoch_since_ms: u64,
    /// The beat within the run.
    pub seq: u64,
    /// Unix milliseconds at which it was made, by the node's clock.
    pub issued_ms: u64,
    /// By how many milliseconds the node's clock is ahead of this machine's, as far as is known.
    pub clock_ahead_ms: i32,
}

/// How an orchestrator reaches a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// `direct`, `relayed` (over a relay), `quiet`, or `none`: it is heard through others.
    pub state: &'static str,
    /// The orchestrators that tell this one of others' nodes.
    pub peers: Vec<NodeId>,
    /// For how many milliseconds it is not dialled; 0 is it may be.
    pub redial_in_ms: u64,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CardView {
    /// Digest of its sealed bytes.
    pub digest: Digest,
    /// Grows with each card of a run.
    pub revision: u64,
    /// Unix milliseconds at which it was made.
    pub issued_ms: u64,
    /// Where it stands.
    pub region: Region,
    /// Its software.
    pub agent: String,
    /// Minor version of its protocol.
    pub protocol_minor: u16,
    /// Where it can be dialled.
    pub addresses: Vec<String>,
    /// What it has to offer, where it is a worker.
    pub worker: Option<WorkerCard>,
}

/// What a worker has to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LoadView {
    /// Requests that this orchestrator has running there.
    pub ours: u32,
    /// Requests that it said that it runs.
    pub in_flight: u32,
    /// Requests that it said wait there.
    pub queue_depth: u32,
    /// What placement takes for its load.
    pub counted: u32,
    /// Requests that it runs at once.
    pub slots: u32,
    /// Tokens in a second that it made of late.
    pub tokens_per_s: f32,
    /// Milliseconds to the first token that it saw of late; 0 is unknown.
    pub first_token_ms: u32,
}

/// What would become of a request for a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelView {
    /// Name and version.
    pub model: String,
    /// The artifact.
    pub digest: Digest,
    /// Whether it is loaded.
    pub warm: bool,
    /// Why the worker would not be asked; null when it would be a candidate.
    pub why_not: Option<String>,
    /// Its place among those that are looked at, from 1; workers of equal score share one.
    pub rank: Option<usize>,
    /// How many are looked at, with it.
    pub of: usize,
    /// Its score.
    pub score: Option<f32>,
    /// What the score is made of, before weighting.
    pub terms: Option<Terms>,
    /// The one that is as good as any.
    pub best: Option<Best>,
}

/// The best candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Best {
    /// Which worker.
    pub worker: NodeId,
    /// Its score.
    pub score: f32,
    /// What it is made of.
    pub terms: Terms,
    /// Whether it may be dead as well.
    pub suspect: bool,
}

/// What an explanation is made of, beside what presence knows.
pub(super) struct Explaining<'a> {
    pub(super) sight: Sight<'a>,
    pub(super) mesh: MeshId,
    /// Of the requests that are placed.
    pub(super) region: &'a Region,
    pub(super) placement: &'a Placement,
    /// How the link with the node stands.
    pub(super) link: &'static str,
    /// What of it was refused last.
    pub(super) refused: Option<Refused>,
}

impl Explaining<'_> {
    /// Everything that is known.
    pub(super) fn explain(self, known: Known, rng: &mut impl Rng) -> Explained {
        let worker = self.sight.fleet.worker(&known.id);
        let beat = Signed::<Beat>::from_bytes(known.sealed_beat).verify(&self.mesh);
        let card = known.sealed_card.map(Signed::<Card>::from_bytes);
        let card = card.and_then(|card| card.verify(&self.mesh).ok());
        let now = self.sight.now_mono_ms;
        Explained {
            id: known.id,
            standing: match known.standing {
                Standing::Live => "live",
                Standing::Unproven => "unproven",
                Standing::Gone(how) => how.as_str(),
            },
            age_ms: known.age_ms,
            role: known.role,
            state: known.state,
            state_since_ms: known.state_since_ms,
            row: worker.map(|it| self.sight.one(it)),
            suspect: known.suspect,
            beat: known.beat,
            link: Link {
                state: self.link,
                peers: known.peers,
                redial_in_ms: worker.map_or(0, |it| it.redial_mono_ms().saturating_sub(now)),
            },
            clone_seen_ms_ago: known.clone_seen_ms_ago,
            tier: known.tier,
            granted_until_ms: known.granted_until_ms,
            card: card.map(|card| CardView {
                digest: known.card_digest,
                revision: card.revision,
                issued_ms: card.issued_ms,
                region: card.region.clone(),
                agent: card.agent.clone(),
                protocol_minor: card.minor,
                addresses: card.addresses.clone(),
                worker: card.worker.clone(),
            }),
            load: worker.zip(beat.ok()).map(|(worker, beat)| LoadView {
                ours: worker.in_flight(),
                in_flight: beat.in_flight,
                queue_depth: worker.queue_depth(),
                counted: worker.load(),
                slots: worker.card().capacity,
                tokens_per_s: beat.tokens_per_s,
                first_token_ms: worker.first_token_ms(),
            }),
            models: worker.map_or_else(Vec::new, |it| self.models(it, rng)),
            refused: self.refused,
        }
    }

    fn models(&self, worker: &Arc<WorkerView>, rng: &mut impl Rng) -> Vec<ModelView> {
        (worker.card().models.iter().enumerate())
            .map(|(at, offer)| self.model(worker, at, offer, rng))
            .collect()
    }

    fn model(
        &self,
        worker: &Arc<WorkerView>,
        at: usize,
        offer: &ModelOffer,
        rng: &mut impl Rng,
    ) -> ModelView {
        let sight = &self.sight;
        let may_be_asked =
            |it: &WorkerView| it.may_be_asked(|| (sight.is_linked)(&it.id()), sight.now_mono_ms);
        let (wanted, cold) = ((&offer.model, &offer.digest), Warm::default());
        let best_given = self.placement.gpu_class(&offer.model.name);
        let any = (None, best_given.map_or(Class::Any, Class::Accelerator));
        let mut found = (sight.fleet).candidates_within(wanted, self.region, any, &cold, rng);
        found.retain(|it| {
            it.worker.id() != worker.id()
                && may_be_asked(it.worker)
                && sight.is_open(it.worker, &offer.model).is_none()
        });
        let others: Vec<Ranked> = (found.into_iter())
            .filter_map(|it| self.alone(it, rng))
            .collect();
        // A suspect is asked all the same, when nothing else is left.
        let why_not = sight.refuses(worker, offer).or_else(|| {
            let row = sight.one(worker);
            let is_out = worker.is_withdrawn() || !may_be_asked(worker);
            is_out.then(|| row.reasons.join("; "))
        });
        let why_not = why_not.or_else(|| sight.is_open(worker, &offer.model));
        let offer_at = u32::try_from(at).unwrap_or(u32::MAX);
        let own = match why_not {
            None => self.alone(Found::new(worker, offer_at), rng),
            Some(_) => None,
        };
        let better = |a: &Ranked, b: &Ranked| {
            (a.suspect.cmp(&b.suspect))
                .then(b.score.total_cmp(&a.score))
                .is_lt()
        };
        let best =
            (own.iter().chain(&others)).reduce(|best, it| if better(it, best) { it } else { best });
        ModelView {
            model: offer.model.to_string(),
            digest: offer.digest,
            warm: offer.warm,
            rank: own
                .as_ref()
                .map(|own| 1 + others.iter().filter(|it| better(it, own)).count()),
            of: others.len() + usize::from(own.is_some()),
            score: own.as_ref().map(|it| it.score),
            terms: own.as_ref().map(|it| it.terms),
            best: best.map(|it| Best {
                worker: it.candidate.worker.id(),
                score: it.score,
                terms: it.terms,
                suspect: it.suspect,
            }),
            why_not,
        }
    }

    /// What placement makes of one candidate, for a prompt that begins like no other.
    fn alone(&self, found: Found<'_>, rng: &mut impl Rng) -> Option<Ranked> {
        let query = Query {
            region: self.region,
            gpu_class: self.placement.gpu_class(&found.offer().model.name),
            numerics_class: None,
            orchestrators: self.sight.fleet.orchestrators(),
            now_mono_ms: self.sight.now_mono_ms,
            left_at: None,
        };
        place([found], &query, self.placement, rng).ranked.pop()
    }
}

#[cfg(test)]
mod tests;
