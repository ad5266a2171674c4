//! Everything that is known of one node, for `tether fleet explain`. (FLT-3)

use super::rows::{FleetRow, Sight};
use crate::fleet::{Found, Refusal, Snapshot, WorkerView};
use crate::place::{Query, Ranked, place};
use crate::score::{Terms, Weights};
use rand::Rng;
use serde::Serialize;
use std::sync::Arc;
use tether_presence::{Doubt, Now, Presence, Seen, Spread, Standing};
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::{Beat, Card, Digest, MeshId, NodeId, Region, Role, Signed, Tier};

/// Nodes that are named where more than one begins as asked, and where none does.
pub const MAX_NAMED: usize = 10;
/// Digits of an id.
const DIGITS: usize = 64;

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

/// The beginning of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Hex digits, one at least and as many as an id has at most.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_hex = text.bytes().all(|it| it.is_ascii_hexdigit());
        if !is_hex || text.is_empty() || text.len() > DIGITS {
            return Err(format!(
                "a worker's id is {DIGITS} hex digits, or as many of the first as no other has"
            ));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    pub(super) fn is_of(&self, id: &NodeId) -> bool {
        id.to_hex().starts_with(&self.0)
    }

    /// The lowest id that begins so, and the id itself where it is whole.
    fn lowest(&self) -> NodeId {
        let mut id = NodeId([0; DIGITS / 2]);
        for (at, digit) in self.0.chars().enumerate() {
            let digit = digit.to_digit(16).and_then(|it| u8::try_from(it).ok());
            let shift = if at % 2 == 0 { 4 } else { 0 };
            id.0[at / 2] |= digit.unwrap_or(0) << shift;
        }
        id
    }

    /// How alike an id is: digits in common at the beginning, then anywhere.
    fn likeness(&self, id: &NodeId) -> (usize, usize) {
        let hex = id.to_hex();
        let same = || self.0.bytes().zip(hex.bytes()).map(|(a, b)| a == b);
        (
            same().take_while(|is_same| *is_same).count(),
            same().filter(|is_same| *is_same).count(),
        )
    }

    /// Workers whose ids are like it: what was typed may be wrong in a digit.
    pub(super) fn near(&self, fleet: &Snapshot) -> Vec<NodeId> {
        let mut near: Vec<_> = (fleet.workers())
            .map(|it| (self.likeness(&it.id()), it.id()))
            .filter(|((first, all), _)| *first >= 2 || (*all >= 3 && 4 * all >= 3 * self.0.len()))
            .collect();
        near.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        near.truncate(MAX_NAMED);
        near.into_iter().map(|(_, id)| id).collect()
    }
}

/// What presence knows of a node, taken out of it.
pub(super) struct Known {
    pub(super) id: NodeId,
    standing: Standing,
    age_ms: u64,
    role: Option<Role>,
    state: &'static str,
    state_since_ms: u64,
    suspect: Option<Suspect>,
    beat: LastBeat,
    sealed_beat: Arc<[u8]>,
    sealed_card: Option<Arc<[u8]>>,
    card_digest: Digest,
    clone_seen_ms_ago: Option<u64>,
    tier: Option<Tier>,
    granted_until_ms: Option<u64>,
    peers: Vec<NodeId>,
}

/// Who begins as asked.
pub(super) enum Answer {
    One(Box<Known>),
    /// More than one: some of them.
    Many(Vec<NodeId>),
    /// None; whether it is the whole id of a key that was revoked.
    None {
        revoked: bool,
    },
}

/// Looks for the node in what presence knows.
pub(super) fn find(prefix: &Prefix, spread: &Spread, now: Now) -> Answer {
    let presence: &Presence = spread.presence();
    let lowest = prefix.lowest();
    let found: Vec<Seen<'_>> = (presence.get(&lowest).into_iter())
        .chain(presence.after(&lowest))
        .take_while(|seen| prefix.is_of(&seen.node()))
        .take(MAX_NAMED)
        .collect();
    match found.as_slice() {
        [] => Answer::None {
            revoked: prefix.0.len() == DIGITS && presence.is_revoked(&lowest),
        },
        [one] => Answer::One(Box::new(Known::of(one, spread, now))),
        many => Answer::Many(many.iter().map(Seen::node).collect()),
    }
}

