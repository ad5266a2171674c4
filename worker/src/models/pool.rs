//! Which models are loaded. Pure: events and times in, effects out. (WRK-5)
//!
//! Every configured model has its needs of memory, an estimate that observation corrects. The rules:
//!
//! 1. *Admission*: a load begins only when the needs of everything that is loaded, is being loaded or
//!    is being ended, and of pinned models that are not loaded yet, leave room for it. Where observation
//!    finds more than that, idle models go until it fits again, and nothing is loaded meanwhile.
//! 2. *Who goes*: the least recently used of those that are not pinned, are used by nobody, and were
//!    loaded for at least as long as their load took, so that at most half of the time goes into loading.
//!    What further processes of it take does not count: they are in memory that nobody needed, and nobody
//!    who needs it now waits until they are all there.
//! 3. *Turns*: models that requests wait for are loaded in the order of their first request, and none
//!    overtakes another that it takes memory from. When the first of them has waited for [`PATIENCE_MS`] and nothing idle can go, the
//!    longest loaded takes no new requests any more, ends those it has and goes: so a cold model gets
//!    its turn however busy the others are. Requests that come for it meanwhile wait as for a cold one.
//! 4. One load for however many wait. When it fails, all of them are told, and those that come
//!    before it may be tried again are told at once.
//! 5. What cannot fit even alone is refused with the numbers, and told as such ([`Effect::Unfit`]), so
//!    that it is not offered.
//! 6. *What a model once took* ([`Room::most`]) keeps others out and never the model itself: one bad
//!    request can make a model grow as far as its process may, and it is not known whether the next
//!    one does. So it counts as far as there is room beside what is pinned, and of pinned models, which
//!    cannot be waited for, only what is certain counts.
//!
//! 7. *Processes* ([`Processes::UpTo`]) are decided anew at each load: what no other model needs is
//!    free for a model's further processes, and never keeps another one out. Where needs turn out
//!    larger than they were thought, whoever has more than one gives them back first: it goes when its
//!    answers have ended, and comes again with fewer.
//!
//! Each device has a budget of its own, and a model takes of one or more of them.
//!
//! * `amount` – memory on several devices
//! * `processes` – into how many processes a model is loaded
//! * `room` – what is taken, what is missing, and who goes

mod amount;
mod processes;
mod room;

pub(crate) use amount::{Amount, Mib, Room};
pub(crate) use processes::Processes;
use std::collections::BTreeMap;

/// How long the first of those who wait, waits for something idle before a busy model has to go.
pub(crate) const PATIENCE_MS: u64 = 2_000;

/// Bounds of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Memory for models, on each device.
    pub(crate) memory: Amount,
    /// Names of the devices after the first, for people.
    pub(crate) accelerators: Vec<String>,
    /// Adapters that are loaded at once, each with its base.
    pub(crate) adapters: usize,
    /// A model that nobody used for so long is ended; 0 means never.
    pub(crate) idle_ms: u64,
}

/// What a model needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// Memory of one process, on each device.
    pub(crate) memory: Room,
    /// How that number came about, for people.
    pub(crate) reason: String,
    /// Into how many processes it is loaded.
    pub(crate) processes: Processes,
    /// Whether it is an adapter with its base.
    pub(crate) is_adapter: bool,
    /// It is always loaded.
    pub(crate) is_pinned: bool,
}

/// One request's hold on a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LeaseId(u64);

