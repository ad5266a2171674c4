//! Requests that wait for a free place at a worker of their model. (SCH-5, SCH-7)
//!
//! A request enters before it is a job, so that one that is refused costs no disk. Who finds a place
//! free, and nobody waiting, goes on at once; who waits is called by [`Waiting::call`], which is asked
//! whenever a place may have become free. A turn counts as a taken place until its request is given
//! to a worker, which counts it from then on.
//!
//! A request that must stay in some regions has its turn when a place is free there: it takes none
//! that it cannot use, and holds nobody up who can. Who waits while nobody serves the model any more is
//! told so, as who comes then is.

mod turns;

use crate::policy::Effective;
use crate::queue::{
    Charge, Entry, Foretold, Priority, QueueSettings, Queues, Shed, Ticket, Turn as Next,
};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::{Digest, ModelRef, Region};
use tokio::sync::{Notify, oneshot};
use turns::Turns;

/// Who waits. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Waiting(Arc<Shared>);

struct Shared {
    room: Mutex<Room>,
    /// A place may be free.
    wake: Notify,
    metrics: Arc<OrchestratorMetrics>,
}

struct Room {
    queues: Queues<Waits>,
    /// Artifacts that are waited for, by model.
    digests: HashMap<ModelRef, Digest>,
    turns: Turns,
    /// Since when nobody serves a model in these regions for which somebody waits.
    unserved: HashMap<(ModelRef, Option<BTreeSet<Region>>), u64>,
}

/// Who waits.
struct Waits {
    tell: oneshot::Sender<Called>,
    rules: Arc<Effective>,
    charge: Charge,
}

/// Where a request may go; everywhere where nothing is said.
pub(super) type Within<'a> = Option<&'a BTreeSet<Region>>;

/// Places that are free, each asked for once.
struct Free<F> {
    ask: F,
    known: RefCell<Vec<(Option<BTreeSet<Region>>, u32)>>,
}

impl<F: Fn(Within<'_>) -> u32> Free<F> {
    fn new(ask: F) -> Self {
        Self {
            ask,
            known: RefCell::default(),
        }
    }

    fn within(&self, within: Within<'_>) -> u32 {
        let mut known = self.known.borrow_mut();
        if let Some((_, free)) = known.iter().find(|(it, _)| it.as_ref() == within) {
            return *free;
        }
        let free = (self.ask)(within);
        known.push((within.cloned(), free));
        free
    }

    /// Whether a place in these regions is left, turns of this model that were given counted.
    fn has_place(&self, turns: &Turns, model: &ModelRef, within: Within<'_>) -> bool {
        let here = self.within(within);
        let elsewhere = || self.within(None).saturating_sub(here);
        here > turns.within(model, within, elsewhere)
    }
}

/// What comes of waiting.
#[derive(Debug)]
enum Called {
    Turn(Turn, Spent),
    /// It has none.
    Vain(Vain),
}

/// Why a request that waited had no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vain {
    /// Its time is over.
    Late,
    /// Nobody serves its model any more.
    Unserved,
}

/// What a request that may wait gets.
pub(super) enum Entered {
    /// Its turn, at once.
    Turn(Turn),
    /// A place in the queue.
    Waits(Waiter),
    /// Nothing.
    Shed(Shed<()>),
}

impl Waiting {
    /// Nobody, by settings that were checked.
    pub(crate) fn new(settings: QueueSettings, metrics: Arc<OrchestratorMetrics>) -> Self {
        Self(Arc::new(Shared {
            room: Mutex::new(Room {
                queues: Queues::new(settings),
                digests: HashMap::new(),
                turns: Turns::default(),
                unserved: HashMap::new(),
            }),
            wake: Notify::new(),
            metrics,
        }))
    }