/// What is said where nothing is known of a node, and which nodes may have been meant.
pub(super) fn unknown(
    prefix: &Prefix,
    revoked: bool,
    refusals: &[Refusal],
    fleet: &Snapshot,
) -> (String, Vec<NodeId>) {
    let Prefix(asked) = prefix;
    if revoked {
        return (format!("the key {asked} was revoked, for good"), Vec::new());
    }
    let mut meant = refusals.iter().filter(|it| prefix.is_of(&it.node));
    if let (Some(refusal), None) = (meant.next(), meant.next()) {
        let (node, reason) = (refusal.node, refusal.reason.as_str());
        let (means, count) = (refusal.means(), refusal.count);
        let error =
            format!("nothing that the node {node} says counts ({reason}, {count} times): {means}");
        return (error, vec![node]);
    }
    let error = format!("nothing is heard of a node {asked}, and was not in the last minutes");
    (error, prefix.near(fleet))
}

impl Known {
    fn of(seen: &Seen<'_>, spread: &Spread, now: Now) -> Self {
        let since = |mono_ms: u64| now.mono_ms.saturating_sub(mono_ms);
        let order = seen.order();
        Self {
            id: seen.node(),
            standing: seen.standing(),
            age_ms: since(seen.heard_mono_ms()),
            role: seen.role(),
            state: seen.state().as_str(),
            state_since_ms: seen.state_since_ms(),
            suspect: seen.doubt().map(|(why, mono_ms)| Suspect {
                for_ms: since(mono_ms),
                why: because(why),
            }),
            beat: LastBeat {
                epoch: order.epoch,
                epoch_since_ms: seen.epoch_since_ms(),
                seq: order.seq,
                issued_ms: seen.issued_ms(),
                clock_ahead_ms: seen.ahead_ms(),
            },
            sealed_beat: seen.sealed_beat().clone(),
            sealed_card: seen.sealed_card().cloned(),
            card_digest: seen.named_card(),
            clone_seen_ms_ago: seen.cloned_mono_ms().map(since),
            tier: seen.tier(),
            granted_until_ms: seen.granted_until_ms(),
            peers: spread.peers().collect(),
        }
    }
}

fn because(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::Silent => "nothing was heard of it for longer than between two beats",
        Doubt::LinkLost => "its link broke, or could not be had",
        Doubt::Unresponsive => "its link went quiet, or it did not answer in time",
        Doubt::Peer => "another orchestrator doubts it",
    }
}

/// What an explanation is made of, beside what presence knows.
pub(super) struct Explaining<'a> {
    pub(super) sight: Sight<'a>,
    pub(super) mesh: MeshId,
    /// Of the requests that are placed.
    pub(super) region: &'a Region,
    pub(super) weights: &'a Weights,
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
        let mut found = (sight.fleet).candidates(&offer.model, &offer.digest, self.region, rng);
        found.retain(|it| it.worker.id() != worker.id() && may_be_asked(it.worker));
        let others: Vec<Ranked> = (found.into_iter())
            .filter_map(|it| self.alone(it, rng))
            .collect();
        // A suspect is asked all the same, when nothing else is left.
        let why_not = sight.refuses(worker, offer).or_else(|| {
            let row = sight.one(worker);
            let is_out = worker.is_withdrawn() || !may_be_asked(worker);
            is_out.then(|| row.reasons.join("; "))
        });
        let offer_at = u32::try_from(at).unwrap_or(u32::MAX);
        let own = Found {
            worker,
            offer: offer_at,
        };
        let own = match why_not {
            None => self.alone(own, rng),
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

    /// What placement makes of one candidate.
    fn alone(&self, found: Found<'_>, rng: &mut impl Rng) -> Option<Ranked> {
        let query = Query {
            region: self.region,
            tried: &[],
        };
        place([found], &query, self.weights, 0.0, rng).pop()
    }
}

#[cfg(test)]
mod tests;
