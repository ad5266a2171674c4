//! Requests that wait for a worker of their model, in which order they come to their turn, and which
//! are told at once that they would wait in vain. Pure. (SCH-5, SCH-7)
//!
//! * **Shares.** Work is divided among priorities by their weights, and among the tenants that wait
//!   in one by theirs, both by start-time fair queueing (`fair`); a tenant's own requests keep
//!   their order. How much work one is nobody knows when it has its turn: what it turns out to be
//!   is made good in its tenant's next turns. So a tenant with one request at a time is behind at
//!   most one request of each other tenant, however many they have.
//! * **No starvation.** While requests of low priority wait they get their weight's part of the
//!   work: with the defaults 1 of 21 parts beside normal and high ones.
//! * **Deadlines.** What has no turn by its time is given back then, and no worker sees it. What
//!   could not have its turn by its time is refused when it comes, by the wait that is to be
//!   expected of the rate seen (`rate`) and the tenant's share of it. That time is the caller's less
//!   that of an answer, as those of late took (`lasting`): less a long one's for who comes, and less
//!   a usual one's for who was let in, so that what is foretold wrongly is seldom given up.
//! * **Room.** Requests and bytes are bounded, for each model and for all. A tenant has at most its
//!   part, and never more than what is left free (A. K. Choudhury, E. L. Hahne, "Dynamic Queue
//!   Length Thresholds for Shared-Memory Packet Switches", 1998): several that flood leave room for
//!   one that does not.
//! * **`Retry-After`** is the time in which what now waits before a request will have had its turn.

mod fair;
mod lasting;
mod line;
mod models;
mod rate;
mod settings;

pub use lasting::Foretold;
pub use models::{MAX_QUEUES, Queues};
pub use settings::QueueSettings;

use fair::Fair;
use lasting::Lasting;
use line::Lane;
use rate::Rate;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tether_wire::TenantId;

/// The largest weight of a tenant.
pub const MAX_WEIGHT: u32 = 1_000;
/// The longest that callers are told to wait.
pub const MAX_RETRY_AFTER_MS: u64 = 60_000;

/// So much longer than foretold a wait may be and still be in time: what is let in at the very edge
/// would be late half the time.
const CAUTION: f64 = 1.2;

/// What goes first. The least comes first in lists.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Somebody waits for it, and for nothing else.
    High,
    /// What nobody said more about.
    #[default]
    Normal,
    /// Batches.
    Low,
}

impl Priority {
    /// All of them, the first first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// Its name, in files and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    fn at(self) -> usize {
        match self {
            Self::High => 0,
            Self::Normal => 1,
            Self::Low => 2,
        }
    }
}

/// A request that is to wait.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// Whose it is.
    pub tenant: TenantId,
    /// The tenant's weight among others, from 1 to [`MAX_WEIGHT`]; the last one holds for all that
    /// it has waiting.
    pub weight: u32,
    /// What goes first.
    pub priority: Priority,
    /// How much work it is, at least 1, in any unit that all share: tokens, for example.
    pub work: u32,
    /// Bytes that it holds.
    pub bytes: usize,
    /// When its turn is of no use any more: its deadline, less the time of an answer.
    pub turn_by_ms: u64,
    /// So much before that its turn must be foretold when it comes, or it may not wait: what is let
    /// in shall be answered, also where others come after it and answers take longer.
    pub margin_ms: u64,
    /// The request.
    pub what: T,
}

impl<T> Entry<T> {
    /// The same, for something else.
    pub(crate) fn with<U>(self, what: U) -> Entry<U> {
        Entry {
            tenant: self.tenant,
            weight: self.weight,
            priority: self.priority,
            work: self.work,
            bytes: self.bytes,
            turn_by_ms: self.turn_by_ms,
            margin_ms: self.margin_ms,
            what,
        }
    }
}

