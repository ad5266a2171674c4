//! Room for models: what is taken, what is missing, what never fits, and who gives it up.

use super::{Effect, Lease, Model, PATIENCE_MS, Pool, State};
use std::fmt;

impl Pool {
    /// Memory that is spoken for.
    pub(crate) fn used_bytes(&self) -> u64 {
        let charged = self.models.iter().filter(|it| it.is_charged());
        charged.fold(0, |sum, it| sum.saturating_add(it.need.bytes))
    }

    /// What pinned models that are not loaded will take; it is kept for them.
    fn kept_for_pinned(&self, but: usize) -> u64 {
        let kept = self.models.iter().enumerate().filter(|(at, it)| {
            *at != but && it.need.is_pinned && it.state == State::Cold && it.failure.is_none()
        });
        kept.fold(0, |sum, (_, it)| sum.saturating_add(it.need.bytes))
    }

    pub(super) fn leaving_bytes(&self) -> u64 {
        let leaves = |it: &&Model| it.is_draining || it.state == State::Leaving;
        let leaving = self.models.iter().filter(leaves);
        leaving.fold(0, |sum, it| sum.saturating_add(it.need.bytes))
    }

    pub(super) fn adapters(&self, leaving_too: bool) -> usize {
        let counts = |it: &&Model| {
            let leaves = it.is_draining || it.state == State::Leaving;
            it.need.is_adapter && it.is_charged() && (leaving_too || !leaves)
        };
        self.models.iter().filter(counts).count()
    }

    pub(super) fn fits(&self, model: usize) -> bool {
        let need = &self.models[model].need;
        let taken = self
            .used_bytes()
            .saturating_add(self.kept_for_pinned(model));
        let has_place = !need.is_adapter || self.adapters(true) < self.limits.adapters;
        has_place && taken.saturating_add(need.bytes) <= self.limits.memory_bytes
    }

    /// What would be missing if all that leaves had left: bytes, and a place for an adapter.
    pub(super) fn missing(&self, model: usize) -> (u64, bool) {
        let need = &self.models[model].need;
        let stays = self.used_bytes() - self.leaving_bytes();
        let taken = stays.saturating_add(self.kept_for_pinned(model));
        let needed = taken.saturating_add(need.bytes);
        let no_place = need.is_adapter && self.adapters(false) >= self.limits.adapters;
        (needed.saturating_sub(self.limits.memory_bytes), no_place)
    }

    /// Why a model cannot be loaded even if all others went that may.
    pub(super) fn never_fits(&self, model: usize) -> Option<String> {
        let pinned = self
            .models
            .iter()
            .enumerate()
            .filter(|(at, it)| *at != model && it.need.is_pinned && it.state != State::Absent);
        let pinned = pinned.fold(0_u64, |sum, (_, it)| sum.saturating_add(it.need.bytes));
        let (need, budget) = (&self.models[model].need, self.limits.memory_bytes);
        if need.is_adapter && self.limits.adapters == 0 {
            return Some("no adapters are served here".to_owned());
        }
        (pinned.saturating_add(need.bytes) > budget).then(|| {
            format!(
                "the model needs {} ({}), but the memory budget is {}, of which pinned models take {}",
                Mib(need.bytes),
                need.reason,
                Mib(budget),
                Mib(pinned)
            )
        })
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
        while self.used_bytes().saturating_sub(self.leaving_bytes()) > self.limits.memory_bytes {
            let Some(model) = self.idle(|_| true) else {
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
        let is_adapter = self.models[model].need.is_adapter;
        loop {
            let (bytes, adapters) = self.missing(model);
            if bytes == 0 && !adapters {
                return;
            }
            // An adapter's place is given up by an adapter only.
            let helps = |it: &Model| bytes > 0 || (is_adapter && it.need.is_adapter);
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

/// Bytes for people.
pub(crate) struct Mib(pub(crate) u64);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0.div_ceil(1024 * 1024))
    }
}
