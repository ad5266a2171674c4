//! What is true of a few nodes, beside what a machine believes of them.

use crate::support::*;
use std::collections::BTreeMap;
use tether_presence::presence::STALL_MS;
use tether_presence::{Event, Now, Origin, Presence, Settings};
use tether_wire::beat::{EXPIRY_MS, MAX_SKEW_MS, Order};
use tether_wire::{Beat, Verified};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A node makes a beat, and it comes this way.
    Beats(u8, Way),
    /// A node says goodbye.
    Leaves(u8, Way),
    /// A node starts anew: its next beat is of a higher epoch.
    Restarts(u8),
    /// An earlier message comes once more, with this word about its clock.
    Replay(usize, i32),
    /// The last beat of a node is heard again on its link.
    LinkLost(u8),
    Revoke(u8),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// The machine starts anew, and has forgotten everything.
    Forget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Relayed,
    /// It does not come now; it may be replayed.
    Recorded,
}

/// A message as it was truly made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    n: u8,
    order: Order,
    /// True time.
    at_ms: u64,
    goodbye: bool,
    beat: Verified<Beat>,
}

/// What a machine was told and could know.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) presence: Presence,
    pub(crate) made: Vec<Made>,
    /// Milliseconds of true time.
    pub(crate) ms: u64,
    nodes: BTreeMap<u8, (Order, i64)>,
    started_ms: u64,
    /// Highest goodbye that came since the machine started.
    goodbyes: BTreeMap<u8, Order>,
    /// True time of the last beat that came over the node's own link since then.
    direct: BTreeMap<u8, u64>,
    revoked: Vec<u8>,
}

/// Sealed beats, made once: signing is what takes the time.
pub(crate) type Cache = BTreeMap<(u8, Order, u64, bool), Verified<Beat>>;

impl Model {
    /// Nodes with the skew of their clocks.
    pub(crate) fn new(skews: &[i64]) -> Self {
        let numbered = (1..).zip(skews);
        Self {
            presence: Presence::new(Settings::default(), at(0)),
            made: Vec::new(),
            ms: 1,
            nodes: numbered
                .map(|(n, skew)| (n, (Order { epoch: 1, seq: 0 }, *skew)))
                .collect(),
            started_ms: 0,
            goodbyes: BTreeMap::new(),
            direct: BTreeMap::new(),
            revoked: Vec::new(),
        }
    }

    fn now(&self) -> Now {
        at(self.ms)
    }

    pub(crate) fn step(&mut self, step: Step, cache: &mut Cache) {
        // No two things happen in one millisecond.
        self.ms += 1;
        match step {
            Step::Beats(n, way) => self.make(n, false, way, cache),
            Step::Leaves(n, way) => self.make(n, true, way, cache),
            Step::Restarts(n) => {
                let (order, _) = self.nodes.get_mut(&n).expect("a node");
                *order = Order {
                    epoch: order.epoch + 1,
                    seq: 0,
                };
            }
            Step::Replay(which, ahead_ms) => {
                if let Some(made) = self.made.get(which).cloned() {
                    self.comes(&made, Origin::Relayed { ahead_ms });
                }
            }
            Step::LinkLost(n) => self.handle(Event::LinkLost(id(n))),
            Step::Revoke(n) => {
                self.revoked.push(n);
                self.handle(Event::Revoked(id(n)));
            }
            // In steps, the first one from the last thing that happened: what is longer than a stall
            // would be nobody's silence.
            Step::Wait(ms) => {
                self.handle(Event::Tick);
                let end = self.ms + ms;
                while self.ms < end {
                    self.ms = (self.ms + STALL_MS).min(end);
                    self.handle(Event::Tick);
                }
            }
            Step::Forget => {
                self.presence = Presence::new(Settings::default(), self.now());
                self.started_ms = self.ms;
                self.goodbyes.clear();
                self.direct.clear();
                // What an operator revoked is not forgotten: it is told again at the start.
                for n in self.revoked.clone() {
                    self.handle(Event::Revoked(id(n)));
                }
            }
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.presence.handle(event, now, &mut Vec::new());
    }

    fn make(&mut self, n: u8, goodbye: bool, way: Way, cache: &mut Cache) {
        let (order, skew) = self.nodes.get_mut(&n).expect("a node");
        order.seq += 1;
        let (order, at_ms) = (*order, self.ms);
        let issued = i64::try_from(at_ms).expect("small") + *skew;
        let key = (n, order, START.saturating_add_signed(issued), goodbye);
        let make = if goodbye {
            crate::support::goodbye
        } else {
            beat
        };
        let beat = cache
            .entry(key)
            .or_insert_with(|| make(n, order.epoch, order.seq, issued));
        let made = Made {
            n,
            order,
            at_ms,
            goodbye,
            beat: beat.clone(),
        };
        self.made.push(made.clone());
        match way {
            Way::Direct => self.comes(&made, Origin::Direct),
            Way::Relayed => self.comes(&made, relayed(0)),
            Way::Recorded => {}
        }
    }

    fn comes(&mut self, made: &Made, origin: Origin) {
        if made.goodbye {
            let last = self.goodbyes.entry(made.n).or_default();
            *last = made.order.max(*last);
        }
        if origin == Origin::Direct {
            self.direct.insert(made.n, self.ms);
        }
        let (beat, card) = (made.beat.clone(), None);
        self.handle(Event::Beat { beat, card, origin });
    }

    /// Nobody is shown as live without having lived, and nobody after a goodbye or revocation.
    pub(crate) fn assert_no_ghost(&self, history: &[Step]) {
        let bound = EXPIRY_MS + 2 * MAX_SKEW_MS + 200;
        for (n, (_, skew)) in &self.nodes {
            let Some(seen) = self.presence.get(&id(*n)) else {
                continue;
            };
            if !seen.is_live() {
                continue;
            }
            let story = || format!("node {n} at {} ms after {history:?}", self.ms);
            assert!(!self.revoked.contains(n), "revoked: {}", story());
            let goodbye = self.goodbyes.get(n).copied().unwrap_or_default();
            let proof = (self.made.iter()).any(|made| {
                let since_start = made.at_ms.saturating_add_signed(*skew) > self.started_ms;
                made.n == *n
                    && !made.goodbye
                    && made.order > goodbye
                    && made.at_ms + bound > self.ms
                    && (since_start || self.direct.contains_key(n))
            });
            assert!(proof, "a ghost: {}", story());
        }
    }

    /// Nobody that beats over its own link, and was neither revoked nor superseded, is missing.
    pub(crate) fn assert_alive(&self, n: u8, history: &[Step]) {
        let seen = self.presence.get(&id(n));
        assert!(
            seen.is_some_and(|it| it.is_live()),
            "missing: {n} after {history:?}"
        );
    }

    pub(crate) fn is_revoked(&self, n: u8) -> bool {
        self.revoked.contains(&n)
    }
}
