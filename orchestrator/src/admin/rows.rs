//! The fleet as rows: what each worker does, and why one gets no work. (FLT-3)
//!
//! Why is said by what decides it: the worker's view, the catalogue, and the question that dispatch
//! asks before it gives a request away. No rule is written here a second time.

use super::filter::Filter;
use crate::breaker::State;
use crate::catalogue::Catalogue;
use crate::dispatch::breaking::Breaking;
use crate::fleet::{STATES, Snapshot, UNAVAILABLE, WorkerView};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use tether_wire::beat::NodeState;
use tether_wire::card::ModelOffer;
use tether_wire::{ModelRef, NodeId, Region, Tier};

/// Most nodes that are shown whose card has not come.
pub(super) const MAX_UNCARDED: usize = 1_000;
/// How long a refusal is shown in the list: some beats.
pub(super) const REFUSAL_SHOWN_MS: u64 = 30_000;
/// Why a node without a card gets no work.
pub(super) const UNCARDED: &str =
    "its beats are heard, its card has not come: it is asked for with each of them";

/// One worker, as `tether fleet --json` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FleetRow {
    /// Its key.
    pub id: NodeId,
    /// `starting`, `serving`, `unavailable` (it has no model that is asked for), `draining`,
    /// `suspect` or `unknown`.
    pub state: &'static str,
    /// Where it stands; null while its card has not come.
    pub region: Option<Region>,
    /// What it serves, `NAME@MAJOR.MINOR`.
    pub models: Vec<String>,
    /// Requests that this orchestrator has running there, now.
    pub in_flight: u32,
    /// Requests that waited there when it was last heard.
    pub queue_depth: u32,
    /// Milliseconds since it was last heard.
    pub heartbeat_age_ms: u64,
    /// Requests that it runs at once.
    pub slots: u32,
    /// How far it is believed; null while its card has not come.
    pub tier: Option<Tier>,
    /// Engine and its version.
    pub engine: String,
    /// Why nothing is given to it, or only when nothing else is left; null when it is routable.
    /// The first of `reasons`.
    pub reason: Option<String>,
    /// All that keeps it from work.
    pub reasons: Vec<String>,
    /// Its breaker here: `closed`, `open` (nothing is given to it for a while, since too much of it
    /// failed) or `half-open` (a few requests try whether it is well again).
    pub breaker: &'static str,
    /// Whether this orchestrator has a link with it.
    pub linked: bool,
    /// What it should serve and does not, or offers and is not asked for.
    pub faults: Vec<FaultRow>,
}

/// A model that a worker should serve and does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultRow {
    /// As configured at the worker.
    pub model: String,
    /// Why it does not.
    pub reason: String,
}

/// The rows that were asked for, with counts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page {
    /// Live workers, asked for or not.
    pub total: usize,
    /// Those that were asked for.
    pub matched: usize,
    /// Those of them that get work.
    pub routable: usize,
    /// Those that were asked for, by state; states of none are left out.
    pub states: BTreeMap<&'static str, usize>,
    /// Those for which there was no room.
    pub left_out: usize,
    /// The rows: who gets no work first, then by region, then by id.
    pub workers: Vec<FleetRow>,
}

/// A node that speaks and is not in the fleet.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    pub(super) id: NodeId,
    pub(super) age_ms: u64,
    /// Why it is not there.
    pub(super) reason: String,
}

/// What rows are made of.
pub(super) struct Sight<'a> {
    pub(super) fleet: &'a Snapshot,
    pub(super) catalogue: &'a Catalogue,
    pub(super) breaking: &'a Breaking,
    /// Whether there is a link with a worker.
    pub(super) is_linked: &'a dyn Fn(&NodeId) -> bool,
    pub(super) now_mono_ms: u64,
}

/// A worker on its way to a row.
struct Glance<'a> {
    worker: &'a Arc<WorkerView>,
    state: &'static str,
    breaker: State,
    reasons: Vec<String>,
    refused: Vec<FaultRow>,
}

