//! Room for models: what is taken, what is missing, what never fits, and who gives it up.

use super::amount::{Amount, Mib};
use super::{Effect, Lease, Model, PATIENCE_MS, Pool, State};

impl Pool {
    /// Memory that is spoken for.
    pub(crate) fn used(&self) -> Amount {
        self.sum(|_, it| it.is_charged())
    }

    fn sum(&self, counts: impl Fn(usize, &Model) -> bool) -> Amount {
        let free = self.free_of_pinned();
        let all = self.models.iter().enumerate();
        all.filter(|(at, it)| counts(*at, it))
            .fold(Amount::default(), |sum, (_, it)| sum.plus(&it.takes(&free)))
    }

    /// What a model is let in by, and is charged.
    pub(crate) fn takes(&self, model: usize) -> Amount {
        self.models[model].takes(&self.free_of_pinned())
    }

    /// What pinned models leave of the budget.
    fn free_of_pinned(&self) -> Amount {
        let pinned = self.models.iter().filter(|it| it.is_kept());
        let pinned = pinned.fold(Amount::default(), |sum, it| sum.plus(&it.need.memory.least));
        self.limits.memory.beyond(&pinned)
    }

    /// What pinned models that are not loaded will take; it is kept for them.
    fn kept_for_pinned(&self, but: usize) -> Amount {
        self.sum(|at, it| {
            at != but && it.need.is_pinned && it.state == State::Cold && it.failure.is_none()
        })
    }

    /// What is loaded and stays so.
    pub(super) fn staying(&self) -> Amount {
        self.sum(|_, it| it.is_charged() && !it.leaves())
    }

    pub(super) fn adapters(&self, leaving_too: bool) -> usize {
        let counts =
            |it: &&Model| it.need.is_adapter && it.is_charged() && (leaving_too || !it.leaves());
        self.models.iter().filter(counts).count()
    }

    pub(super) fn fits(&self, model: usize) -> bool {
        self.fits_beside(&Amount::default(), model)
    }

    /// Whether there is room for a model, and for `other` which is not loaded yet.
    pub(super) fn fits_beside(&self, other: &Amount, model: usize) -> bool {
        let need = &self.models[model].need;
        let taken = self.used().plus(&self.kept_for_pinned(model)).plus(other);
        let has_place = !need.is_adapter || self.adapters(true) < self.limits.adapters;
        has_place && self.lacks(&taken, &self.takes(model)).is_nothing()
    }

    /// What a model lacks on its devices when so much is taken. What others took too much of where it
    /// needs nothing is not its matter.
    fn lacks(&self, taken: &Amount, memory: &Amount) -> Amount {
        let beyond = taken.plus(memory).beyond(&self.limits.memory);
        let mine = memory.devices();
        mine.fold(Amount::default(), |sum, at| sum.with(at, beyond.on(at)))
    }

    /// What would be missing if all that leaves had left: memory, and a place for an adapter.
    pub(super) fn missing(&self, model: usize) -> (Amount, bool) {
        let need = &self.models[model].need;
        let taken = self.staying().plus(&self.kept_for_pinned(model));
        let no_place = need.is_adapter && self.adapters(false) >= self.limits.adapters;
        (self.lacks(&taken, &self.takes(model)), no_place)
    }

    /// Why a model cannot be loaded even if all others went that may.
    pub(super) fn never_fits(&self, model: usize) -> Option<String> {
        let stays = |at: usize, it: &Model| at != model && it.is_kept();
        let pinned = self.sum(stays);
        let need = &self.models[model].need;
        let all = self.models.iter().enumerate();
        let adapters = all.filter(|(at, it)| it.need.is_adapter && stays(*at, it));
        let (places, taken) = (self.limits.adapters, adapters.count());
        if need.is_adapter && taken >= places {
            return Some(match taken {
                0 => "no adapters are served here".to_owned(),
                _ => format!(
                    "{places} adapters are loaded at most, and {taken} are pinned: pin fewer"
                ),
            });
        }
        let memory = &need.memory.least;
        let lacks = self.lacks(&pinned, memory);
        let device = lacks.devices().next()?;
        Some(format!(
            "the model needs {} ({}), but the memory budget{} is {}, of which pinned models take {}: \
             raise `memory_budget_mib`, pin fewer models or serve a smaller one",
            Mib(memory.on(device)),
            need.reason,
            match device
                .checked_sub(1)
                .and_then(|at| self.limits.accelerators.get(at))
            {
                Some(name) => format!(" of {name}"),
                None => String::new(),
            },
            Mib(self.limits.memory.on(device)),
            Mib(pinned.on(device))
        ))
    }