/// What a turn takes of a tenant's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Whose it was.
    pub tenant: TenantId,
    /// The tenant's weight.
    pub weight: u32,
    /// Among which others it waited.
    pub priority: Priority,
    /// How much work it was said to be.
    pub work: u32,
}

impl<T> From<&Entry<T>> for Charge {
    fn from(entry: &Entry<T>) -> Self {
        Self {
            tenant: entry.tenant.clone(),
            weight: entry.weight,
            priority: entry.priority,
            work: entry.work,
        }
    }
}

/// A request that waits. Numbers grow with each that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its turn would come too late.
    TooLate,
    /// Its tenant has its part of the queue waiting.
    TenantFull,
    /// The queue is full.
    Full,
}

impl Why {
    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::TooLate => "too-late",
            Self::TenantFull => "tenant-full",
            Self::Full => "full",
        }
    }
}

/// A request that may not wait.
#[derive(Debug, PartialEq, Eq)]
pub struct Shed<T> {
    /// Why.
    pub why: Why,
    /// When what now waits before it will have had its turn.
    pub retry_after_ms: u64,
    /// The request.
    pub what: T,
}

/// What leaves a queue by itself.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<T> {
    /// It is its turn.
    Serve(T),
    /// Its time is over; its turn did not come.
    Late(T),
}

/// The requests that wait for one model.
#[derive(Debug)]
pub struct Queue<T> {
    settings: QueueSettings,
    waiting: HashMap<Ticket, Entry<T>>,
    by_time: BTreeSet<(u64, Ticket)>,
    priorities: Fair<Priority>,
    lanes: [Lane; 3],
    tenants: BTreeMap<TenantId, Held>,
    bytes: usize,
    rate: Rate,
    lasting: Lasting,
    next: u64,
}

/// What a tenant has waiting.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    entries: usize,
    bytes: usize,
}

impl<T> Queue<T> {
    /// An empty one, by settings that were checked.
    #[must_use]
    pub fn new(settings: QueueSettings) -> Self {
        Self {
            settings,
            waiting: HashMap::new(),
            by_time: BTreeSet::new(),
            priorities: Fair::default(),
            lanes: Default::default(),
            tenants: BTreeMap::new(),
            bytes: 0,
            rate: Rate::default(),
            lasting: Lasting::default(),
            next: 0,
        }
    }

    /// Other settings, for what comes from now on.
    pub fn configure(&mut self, settings: QueueSettings) {
        self.settings = settings;
    }