    /// A request comes. `free`: places at the workers of its model in these regions.
    pub(super) fn enter(
        &self,
        (model, digest): (&ModelRef, Digest),
        asks: Entry<Arc<Effective>>,
        free: impl Fn(Within<'_>) -> u32,
        now_ms: u64,
    ) -> Entered {
        let free = Free::new(free);
        let mut room = self.room();
        let has_place = |rules: &Effective| free.has_place(&room.turns, model, rules.regions());
        // Who waits for another place has no claim to this one.
        let is_first = || {
            let queue = room.queues.of(model);
            queue.is_none_or(|queue| !queue.any(|it| has_place(&it.rules)))
        };
        if has_place(&asks.what) && is_first() {
            room.queues.passed(model, asks.work, now_ms);
            return Entered::Turn(self.turn(&mut room, model, &asks.what));
        }
        let (tell, called) = oneshot::channel();
        let entry = asks.clone().with(Waits {
            tell,
            rules: asks.what.clone(),
            charge: Charge::from(&asks),
        });
        match room.queues.push(model, entry, now_ms) {
            Ok(ticket) => {
                room.digests.insert(model.clone(), digest);
                // Whoever calls those who wait looks after nobody while nobody does.
                self.wake();
                Entered::Waits(Waiter {
                    waiting: self.clone(),
                    model: model.clone(),
                    ticket,
                    called,
                    asks: asks.with(()),
                })
            }
            Err(shed) => {
                self.0.metrics.shed(shed.why.label());
                Entered::Shed(Shed {
                    why: shed.why,
                    retry_after_ms: shed.retry_after_ms,
                    what: (),
                })
            }
        }
    }

    /// Calls those whose turn it is. `free`: places at the workers of a model in these regions.
    pub(super) fn call(&self, free: impl Fn(&ModelRef, &Digest, Within<'_>) -> u32, now_ms: u64) {
        let mut called = Vec::new();
        {
            let mut room = self.room();
            while let Some(late) = room.queues.take_late(now_ms) {
                called.push((late, Called::Vain(Vain::Late)));
            }
            for model in room.queues.models() {
                let Some(digest) = room.digests.get(&model).copied() else {
                    continue;
                };
                let free = Free::new(|within: Within<'_>| free(&model, &digest, within));
                loop {
                    let Room { queues, turns, .. } = &mut *room;
                    let can = |it: &Waits| free.has_place(turns, &model, it.rules.regions());
                    match queues.take_that(&model, can, now_ms) {
                        None => break,
                        Some(Next::Late(late)) => called.push((late, Called::Vain(Vain::Late))),
                        Some(Next::Serve(next)) => {
                            let turn = self.turn(&mut room, &model, &next.rules);
                            let spent = self.spent(&model, next.charge.clone());
                            called.push((next, Called::Turn(turn, spent)));
                        }
                    }
                }
            }
            let room = &mut *room;
            (room.digests)
                .retain(|model, _| room.queues.of(model).is_some_and(|it| !it.is_empty()));
        }
        tell(called);
    }

    /// Sends those away who wait where nobody has served their model for so long. `serves`: whether
    /// somebody serves a model in these regions.
    pub(super) fn forsake(
        &self,
        serves: impl Fn(&ModelRef, &Digest, Within<'_>) -> bool,
        patience_ms: u64,
        now_ms: u64,
    ) {
        let mut forsaken = Vec::new();
        {
            let room = &mut *self.room();
            let mut unserved = HashMap::new();
            for (model, digest) in &room.digests {
                let served =
                    Free::new(|within: Within<'_>| u32::from(serves(model, digest, within)));
                let known = RefCell::new(&mut unserved);
                let is_forsaken = |it: &Waits| {
                    let within = it.rules.regions();
                    if served.within(within) > 0 {
                        return false;
                    }
                    let key = (model.clone(), within.cloned());
                    let since_ms = room.unserved.get(&key).copied().unwrap_or(now_ms);
                    known.borrow_mut().insert(key, since_ms);
                    now_ms.saturating_sub(since_ms) >= patience_ms
                };
                while let Some(gone) = room.queues.cancel_that(model, is_forsaken, now_ms) {
                    forsaken.push((gone, Called::Vain(Vain::Unserved)));
                }
            }
            room.unserved = unserved;
        }
        tell(forsaken);
    }

    /// An answer of so much work was whole so long after its turn.
    pub(super) fn answered(&self, model: &ModelRef, work: u32, took: Duration) {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.room().queues.answered(model, work, took_ms);
    }

    /// In which time a request of so much work, whose caller waits so long, must have its turn to be
    /// answered in time, as answers of late took: cautiously, and at most. How long its own will take
    /// nobody knows: half of the time may always be waited.
    pub(super) fn turn_within_ms(&self, model: &ModelRef, work: u32, left_ms: u64) -> (u64, u64) {
        let room = self.room();
        let queue = room.queues.of(model);
        let Foretold { mean_ms, most_ms } =
            (queue.and_then(|it| it.answer(work))).unwrap_or_default();
        let less = |answer_ms: u64| left_ms - answer_ms.min(left_ms / 2);
        (less(most_ms), less(mean_ms))
    }

    /// A place may be free.
    pub(super) fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Waits until a place may be free.
    pub(super) async fn woken(&self) {
        self.0.wake.notified().await;
    }

    /// Whether nobody waits for a model, and more places are free than those who were called will take.
    pub(super) fn has_room(&self, model: &ModelRef, free: u32) -> bool {
        let room = self.room();
        let is_empty = room.queues.of(model).is_none_or(|queue| queue.is_empty());
        is_empty && free > room.turns.of(model)
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.room().queues.is_empty()
    }

    /// Takes the counts of those who wait over into the metrics.
    pub(crate) fn count(&self) {
        let room = self.room();
        for priority in Priority::ALL {
            let count = room.queues.waiting(priority);
            self.0.metrics.set_waiting(priority.as_str(), count);
        }
    }

    fn turn(&self, room: &mut Room, model: &ModelRef, rules: &Arc<Effective>) -> Turn {
        room.turns.add(model, rules.regions());
        Turn {
            waiting: self.clone(),
            model: model.clone(),
            rules: rules.clone(),
        }
    }

    fn spent(&self, model: &ModelRef, charge: Charge) -> Spent {
        Spent {
            waiting: self.clone(),
            model: model.clone(),
            more: 1 - i64::from(charge.work.max(1)),
            charge,
        }
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who went away meanwhile gives its turn back.
fn tell(called: Vec<(Waits, Called)>) {
    for (waits, what) in called {
        let _ = waits.tell.send(what);
    }
}

/// A request that waits. Dropping it is going away.
pub(super) struct Waiter {
    waiting: Waiting,
    model: ModelRef,
    ticket: Ticket,
    called: oneshot::Receiver<Called>,
    /// What it asks for.
    asks: Entry<()>,
}

impl Waiter {
    /// How long one that comes now is to be expected to wait, where that is known.
    pub(super) fn estimate_ms(&self, now_ms: u64) -> Option<u64> {
        let room = self.waiting.room();
        let queue = room.queues.of(&self.model)?;
        queue.wait_ms(&self.asks, now_ms)
    }

    /// Its turn, or why it has none. Losing interest in the future and asking anew loses nothing.
    pub(super) async fn turn(&mut self) -> Result<(Turn, Spent), Vain> {
        match (&mut self.called).await {
            Ok(Called::Turn(turn, spent)) => Ok((turn, spent)),
            Ok(Called::Vain(why)) => Err(why),
            Err(_) => Err(Vain::Late),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let now_ms = crate::clock::now().mono_ms;
        let gone = (self.waiting.room().queues).cancel(&self.model, self.ticket, now_ms);
        drop(gone);
    }
}

/// A place at some worker. Dropping it gives it back.
pub(super) struct Turn {
    waiting: Waiting,
    model: ModelRef,
    rules: Arc<Effective>,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn({})", self.model)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let within = self.rules.regions();
        self.waiting.room().turns.remove(&self.model, within);
        self.waiting.wake();
    }
}

/// What a turn took of its tenant's share. Dropping it gives it back, unless it was settled, but for
/// the least that a turn is: who has many that come to nothing keeps others waiting, too.
pub(super) struct Spent {
    waiting: Waiting,
    model: ModelRef,
    charge: Charge,
    more: i64,
}

impl Spent {
    /// The turn was for so much more work than was said, or less.
    pub(super) fn settle(mut self, more: i64) {
        self.more = more;
    }
}

impl std::fmt::Debug for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spent({}, {:?})", self.model, self.charge)
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        let mut room = self.waiting.room();
        (room.queues).settle(&self.model, &self.charge, self.more);
    }
}

#[cfg(test)]
#[path = "waiting/tests.rs"]
mod tests;