    /// What nobody used for long, and what observation left no room for.
    pub(super) fn end_idle(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.limits.idle_ms > 0 {
            for model in 0..self.models.len() {
                let entry = &self.models[model];
                let is_old = entry.last_used_ms.saturating_add(self.limits.idle_ms) <= now_ms;
                if entry.state == State::Warm && is_old && self.may_go(model) {
                    self.unload(model, effects);
                }
            }
        }
        loop {
            let beyond = self.staying().beyond(&self.limits.memory);
            let Some(model) = self.idle(|it| it.need.memory.most.meets(&beyond)) else {
                return;
            };
            self.unload(model, effects);
        }
    }

    /// Lets go what can, until there is room for a model when all of that is gone.
    pub(super) fn make_room(
        &mut self,
        model: usize,
        since_ms: u64,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        loop {
            let (memory, no_place) = self.missing(model);
            if memory.is_nothing() && !no_place {
                return;
            }
            // An adapter's place is given up by an adapter only.
            let helps =
                |it: &Model| it.need.memory.most.meets(&memory) || (no_place && it.need.is_adapter);
            let settled = |it: &Model| it.since_ms.saturating_add(it.load_ms) <= now_ms;
            let resident = |it: &Model| it.state == State::Down || settled(it);
            if let Some(idle) = self.idle(|it| helps(it) && resident(it)) {
                self.unload(idle, effects);
                continue;
            }
            if since_ms.saturating_add(PATIENCE_MS) > now_ms {
                return;
            }
            let busy = self.models.iter().enumerate().filter(|(at, it)| {
                let is_warm = it.state == State::Warm && !it.is_draining;
                is_warm && !it.need.is_pinned && helps(it) && settled(it) && !self.is_idle(*at)
            });
            let Some((longest, _)) = busy.min_by_key(|(_, it)| it.since_ms) else {
                return;
            };
            self.models[longest].is_draining = true;
        }
    }

    pub(super) fn end_drained(&mut self, effects: &mut Vec<Effect>) {
        for model in 0..self.models.len() {
            let is_draining = self.models[model].is_draining;
            if is_draining && self.models[model].state == State::Warm && self.is_idle(model) {
                self.unload(model, effects);
            }
        }
    }

    /// Nobody uses it.
    pub(super) fn is_idle(&self, model: usize) -> bool {
        let uses = |lease: &Lease| lease.model == model && lease.is_using;
        !self.leases.values().any(uses)
    }

    fn may_go(&self, model: usize) -> bool {
        let entry = &self.models[model];
        let is_loaded = matches!(entry.state, State::Warm | State::Down);
        is_loaded && !entry.need.is_pinned && self.is_idle(model)
    }

    /// The least recently used of those that may go.
    fn idle(&self, which: impl Fn(&Model) -> bool) -> Option<usize> {
        let all = self.models.iter().enumerate();
        all.filter(|(at, it)| self.may_go(*at) && which(it))
            .min_by_key(|(_, it)| it.last_used_ms)
            .map(|(at, _)| at)
    }
}

impl Model {
    /// Whether its room is kept for it.
    fn is_kept(&self) -> bool {
        self.need.is_pinned && self.state != State::Absent
    }

    /// What it takes where so much is free of pinned models.
    fn takes(&self, free: &Amount) -> Amount {
        let memory = &self.need.memory;
        if self.need.is_pinned {
            return memory.least.clone();
        }
        memory.least.or_more(&memory.most.at_most(free))
    }
}