    /// Lets a request wait.
    ///
    /// # Errors
    /// There is no room for it, or it would wait in vain.
    pub fn push(&mut self, entry: Entry<T>, now_ms: u64) -> Result<Ticket, Shed<T>> {
        if let Some(why) = self.refuses(&entry, now_ms) {
            return Err(Shed {
                why,
                retry_after_ms: self.retry_after_ms(why, &entry, now_ms),
                what: entry.what,
            });
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.rate.waits(now_ms);
        self.priorities.join(&entry.priority);
        self.lanes[entry.priority.at()].join(ticket, &entry);
        self.by_time.insert((entry.turn_by_ms, ticket));
        let held = self.tenants.entry(entry.tenant.clone()).or_default();
        held.entries += 1;
        held.bytes += entry.bytes;
        self.bytes += entry.bytes;
        self.waiting.insert(ticket, entry);
        Ok(ticket)
    }

    /// The next one: first all whose time is over, then whoever's turn it is. To be asked when
    /// there is a free place at a worker.
    pub fn take(&mut self, now_ms: u64) -> Option<Turn<T>> {
        self.take_that(|_| true, now_ms)
    }

    /// The same of those that can have that place: who may not go there waits on, and holds nobody up.
    /// Only the first of each tenant is looked at.
    pub fn take_that(&mut self, can: impl Fn(&T) -> bool, now_ms: u64) -> Option<Turn<T>> {
        if let Some(late) = self.take_late(now_ms) {
            return Some(Turn::Late(late));
        }
        let (priority, ticket) = self.next_that(can)?;
        let entry = self.remove(ticket)?;
        let lane = &mut self.lanes[priority.at()];
        lane.serve(ticket, &entry);
        let more = !lane.is_empty();
        let weight = self.settings.weight(priority);
        self.priorities.serve(&priority, entry.work, weight, more);
        self.rate.turn(entry.work, !self.is_empty(), now_ms);
        Some(Turn::Serve(entry.what))
    }

    /// Whether one of them can have a place.
    pub fn any(&self, can: impl Fn(&T) -> bool) -> bool {
        self.next_that(can).is_some()
    }

    fn next_that(&self, can: impl Fn(&T) -> bool) -> Option<(Priority, Ticket)> {
        let can = |ticket: &Ticket| self.waiting.get(ticket).is_some_and(|it| can(&it.what));
        self.priorities.in_order().find_map(|priority| {
            let mut firsts = self.lanes[priority.at()].firsts();
            Some((*priority, firsts.find(can)?))
        })
    }

    /// The next one whose time is over.
    pub fn take_late(&mut self, now_ms: u64) -> Option<T> {
        let (turn_by_ms, ticket) = *self.by_time.first()?;
        if turn_by_ms > now_ms {
            return None;
        }
        self.cancel(ticket, now_ms)
    }

    /// A request that waits no longer, whatever the reason; nothing if it does not wait any more.
    pub fn cancel(&mut self, ticket: Ticket, now_ms: u64) -> Option<T> {
        let entry = self.remove(ticket)?;
        let lane = &mut self.lanes[entry.priority.at()];
        lane.leave(ticket, &entry);
        if lane.is_empty() {
            self.priorities.leave(&entry.priority);
        }
        if self.is_empty() {
            self.rate.idle(now_ms);
        }
        Some(entry.what)
    }

    /// The next of those, whoever it is, that waits no longer; its tenant's share is as it was.
    pub fn cancel_that(&mut self, which: impl Fn(&T) -> bool, now_ms: u64) -> Option<T> {
        let (_, ticket) = self.next_that(which)?;
        self.cancel(ticket, now_ms)
    }

    /// A turn of so much work was given to one that need not wait, since it can have a place that nobody
    /// who waits can have: the workers go on, though those who wait do not.
    pub fn passed(&mut self, work: u32, now_ms: u64) {
        if !self.is_empty() {
            self.rate.turn(work, true, now_ms);
        }
    }

    /// When the first one's time is over.
    #[must_use]
    pub fn first_late_ms(&self) -> Option<u64> {
        self.by_time.first().map(|(turn_by_ms, _)| *turn_by_ms)
    }

    /// An answer of so much work was whole so long after its turn.
    pub fn answered(&mut self, work: u32, took_ms: u64) {
        self.lasting.answered(work, took_ms);
    }

    /// What one had its turn for was so much more work than was said, or less: its tenant's next turns
    /// come so much later, or sooner.
    pub fn settle(&mut self, charge: &Charge, more: i64) {
        let priority = charge.priority;
        let weight = charge.weight.clamp(1, MAX_WEIGHT);
        self.lanes[priority.at()].settle(&charge.tenant, more, weight);
        let weight = self.settings.weight(priority);
        self.priorities.settle(&priority, more, weight);
    }

    /// How long an answer of so much work is to be expected to take from its turn on; nothing while
    /// too little is known.
    #[must_use]
    pub fn answer(&self, work: u32) -> Option<Foretold> {
        self.lasting.of(work)
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes that they hold.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Requests of a priority that wait.
    #[must_use]
    pub fn waiting(&self, priority: Priority) -> usize {
        self.lanes[priority.at()].len()
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Entry<T>> {
        let entry = self.waiting.remove(&ticket)?;
        self.by_time.remove(&(entry.turn_by_ms, ticket));
        self.bytes -= entry.bytes;
        if let Some(held) = self.tenants.get_mut(&entry.tenant) {
            held.entries -= 1;
            held.bytes -= entry.bytes;
            if held.entries == 0 {
                self.tenants.remove(&entry.tenant);
            }
        }
        Some(entry)
    }

    fn refuses(&self, entry: &Entry<T>, now_ms: u64) -> Option<Why> {
        let free = Held {
            entries: self.settings.entries.saturating_sub(self.len()),
            bytes: self.settings.bytes.saturating_sub(self.bytes),
        };
        if free.entries == 0 || entry.bytes > free.bytes {
            return Some(Why::Full);
        }
        let held = self.tenants.get(&entry.tenant).copied().unwrap_or_default();
        let part = self.settings.tenant_part();
        let most_entries = part.entries.min(free.entries).max(1);
        let most_bytes = part.bytes.min(free.bytes);
        // Its first may be as large as there is room for.
        let is_over = held.entries > 0
            && (held.entries >= most_entries || held.bytes + entry.bytes > most_bytes);
        if is_over {
            return Some(Why::TenantFull);
        }
        let wait = self.wait(entry, now_ms).unwrap_or_default();
        let turn_ms = now_ms
            .saturating_add(millis(wait * CAUTION))
            .saturating_add(entry.margin_ms);
        (turn_ms >= entry.turn_by_ms).then_some(Why::TooLate)
    }

    /// How long a request would wait for its turn, at its tenant's share of the rate that is seen;
    /// nothing while none is known.
    #[must_use]
    pub fn wait_ms<U>(&self, entry: &Entry<U>, now_ms: u64) -> Option<u64> {
        self.wait(entry, now_ms).map(millis)
    }

    fn wait<U>(&self, entry: &Entry<U>, now_ms: u64) -> Option<f64> {
        let per_ms = self.rate.per_ms(now_ms)?;
        let parts = |priority: Priority| {
            let counts = priority == entry.priority || !self.lanes[priority.at()].is_empty();
            f64::from(if counts {
                self.settings.weight(priority)
            } else {
                0
            })
        };
        let all: f64 = Priority::ALL.into_iter().map(parts).sum();
        let lane = &self.lanes[entry.priority.at()];
        let share = parts(entry.priority) / all * lane.share(entry);
        let work = f64::from(entry.work.max(1));
        // Its own work is done at its tenant's share as well, and begins when the worker is free.
        Some((lane.work_of(&entry.tenant) + work) / (per_ms * share) - work / per_ms)
    }

    fn retry_after_ms(&self, why: Why, entry: &Entry<T>, now_ms: u64) -> u64 {
        let wait_ms = match why {
            Why::TooLate | Why::TenantFull => self.wait_ms(entry, now_ms),
            Why::Full => {
                let work: f64 = self.lanes.iter().map(Lane::work).sum();
                let per_ms = self.rate.per_ms(now_ms);
                per_ms.map(|per_ms| millis(work / per_ms))
            }
        };
        let wait_ms = wait_ms.unwrap_or(self.settings.retry_after_ms);
        wait_ms.clamp(1, MAX_RETRY_AFTER_MS)
    }
}

impl QueueSettings {
    fn weight(&self, priority: Priority) -> u32 {
        match priority {
            Priority::High => self.high_weight,
            Priority::Normal => self.normal_weight,
            Priority::Low => self.low_weight,
        }
    }

    fn tenant_part(&self) -> Held {
        let percent = usize::try_from(self.tenant_percent).unwrap_or(100);
        let part = |of: usize| of.saturating_mul(percent) / 100;
        Held {
            entries: part(self.entries),
            bytes: part(self.bytes),
        }
    }
}

fn millis(ms: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a cast of what is too large or negative is the nearest number"
    )]
    let ms = ms.ceil() as u64;
    ms
}

#[cfg(test)]
#[path = "queue/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "queue/simulated.rs"]
mod simulated;