impl Sight<'_> {
    /// The rows that `filter` asks for.
    pub(super) fn page(&self, filter: &Filter, outside: &[Outside]) -> Page {
        let unknown = STATES[STATES.len() - 1];
        let is_shown = filter.takes_unknown() && filter.takes_state(unknown, false);
        let outside = if is_shown { outside } else { &[] };
        let mut glances: Vec<Glance<'_>> = (self.fleet.workers())
            .filter(|worker| filter.takes(worker))
            .map(|worker| self.glance(worker))
            .filter(|it| filter.takes_state(it.state, it.reasons.is_empty()))
            .collect();
        let mut states = BTreeMap::new();
        for glance in &glances {
            *states.entry(glance.state).or_default() += 1;
        }
        if !outside.is_empty() {
            *states.entry(unknown).or_default() += outside.len();
        }
        let matched = glances.len() + outside.len();
        let routable = glances.iter().filter(|it| it.reasons.is_empty()).count();
        let mut workers: Vec<FleetRow> = (outside.iter())
            .take(filter.limit)
            .map(|it| outside_row(it, unknown, (self.is_linked)(&it.id)))
            .collect();
        let room = filter.limit - workers.len();
        keep_first(&mut glances, room);
        workers.extend(glances.into_iter().map(|it| self.row(it)));
        Page {
            total: self.fleet.len(),
            matched,
            routable,
            states,
            left_out: matched - workers.len(),
            workers,
        }
    }

    /// One worker as a row.
    pub(super) fn one(&self, worker: &Arc<WorkerView>) -> FleetRow {
        self.row(self.glance(worker))
    }

    fn glance<'a>(&self, worker: &'a Arc<WorkerView>) -> Glance<'a> {
        let refused = self.refused(worker);
        let nothing_left = !refused.is_empty() && refused.len() == worker.card().models.len();
        let mut reasons: Vec<String> = worker.unroutable().into_iter().collect();
        if nothing_left {
            reasons.extend(
                refused
                    .iter()
                    .map(|it| format!("{}: {}", it.model, it.reason)),
            );
        }
        let left_ms = (worker.redial_mono_ms()).saturating_sub(self.now_mono_ms);
        let may_be_asked = worker.may_be_asked(|| (self.is_linked)(&worker.id()), self.now_mono_ms);
        if !may_be_asked && left_ms > 0 {
            reasons.push(format!(
                "it could not be reached, and is not dialled for another {left_ms} ms"
            ));
        }
        if worker.is_withdrawn() && worker.state == NodeState::Serving {
            reasons.push("it has just gone, or takes no more work".to_owned());
        }
        let breaker = self.breaking.of_worker(worker, self.now_mono_ms).state;
        reasons.extend(self.barred("its", breaker));
        let state = match worker.state_name() {
            "serving" if nothing_left => UNAVAILABLE,
            state => state,
        };
        Glance {
            worker,
            state,
            breaker,
            reasons,
            refused,
        }
    }

    fn row(&self, glance: Glance<'_>) -> FleetRow {
        let worker = glance.worker;
        let card = worker.card();
        FleetRow {
            id: worker.id(),
            state: glance.state,
            region: Some(worker.region().clone()),
            models: card.models.iter().map(|it| it.model.to_string()).collect(),
            in_flight: worker.in_flight(),
            queue_depth: worker.queue_depth(),
            heartbeat_age_ms: (self.now_mono_ms).saturating_sub(worker.heard_mono_ms()),
            slots: card.capacity,
            tier: Some(worker.tier),
            engine: card.engine.clone(),
            reason: glance.reasons.first().cloned(),
            reasons: glance.reasons,
            breaker: glance.breaker.as_str(),
            linked: (self.is_linked)(&worker.id()),
            faults: (card.faults.iter())
                .map(|fault| FaultRow {
                    model: fault.model.clone(),
                    reason: fault.reason.clone(),
                })
                .chain(glance.refused)
                .collect(),
        }
    }

    /// What a breaker that is open means for requests.
    fn barred(&self, whose: &str, breaker: State) -> Option<String> {
        match breaker {
            // Who is half open gets work, to see whether it is well.
            State::Closed | State::HalfOpen => None,
            State::Open { until_ms } => Some(format!(
                "{whose} breaker is open for another {} ms: too many requests failed",
                until_ms.saturating_sub(self.now_mono_ms)
            )),
        }
    }

    /// Why nothing is asked for while a breaker of a worker, its model or its region is open.
    pub(super) fn is_open(&self, worker: &WorkerView, model: &ModelRef) -> Option<String> {
        let now_ms = self.now_mono_ms;
        let breakers = [
            ("its", self.breaking.of_worker(worker, now_ms)),
            ("its model's", self.breaking.of_model(model, now_ms)),
            (
                "its region's",
                self.breaking.of_region(worker.region(), now_ms),
            ),
        ];
        let is_open = |state: State| matches!(state, State::Open { .. });
        let mut open = breakers.into_iter().filter(|(_, it)| is_open(it.state));
        open.find_map(|(whose, it)| self.barred(whose, it.state))
    }

    /// What a worker offers of which nothing is asked for.
    fn refused(&self, worker: &WorkerView) -> Vec<FaultRow> {
        let fault = |offer: &ModelOffer| {
            let reason = self.refuses(worker, offer)?;
            let model = offer.model.to_string();
            Some(FaultRow { model, reason })
        };
        worker.card().models.iter().filter_map(fault).collect()
    }

    /// Why nothing of an offer is asked for: the name is bound to something else, or more is offered
    /// than is kept.
    pub(super) fn refuses(&self, worker: &WorkerView, offer: &ModelOffer) -> Option<String> {
        let beyond = || {
            let why = "more different artifacts are offered than this orchestrator keeps";
            (!self.fleet.finds(worker, offer)).then(|| why.to_owned())
        };
        self.catalogue.refuses(offer).or_else(beyond)
    }
}

/// Keeps the first so many in order, without ordering the rest.
fn keep_first(glances: &mut Vec<Glance<'_>>, room: usize) {
    fn place<'a>(it: &Glance<'a>) -> (bool, &'a Region, NodeId) {
        (it.reasons.is_empty(), it.worker.region(), it.worker.id())
    }
    if glances.len() > room {
        if room > 0 {
            glances.select_nth_unstable_by(room - 1, |a, b| place(a).cmp(&place(b)));
        }
        glances.truncate(room);
    }
    glances.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
}

fn outside_row(it: &Outside, state: &'static str, linked: bool) -> FleetRow {
    FleetRow {
        id: it.id,
        state,
        region: None,
        models: Vec::new(),
        in_flight: 0,
        queue_depth: 0,
        heartbeat_age_ms: it.age_ms,
        slots: 0,
        tier: None,
        engine: String::new(),
        reason: Some(it.reason.clone()),
        reasons: vec![it.reason.clone()],
        breaker: State::Closed.as_str(),
        linked,
        faults: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