/// What a request that asks for a model is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The model answers.
    Ready(LeaseId),
    /// [`Effect::Ready`] or [`Effect::Refuse`] comes.
    Waits(LeaseId),
    /// It is not loaded for now, and why.
    Refused(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Load this model into so many processes.
    Load(usize, u32),
    /// End the engine of this model.
    Unload(usize),
    /// Who waits can go on.
    Ready(LeaseId),
    /// Who waits does so in vain.
    Refuse(LeaseId, String),
    /// Why this model can never be loaded, as things are; or nothing any more.
    Unfit(usize, Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not known yet.
    Unknown,
    /// Refused for good.
    Absent,
    Cold,
    Loading,
    Warm,
    /// Its engine failed; whoever watches over it starts it again.
    Down,
    /// Its engine is being ended.
    Leaving,
}

#[derive(Clone, Debug)]
struct Model {
    need: Need,
    state: State,
    /// Processes that it was loaded into, while it is.
    processes: u32,
    /// Of a warm one: when it was loaded, and how long that took.
    since_ms: u64,
    load_ms: u64,
    last_used_ms: u64,
    /// It takes no new requests, so that it can go.
    is_draining: bool,
    /// It should be loaded when there is room, though nobody waits.
    is_wished: bool,
    /// Why it cannot be loaded, and until when it is not tried.
    failure: Option<(String, u64)>,
    /// What was told by [`Effect::Unfit`].
    unfit: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    model: usize,
    since_ms: u64,
    is_using: bool,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: Limits,
    models: Vec<Model>,
    leases: BTreeMap<LeaseId, Lease>,
    next: u64,
}

impl Pool {
    /// `models` of which nothing is known yet.
    pub(crate) fn new(limits: Limits, models: usize) -> Self {
        let model = Model {
            need: Need::default(),
            state: State::Unknown,
            processes: 0,
            since_ms: 0,
            load_ms: 0,
            last_used_ms: 0,
            is_draining: false,
            is_wished: true,
            failure: None,
            unfit: None,
        };
        Self {
            limits,
            models: vec![model; models],
            leases: BTreeMap::new(),
            next: 0,
        }
    }

    /// A model can be loaded from now on. It is, while there is room.
    pub(crate) fn know(&mut self, model: usize, need: Need, now_ms: u64) -> Vec<Effect> {
        let entry = &mut self.models[model];
        entry.need = need;
        if matches!(entry.state, State::Unknown | State::Absent) {
            entry.state = State::Cold;
        }
        self.settle(now_ms)
    }

    /// A model is not to be had any more.
    pub(crate) fn forget(&mut self, model: usize, reason: &str, now_ms: u64) -> Vec<Effect> {
        self.models[model].state = State::Absent;
        let mut effects = self.refuse_waiting(model, reason);
        effects.extend(self.settle(now_ms));
        effects
    }

    /// A request asks for a model.
    pub(crate) fn ask(&mut self, model: usize, now_ms: u64) -> (Asked, Vec<Effect>) {
        let entry = &self.models[model];
        if matches!(entry.state, State::Unknown | State::Absent) {
            return (
                Asked::Refused("the model is not ready yet".to_owned()),
                Vec::new(),
            );
        }
        let is_down = matches!(entry.state, State::Cold | State::Down);
        if let Some((reason, until_ms)) = &entry.failure
            && is_down
            && (entry.state == State::Down || *until_ms > now_ms)
        {
            return (Asked::Refused(reason.clone()), Vec::new());
        }
        if let (State::Cold, Some(why)) = (entry.state, self.never_fits(model)) {
            return (Asked::Refused(why), Vec::new());
        }
        let id = LeaseId(self.next);
        self.next += 1;
        let entry = &mut self.models[model];
        let is_using = entry.state == State::Warm && !entry.is_draining;
        if is_using {
            entry.last_used_ms = now_ms;
        }
        self.leases.insert(
            id,
            Lease {
                model,
                since_ms: now_ms,
                is_using,
            },
        );
        if is_using {
            return (Asked::Ready(id), Vec::new());
        }
        let mut effects = self.settle(now_ms);
        // It may have had room at once that it did not wait for, or none ever.
        let told = effects.iter().position(|effect| match effect {
            Effect::Ready(ready) => *ready == id,
            Effect::Refuse(refused, _) => *refused == id,
            _ => false,
        });
        match told.map(|at| effects.remove(at)) {
            Some(Effect::Refuse(_, why)) => (Asked::Refused(why), effects),
            Some(_) => (Asked::Ready(id), effects),
            None => (Asked::Waits(id), effects),
        }
    }

    /// A request is done with its model, or waits no longer.
    pub(crate) fn release(&mut self, lease: LeaseId, now_ms: u64) -> Vec<Effect> {
        if let Some(lease) = self.leases.remove(&lease)
            && lease.is_using
        {
            self.models[lease.model].last_used_ms = now_ms;
        }
        self.settle(now_ms)
    }

    /// A model answers. `load_ms` is how long its load took.
    pub(crate) fn loaded(&mut self, model: usize, load_ms: u64, now_ms: u64) -> Vec<Effect> {
        let entry = &mut self.models[model];
        // An engine that is being ended may have been ready a moment before.
        if matches!(entry.state, State::Loading | State::Down) {
            entry.state = State::Warm;
            (entry.since_ms, entry.load_ms) = (now_ms, load_ms);
            entry.last_used_ms = now_ms;
            entry.failure = None;
        }
        self.settle(now_ms)
    }

    /// A process of a model needs more or less than was thought.
    pub(crate) fn observed(&mut self, model: usize, memory: Room, now_ms: u64) -> Vec<Effect> {
        self.models[model].need.memory = memory;
        self.settle(now_ms)
    }

    /// An engine that was warm failed, and is started again by whoever watches over it.
    pub(crate) fn failed(
        &mut self,
        model: usize,
        reason: &str,
        retry_ms: u64,
        now_ms: u64,
    ) -> Vec<Effect> {
        let entry = &mut self.models[model];
        entry.failure = Some((reason.to_owned(), now_ms.saturating_add(retry_ms)));
        if matches!(entry.state, State::Loading | State::Warm) {
            entry.state = State::Down;
            entry.is_draining = false;
        }
        let mut effects = self.refuse_waiting(model, reason);
        effects.extend(self.settle(now_ms));
        effects
    }

    /// A load failed, and nothing of it is left. It is tried again after `retry_ms` at the earliest:
    /// when somebody asks, or when there is room.
    pub(crate) fn gave_up(
        &mut self,
        model: usize,
        reason: &str,
        retry_ms: u64,
        now_ms: u64,
    ) -> Vec<Effect> {
        let entry = &mut self.models[model];
        entry.failure = Some((reason.to_owned(), now_ms.saturating_add(retry_ms)));
        entry.is_draining = false;
        entry.is_wished = true;
        if entry.state != State::Absent {
            entry.state = State::Cold;
        }
        let mut effects = self.refuse_waiting(model, reason);
        effects.extend(self.settle(now_ms));
        effects
    }

    /// An engine's process is gone, as [`Effect::Unload`] asked.
    pub(crate) fn unloaded(&mut self, model: usize, now_ms: u64) -> Vec<Effect> {
        let entry = &mut self.models[model];
        if entry.state == State::Leaving {
            entry.state = State::Cold;
        }
        self.settle(now_ms)
    }

    /// Time went by.
    pub(crate) fn tick(&mut self, now_ms: u64) -> Vec<Effect> {
        self.settle(now_ms)
    }

    /// When [`Pool::tick`] should be called, if nothing happens before.
    pub(crate) fn wakes_at_ms(&self, now_ms: u64) -> Option<u64> {
        let mut at: Vec<u64> = Vec::new();
        let waiting = self.waiting();
        at.extend(
            waiting
                .iter()
                .map(|(_, since_ms)| since_ms.saturating_add(PATIENCE_MS)),
        );
        if !waiting.is_empty() {
            let warm = self.models.iter().filter(|it| it.state == State::Warm);
            at.extend(warm.map(|it| it.since_ms.saturating_add(it.load_ms)));
        }
        for entry in &self.models {
            match entry.state {
                State::Cold if entry.is_wished || entry.need.is_pinned => {
                    at.extend(entry.failure.iter().map(|(_, until_ms)| *until_ms));
                }
                State::Warm if self.limits.idle_ms > 0 => {
                    at.push(entry.last_used_ms.saturating_add(self.limits.idle_ms));
                }
                _ => {}
            }
        }
        at.into_iter().filter(|at| *at > now_ms).min()
    }

    fn settle(&mut self, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.end_drains_nobody_needs();
        self.serve_waiting(now_ms, &mut effects);
        self.end_idle(now_ms, &mut effects);
        self.load_pinned(now_ms, &mut effects);
        self.load_waiting(now_ms, &mut effects);
        self.load_wished(now_ms, &mut effects);
        self.end_drained(&mut effects);
        self.tell_unfit(&mut effects);
        effects
    }

    /// The models that requests wait for and since when, in the order of their first request.
    fn waiting(&self) -> Vec<(usize, u64)> {
        let mut waiting: Vec<(usize, u64)> = Vec::new();
        for lease in self.leases.values().filter(|lease| !lease.is_using) {
            // Those who wait for a model that is coming need nothing any more, nor do those whose
            // model goes so that another can come: their turn is behind that.
            let is_cold = self.models[lease.model].state == State::Cold;
            if is_cold && waiting.iter().all(|(model, _)| *model != lease.model) {
                waiting.push((lease.model, lease.since_ms));
            }
        }
        waiting
    }

    fn end_drains_nobody_needs(&mut self) {
        let beyond = self.used().beyond(&self.limits.memory);
        if self.waiting().is_empty() && beyond.is_nothing() {
            self.models.iter_mut().for_each(|it| it.is_draining = false);
        }
    }

    fn serve_waiting(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for (id, lease) in &mut self.leases {
            let entry = &mut self.models[lease.model];
            if !lease.is_using && entry.state == State::Warm && !entry.is_draining {
                lease.is_using = true;
                entry.last_used_ms = now_ms;
                effects.push(Effect::Ready(*id));
            }
        }
    }

    fn load_pinned(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        for model in 0..self.models.len() {
            let entry = &self.models[model];
            // Its room is kept for it, so it only waits for those who are in there to go.
            if entry.need.is_pinned && self.may_be_tried(model, now_ms) {
                if self.fits(model) {
                    self.load(model, effects);
                } else if self.never_fits(model).is_none() {
                    self.make_room(model, now_ms, now_ms, effects);
                }
            }
        }
    }

    fn load_waiting(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        // What those in front need, and what of it is not there yet.
        let (mut ahead, mut missing) = (Amount::default(), Amount::default());
        for (model, since_ms) in self.waiting() {
            let memory = self.takes(model);
            if let Some(why) = self.never_fits(model) {
                effects.extend(self.refuse_waiting(model, &why));
            } else if self.fits_beside(&ahead, model) {
                self.load(model, effects);
            } else if memory.meets(&missing) {
                ahead = ahead.plus(&memory);
            } else {
                ahead = ahead.plus(&memory);
                missing = missing.plus(&self.missing(model).memory);
                self.make_room(model, since_ms, now_ms, effects);
            }
        }
    }

    /// What nobody waits for takes only what is free.
    fn load_wished(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if !self.waiting().is_empty() {
            return;
        }
        for model in 0..self.models.len() {
            let is_wished = self.models[model].is_wished;
            if is_wished && self.may_be_tried(model, now_ms) && self.fits(model) {
                self.load(model, effects);
            }
        }
    }

    fn tell_unfit(&mut self, effects: &mut Vec<Effect>) {
        for model in 0..self.models.len() {
            if self.models[model].state != State::Cold {
                continue;
            }
            let unfit = self.never_fits(model);
            if self.models[model].unfit != unfit {
                self.models[model].unfit.clone_from(&unfit);
                effects.push(Effect::Unfit(model, unfit));
            }
        }
    }

    fn may_be_tried(&self, model: usize, now_ms: u64) -> bool {
        let entry = &self.models[model];
        let failed = entry.failure.as_ref();
        entry.state == State::Cold && failed.is_none_or(|(_, until_ms)| *until_ms <= now_ms)
    }

    fn load(&mut self, model: usize, effects: &mut Vec<Effect>) {
        let processes = self.divide(model);
        let entry = &mut self.models[model];
        entry.state = State::Loading;
        entry.processes = processes;
        effects.push(Effect::Load(model, processes));
    }

    fn unload(&mut self, model: usize, effects: &mut Vec<Effect>) {
        let entry = &mut self.models[model];
        entry.state = State::Leaving;
        entry.is_draining = false;
        // It may have been ended for its further processes alone.
        entry.is_wished = entry.has_spare();
        effects.push(Effect::Unload(model));
    }

    fn refuse_waiting(&mut self, model: usize, reason: &str) -> Vec<Effect> {
        let waiting = |lease: &Lease| lease.model == model && !lease.is_using;
        let refused: Vec<LeaseId> = (self.leases.iter())
            .filter(|(_, lease)| waiting(lease))
            .map(|(id, _)| *id)
            .collect();
        self.leases.retain(|_, lease| !waiting(lease));
        let refuse = |id| Effect::Refuse(id, reason.to_owned());
        refused.into_iter().map(refuse).collect()
    }
}

impl Model {
    /// Whether its memory is taken, or about to be.
    fn is_charged(&self) -> bool {
        matches!(
            self.state,
            State::Loading | State::Warm | State::Down | State::Leaving
        )
    }

    /// Whether its memory will be free by itself.
    fn leaves(&self) -> bool {
        self.is_draining || self.state == State::Leaving
    }
}

#[cfg(test)]
mod tests;
