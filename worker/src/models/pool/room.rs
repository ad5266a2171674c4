//! Room for models: what is taken, what is missing, what never fits, and who gives it up.

use super::amount::{Amount, Mib};
use super::{Effect, Lease, Model, PATIENCE_MS, Pool, State};

/// What a model lacks, if all that leaves had left.
#[derive(Debug)]
pub(super) struct Missing {
    /// Memory.
    pub(super) memory: Amount,
    /// Memory that would be missing, too, if no model had more processes than it must have.
    needed: Amount,
    /// A place for an adapter.
    no_place: bool,
}

impl Pool {
    /// Memory that is spoken for.
    pub(crate) fn used(&self) -> Amount {
        self.sum(|_, it| it.is_charged())
    }

    fn sum(&self, counts: impl Fn(usize, &Model) -> bool) -> Amount {
        self.sum_in(counts, Model::present)
    }

    /// The same where each model has as few processes as it can.
    fn least_sum(&self, counts: impl Fn(usize, &Model) -> bool) -> Amount {
        self.sum_in(counts, |it| it.need.processes.least())
    }

    fn sum_in(
        &self,
        counts: impl Fn(usize, &Model) -> bool,
        processes: impl Fn(&Model) -> u32,
    ) -> Amount {
        let free = self.free_of_pinned();
        let all = self.models.iter().enumerate();
        all.filter(|(at, it)| counts(*at, it))
            .fold(Amount::default(), |sum, (_, it)| {
                sum.plus(&it.takes(processes(it), &free))
            })
    }

    /// What a model is let in by, and is charged.
    pub(crate) fn takes(&self, model: usize) -> Amount {
        let entry = &self.models[model];
        entry.takes(entry.present(), &self.free_of_pinned())
    }

    /// What pinned models leave of the budget.
    pub(super) fn free_of_pinned(&self) -> Amount {
        let pinned = self.models.iter().filter(|it| it.is_kept());
        let pinned = pinned.fold(Amount::default(), |sum, it| sum.plus(&it.certain()));
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

    /// What would be missing if all that leaves had left.
    pub(super) fn missing(&self, model: usize) -> Missing {
        let need = &self.models[model].need;
        let (kept, memory) = (self.kept_for_pinned(model), self.takes(model));
        let least = self.least_sum(|_, it| it.is_charged() && !it.leaves());
        Missing {
            memory: self.lacks(&self.staying().plus(&kept), &memory),
            needed: self.lacks(&least.plus(&kept), &memory),
            no_place: need.is_adapter && self.adapters(false) >= self.limits.adapters,
        }
    }

    /// Why a model cannot be loaded even if all others went that may.
    pub(super) fn never_fits(&self, model: usize) -> Option<String> {
        let stays = |at: usize, it: &Model| at != model && it.is_kept();
        let pinned = self.least_sum(stays);
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
        let memory = self.models[model].certain();
        let lacks = self.lacks(&pinned, &memory);
        let device = lacks.devices().next()?;
        let processes = need.processes.least();
        let single = self.sum_in(stays, |_| 1);
        let fits_singly = self.lacks(&single, &need.memory.least).is_nothing();
        Some(format!(
            "the model needs {} ({}{}), but the memory budget{} is {}, of which pinned models take {}: \
             {}raise `memory_budget_mib`, pin fewer models or serve a smaller one",
            Mib(memory.on(device)),
            match processes {
                1 => String::new(),
                many => format!("{many} processes, each with "),
            },
            need.reason,
            match device
                .checked_sub(1)
                .and_then(|at| self.limits.accelerators.get(at))
            {
                Some(name) => format!(" of {name}"),
                None => String::new(),
            },
            Mib(self.limits.memory.on(device)),
            Mib(pinned.on(device)),
            if fits_singly {
                "lower `engine.replicas`, "
            } else {
                ""
            },
        ))
    }

    /// What nobody used for long, and what observation left no room for.
    pub(super) fn end_idle(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.limits.idle_ms > 0 {
            for model in 0..self.models.len() {
                let entry = &self.models[model];
                let is_old = entry.last_used_ms.saturating_add(self.limits.idle_ms) <= now_ms;
                let is_warm = entry.state == State::Warm && !entry.need.is_pinned;
                if is_warm && is_old && self.may_go(model) {
                    self.unload(model, effects);
                    self.models[model].is_wished = false;
                }
            }
        }
        loop {
            let beyond = self.staying().beyond(&self.limits.memory);
            let meets = |it: &Model| it.need.memory.most.meets(&beyond);
            let spares = |it: &Model| it.has_spare() && meets(it);
            if let Some(model) = self.idle(spares) {
                self.unload(model, effects);
            } else if let Some(model) = self.busy(spares) {
                self.models[model].is_draining = true;
            } else if let Some(model) = self.idle(meets) {
                self.unload(model, effects);
            } else {
                return;
            }
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
            let Missing {
                memory,
                needed,
                no_place,
            } = self.missing(model);
            if memory.is_nothing() && !no_place {
                return;
            }
            // Further processes are given up first, and for them nothing else is.
            let spares = |it: &Model| it.has_spare() && it.need.memory.most.meets(&memory);
            // An adapter's place is given up by an adapter only.
            let helps = |it: &Model| {
                let has_place = no_place && it.need.is_adapter;
                !it.need.is_pinned && (it.need.memory.most.meets(&needed) || has_place)
            };
            let settled = |it: &Model| it.since_ms.saturating_add(it.load_ms) <= now_ms;
            let resident = |it: &Model| it.state == State::Down || settled(it);
            let idle = self.idle(|it| spares(it) && resident(it));
            if let Some(idle) = idle.or_else(|| self.idle(|it| helps(it) && resident(it))) {
                self.unload(idle, effects);
                continue;
            }
            if since_ms.saturating_add(PATIENCE_MS) > now_ms {
                return;
            }
            let busy = self.busy(|it| spares(it) && settled(it));
            let busy = busy.or_else(|| self.busy(|it| helps(it) && settled(it)));
            let Some(longest) = busy else {
                return;
            };
            self.models[longest].is_draining = true;
        }
    }

    /// The longest loaded of those that may end what they are doing, and go.
    fn busy(&self, which: impl Fn(&Model) -> bool) -> Option<usize> {
        let busy = self.models.iter().enumerate().filter(|(at, it)| {
            let is_warm = it.state == State::Warm && !it.is_draining;
            is_warm && it.is_movable() && which(it) && !self.is_idle(*at)
        });
        let longest = busy.min_by_key(|(_, it)| it.since_ms);
        longest.map(|(at, _)| at)
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
        is_loaded && entry.is_movable() && self.is_idle(model)
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

    /// Whether it may be ended: what is pinned, only to come again with fewer processes.
    fn is_movable(&self) -> bool {
        !self.need.is_pinned || self.has_spare()
    }

    /// Whether it has more processes than it must have.
    pub(super) fn has_spare(&self) -> bool {
        self.is_charged() && self.processes > self.need.processes.least()
    }

    /// The processes that it is counted with.
    fn present(&self) -> u32 {
        if self.is_charged() {
            self.processes
        } else {
            self.need.processes.least()
        }
    }

    /// What it takes for certain, with as few processes as it can.
    fn certain(&self) -> Amount {
        self.need.memory.least.times(self.need.processes.least())
    }

    /// What so many processes of it take where so much is free of pinned models.
    pub(super) fn takes(&self, processes: u32, free: &Amount) -> Amount {
        let memory = self.need.memory.times(processes);
        if self.need.is_pinned {
            return memory.least;
        }
        memory.least.or_more(&memory.most.at_most(free))
    }
}
