//! The queues of all models, as much in them together as there is memory for. Pure.

use super::{
    Charge, Entry, MAX_RETRY_AFTER_MS, Priority, Queue, QueueSettings, Shed, Ticket, Turn, Why,
};
use std::collections::BTreeMap;
use tether_wire::ModelRef;

/// Most models with a queue; one that is empty makes room, and its rate is forgotten.
pub const MAX_QUEUES: usize = 1_024;

/// A queue for each model.
#[derive(Debug)]
pub struct Queues<T> {
    settings: QueueSettings,
    queues: BTreeMap<ModelRef, Queue<T>>,
    entries: usize,
    bytes: usize,
}

impl<T> Queues<T> {
    /// Empty ones, by settings that were checked.
    #[must_use]
    pub fn new(settings: QueueSettings) -> Self {
        Self {
            settings,
            queues: BTreeMap::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Other settings, for what comes from now on.
    pub fn configure(&mut self, settings: QueueSettings) {
        self.settings = settings;
        for queue in self.queues.values_mut() {
            queue.configure(settings);
        }
    }

    /// As [`Queue::push`].
    ///
    /// # Errors
    /// There is no room for it, or it would wait in vain.
    pub fn push(
        &mut self,
        model: &ModelRef,
        entry: Entry<T>,
        now_ms: u64,
    ) -> Result<Ticket, Shed<T>> {
        let is_full = self.entries >= self.settings.all_entries
            || entry.bytes > self.settings.all_bytes.saturating_sub(self.bytes);
        if is_full || !self.has_queue(model) {
            let own = (self.queues.get(model)).and_then(|queue| queue.wait_ms(&entry, now_ms));
            let retry_after_ms = own.unwrap_or(self.settings.retry_after_ms);
            return Err(Shed {
                why: Why::Full,
                retry_after_ms: retry_after_ms.clamp(1, MAX_RETRY_AFTER_MS),
                what: entry.what,
            });
        }
        let made = || Queue::new(self.settings);
        let queue = self.queues.entry(model.clone()).or_insert_with(made);
        let before = (queue.len(), queue.bytes());
        let pushed = queue.push(entry, now_ms);
        let after = (queue.len(), queue.bytes());
        self.count(before, after);
        pushed
    }

    /// As [`Queue::answered`], of one model. Where there is no room for its queue, nothing is learnt.
    pub fn answered(&mut self, model: &ModelRef, work: u32, took_ms: u64) {
        if self.has_queue(model) {
            let made = || Queue::new(self.settings);
            let queue = self.queues.entry(model.clone()).or_insert_with(made);
            queue.answered(work, took_ms);
        }
    }

    /// As [`Queue::settle`], of one model.
    pub fn settle(&mut self, model: &ModelRef, charge: &Charge, more: i64) {
        if let Some(queue) = self.queues.get_mut(model) {
            queue.settle(charge, more);
        }
    }

    /// As [`Queue::take_that`], of one model.
    pub fn take_that(
        &mut self,
        model: &ModelRef,
        can: impl Fn(&T) -> bool,
        now_ms: u64,
    ) -> Option<Turn<T>> {
        self.change(model, |queue| queue.take_that(can, now_ms))
    }

    /// The next one, of any model, whose time is over. Looks at each queue.
    pub fn take_late(&mut self, now_ms: u64) -> Option<T> {
        let is_late = |queue: &Queue<T>| queue.first_late_ms().is_some_and(|at| at <= now_ms);
        let mut models = self.queues.iter();
        let (model, _) = models.find(|(_, queue)| is_late(queue))?;
        let model = model.clone();
        self.change(&model, |queue| queue.take_late(now_ms))
    }

    /// As [`Queue::cancel`].
    pub fn cancel(&mut self, model: &ModelRef, ticket: Ticket, now_ms: u64) -> Option<T> {
        self.change(model, |queue| queue.cancel(ticket, now_ms))
    }

    /// As [`Queue::cancel_that`], of one model.
    pub fn cancel_that(
        &mut self,
        model: &ModelRef,
        which: impl Fn(&T) -> bool,
        now_ms: u64,
    ) -> Option<T> {
        self.change(model, |queue| queue.cancel_that(which, now_ms))
    }

    /// As [`Queue::passed`], of one model.
    pub fn passed(&mut self, model: &ModelRef, work: u32, now_ms: u64) {
        if let Some(queue) = self.queues.get_mut(model) {
            queue.passed(work, now_ms);
        }
    }

    /// When the first one's time is over. Looks at each queue.
    #[must_use]
    pub fn first_late_ms(&self) -> Option<u64> {
        self.queues.values().filter_map(Queue::first_late_ms).min()
    }

    /// The queue of a model, if anybody waited there.
    #[must_use]
    pub fn of(&self, model: &ModelRef) -> Option<&Queue<T>> {
        self.queues.get(model)
    }

    /// The models for which somebody waits.
    #[must_use]
    pub fn models(&self) -> Vec<ModelRef> {
        let busy = self.queues.iter().filter(|(_, queue)| !queue.is_empty());
        busy.map(|(model, _)| model.clone()).collect()
    }

    /// Requests of a priority that wait. Looks at each queue.
    #[must_use]
    pub fn waiting(&self, priority: Priority) -> usize {
        self.queues.values().map(|it| it.waiting(priority)).sum()
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    fn has_queue(&mut self, model: &ModelRef) -> bool {
        if self.queues.contains_key(model) || self.queues.len() < MAX_QUEUES {
            return true;
        }
        let mut queues = self.queues.iter();
        let idle = queues.find(|(_, queue)| queue.is_empty());
        let idle = idle.map(|(model, _)| model.clone());
        idle.is_some_and(|idle| self.queues.remove(&idle).is_some())
    }

    fn change<R>(
        &mut self,
        model: &ModelRef,
        change: impl FnOnce(&mut Queue<T>) -> Option<R>,
    ) -> Option<R> {
        let queue = self.queues.get_mut(model)?;
        let before = (queue.len(), queue.bytes());
        let done = change(queue);
        let after = (queue.len(), queue.bytes());
        self.count(before, after);
        done
    }

    fn count(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.entries = self.entries - before.0 + after.0;
        self.bytes = self.bytes - before.1 + after.1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::TenantId;

    fn model(n: usize) -> ModelRef {
        format!("m{n}@1.0").parse().expect("valid")
    }

    fn entry(tenant: usize, bytes: usize, turn_by_ms: u64) -> Entry<usize> {
        Entry {
            tenant: TenantId::new(format!("t{tenant}")).expect("valid"),
            weight: 1,
            priority: Priority::Normal,
            work: 1,
            bytes,
            turn_by_ms,
            margin_ms: 0,
            what: tenant,
        }
    }

    fn why(queues: &mut Queues<usize>, n: usize, entry: Entry<usize>) -> Option<Why> {
        queues.push(&model(n), entry, 0).err().map(|shed| shed.why)
    }

    #[test]
    fn all_models_together_hold_no_more_than_there_is_room_for() {
        let settings = QueueSettings {
            entries: 4,
            all_entries: 6,
            bytes: 400,
            all_bytes: 450,
            ..QueueSettings::default()
        };
        let mut queues = Queues::new(settings);
        assert_eq!(why(&mut queues, 0, entry(0, 300, 9)), None);
        assert_eq!(why(&mut queues, 1, entry(1, 150, 9)), None);
        assert_eq!(why(&mut queues, 2, entry(2, 1, 9)), Some(Why::Full));
        assert_eq!(
            queues.take_that(&model(1), |_| true, 1),
            Some(Turn::Serve(1))
        );
        for n in 2..7 {
            assert_eq!(why(&mut queues, n, entry(n, 1, 9)), None);
        }
        assert_eq!(why(&mut queues, 9, entry(9, 1, 9)), Some(Why::Full));
        assert_eq!((queues.len(), queues.bytes), (6, 305));
        assert_eq!(queues.waiting(Priority::Normal), 6);
        assert_eq!(queues.models().len(), 6, "one has nobody left");
    }

    #[test]
    fn whose_time_is_over_is_given_back_whichever_the_model() {
        let mut queues = Queues::new(QueueSettings::default());
        let mut ticket = None;
        for n in 0..9 {
            let entry = entry(n, 1, 100 + n as u64);
            ticket = queues.push(&model(n), entry, 0).ok();
        }
        assert_eq!(queues.first_late_ms(), Some(100));
        let late: Vec<usize> = std::iter::from_fn(|| queues.take_late(104)).collect();
        assert_eq!(late, [0, 1, 2, 3, 4]);
        let ticket = ticket.expect("it waits");
        assert_eq!(queues.cancel(&model(8), ticket, 105), Some(8));
        assert_eq!(queues.cancel(&model(8), ticket, 105), None);
        assert_eq!(queues.len(), 3);
    }

    #[test]
    fn how_long_answers_take_is_known_of_models_that_nobody_waited_for_and_no_others() {
        let mut queues: Queues<usize> = Queues::new(QueueSettings::default());
        for _ in 0..8 {
            queues.answered(&model(1), 2, 300);
        }
        let ms = |n| {
            queues
                .of(&model(n))
                .and_then(|it| it.answer(4))
                .map(|it| it.mean_ms)
        };
        assert_eq!((ms(1), ms(2)), (Some(600), None));
        for n in 2..MAX_QUEUES + 9 {
            queues.answered(&model(n), 2, 300);
        }
        assert_eq!(queues.queues.len(), MAX_QUEUES);
    }

    #[test]
    fn models_that_nobody_waits_for_make_room() {
        let settings = QueueSettings {
            all_entries: 10_000,
            ..QueueSettings::default()
        };
        let mut queues = Queues::new(settings);
        for n in 0..MAX_QUEUES {
            assert_eq!(why(&mut queues, n, entry(n, 0, 9)), None);
        }
        assert_eq!(why(&mut queues, 5_000, entry(1, 0, 9)), Some(Why::Full));
        assert_eq!(
            queues.take_that(&model(7), |_| true, 1),
            Some(Turn::Serve(7))
        );
        assert_eq!(why(&mut queues, 5_000, entry(1, 0, 9)), None);
        assert_eq!(queues.queues.len(), MAX_QUEUES);
        assert!(queues.of(&model(7)).is_none());
    }
}
