//! Some orchestrators and workers on one clock; batches travel through the codec of the wire.

use crate::support::*;
use std::collections::{BTreeMap, BTreeSet};
use tether_presence::{
    Effect, Event, Input, Now, Origin, Output, Rejected, Settings, Signatures, Spread, check,
};
use tether_wire::beat::NodeState;
use tether_wire::spread::Batch;
use tether_wire::{Beat, NodeId, Role, Verified, codec};

/// Milliseconds that a batch takes.
const DELAY_MS: u64 = 20;

pub(crate) struct Site {
    pub(crate) spread: Spread,
    /// By how many milliseconds its clock is ahead.
    pub(crate) skew_ms: i64,
    pub(crate) effects: Vec<Effect>,
}

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) skew_ms: i64,
    pub(crate) role: Role,
    /// Orchestrators that it is linked with.
    pub(crate) links: Vec<u8>,
    /// Milliseconds after a multiple of the interval at which it beats; nothing when it is dead.
    pub(crate) beats_at: Option<u64>,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) ms: u64,
    pub(crate) sites: BTreeMap<u8, Site>,
    pub(crate) nodes: BTreeMap<u8, Node>,
    pub(crate) links: BTreeSet<(u8, u8)>,
    under_way: Vec<(u64, u8, u8, Batch)>,
    /// Batches between these are lost, though their link is up.
    pub(crate) lossy: BTreeSet<(u8, u8)>,
    /// Those who take no control messages of others.
    pub(crate) deaf: BTreeSet<u8>,
    pub(crate) sent_beats: usize,
    pub(crate) sent_controls: usize,
    pub(crate) sent_bytes: usize,
    pub(crate) recorded: Vec<Verified<Beat>>,
}

/// A control message that says what its bytes are.
pub(crate) fn control(sealed: &[u8]) -> Input {
    Input::Control {
        id: tether_wire::Digest::of(sealed),
        sealed: sealed.to_vec(),
        urgent: false,
    }
}

/// One that takes something back.
pub(crate) fn urgent(sealed: &[u8]) -> Input {
    Input::Control {
        id: tether_wire::Digest::of(sealed),
        sealed: sealed.to_vec(),
        urgent: true,
    }
}

impl World {
    /// Orchestrators 101, 102, …, all linked, and nobody else.
    pub(crate) fn full_mesh(count: u8) -> Self {
        let mut world = Self::default();
        for n in 101..101 + count {
            world.start(n);
        }
        for a in 101..101 + count {
            for b in a + 1..101 + count {
                world.link(a, b);
            }
        }
        world
    }

    pub(crate) fn now_of(&self, n: u8) -> Now {
        let skew = self.sites.get(&n).map_or(0, |site| site.skew_ms);
        self.now_with(skew)
    }

    fn now_with(&self, skew_ms: i64) -> Now {
        Now {
            unix_ms: (START + self.ms).saturating_add_signed(skew_ms),
            mono_ms: BOOT + self.ms,
        }
    }

    pub(crate) fn start(&mut self, n: u8) {
        self.start_with(n, 0, Settings::default());
    }

    pub(crate) fn start_with(&mut self, n: u8, skew_ms: i64, settings: Settings) {
        let now = self.now_with(skew_ms);
        let site = Site {
            spread: Spread::new(id(n), settings, now, u64::from(n)),
            skew_ms,
            effects: Vec::new(),
        };
        self.sites.insert(n, site);
        self.node(n, Role::Orchestrator, &[n]);
    }

    /// A node that beats from now on.
    pub(crate) fn node(&mut self, n: u8, role: Role, links: &[u8]) {
        let node = Node {
            epoch: self.ms + 1,
            seq: 0,
            skew_ms: self.sites.get(&n).map_or(0, |site| site.skew_ms),
            role,
            links: links.to_vec(),
            beats_at: Some(self.ms % T),
        };
        self.nodes.insert(n, node);
    }

    pub(crate) fn worker(&mut self, n: u8, links: &[u8]) {
        self.node(n, Role::Worker, links);
    }

    pub(crate) fn link(&mut self, a: u8, b: u8) {
        self.links.insert((a.min(b), a.max(b)));
        for (from, to) in [(a, b), (b, a)] {
            self.input(
                from,
                Input::PeerUp {
                    peer: id(to),
                    near: true,
                },
            );
        }
    }

    pub(crate) fn cut(&mut self, a: u8, b: u8) {
        self.links.remove(&(a.min(b), a.max(b)));
        self.under_way
            .retain(|(_, from, to, _)| !([*from, *to].contains(&a) && [*from, *to].contains(&b)));
        for (from, to) in [(a, b), (b, a)] {
            self.input(from, Input::PeerDown(id(to)));
        }
    }

    /// Dies without a word; its orchestrators see their links break.
    pub(crate) fn kill(&mut self, n: u8) {
        let node = self.nodes.get_mut(&n).expect("a node");
        node.beats_at = None;
        for site in node.links.clone() {
            self.input(site, Input::Own(Event::LinkLost(id(n))));
        }
    }

    pub(crate) fn say_goodbye(&mut self, n: u8) {
        self.beat(n, NodeState::Leaving);
        self.nodes.get_mut(&n).expect("a node").beats_at = None;
    }

    pub(crate) fn beat(&mut self, n: u8, state: NodeState) {
        let ms = i64::try_from(self.ms).expect("small");
        let node = self.nodes.get_mut(&n).expect("a node");
        node.seq += 1;
        let node = node.clone();
        let card = role_card(n, 1, node.role);
        let plain = plain(n, node.epoch, node.seq, ms + node.skew_ms);
        let beat = seal(
            n,
            &Beat {
                state,
                card: card.digest(),
                ..plain
            },
        );
        self.recorded.push(beat.clone());
        let card = (node.seq == 1 || state == NodeState::Starting).then_some(card);
        for site in node.links {
            let (beat, card, origin) = (beat.clone(), card.clone(), Origin::Direct);
            self.input(site, Input::Own(Event::Beat { beat, card, origin }));
        }
    }

    pub(crate) fn input(&mut self, n: u8, input: Input) {
        let now = self.now_of(n);
        let Some(site) = self.sites.get_mut(&n) else {
            return;
        };
        let mut outputs = Vec::new();
        site.spread.handle(input, now, &mut outputs);
        for output in outputs {
            match output {
                Output::Effect(Effect::WantCard { node, .. }) => self.push_card(n, node),
                Output::Effect(effect) => {
                    self.sites.get_mut(&n).expect("there").effects.push(effect)
                }
                Output::Send { to, batch } => self.send(n, to, batch),
            }
        }
    }

    /// A node that is asked for its card over its own link gives it.
    fn push_card(&mut self, site: u8, node: NodeId) {
        let asked = (self.nodes.iter()).find(|(n, _)| id(**n) == node);
        let Some((n, role)) = asked.map(|(n, it)| (*n, it.role)) else {
            return;
        };
        self.input(site, Input::Own(Event::Card(role_card(n, 1, role))));
    }

    fn send(&mut self, from: u8, to: NodeId, batch: Batch) {
        self.sent_beats += batch.beats.len();
        self.sent_controls += batch.controls.len();
        let bytes = codec::encode(&batch);
        self.sent_bytes += bytes.len();
        let read = Batch::decode(&bytes).expect("within the limits of the wire");
        let to = *self.sites.keys().find(|n| id(**n) == to).expect("a site");
        self.input(from, Input::Written(id(to)));
        if self.links.contains(&(from.min(to), from.max(to))) && !self.lossy.contains(&(from, to)) {
            self.under_way.push((self.ms + DELAY_MS, from, to, read));
        }
    }

    pub(crate) fn deliver(&mut self, from: u8, to: u8, mut batch: Batch) {
        for sealed in std::mem::take(&mut batch.controls) {
            if !self.deaf.contains(&to) {
                self.input(to, control(&sealed));
            }
        }
        let now = self.now_of(to);
        let Some(site) = self.sites.get(&to) else {
            return;
        };
        let verifier = signatures();
        let mut checked =
            check::sift(batch, &site.spread).verify(&Admitting(verifier), now.unix_ms);
        let from = id(from);
        let batch = std::mem::take(&mut checked);
        self.input(to, Input::Batch { from, batch });
    }

    /// Goes on for this long, in steps of ten milliseconds.
    pub(crate) fn run(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.ms < end {
            let beating: Vec<u8> = (self.nodes.iter())
                .filter(|(_, node)| node.beats_at == Some(self.ms % T))
                .map(|(n, _)| *n)
                .collect();
            for n in beating {
                self.beat(n, NodeState::Serving);
            }
            let (due, later) = std::mem::take(&mut self.under_way)
                .into_iter()
                .partition(|it| it.0 <= self.ms);
            self.under_way = later;
            let due: Vec<(u64, u8, u8, Batch)> = due;
            for (_, from, to, batch) in due {
                self.deliver(from, to, batch);
            }
            let sites: Vec<u8> = self.sites.keys().copied().collect();
            for site in sites {
                self.input(site, Input::Tick);
            }
            self.ms += 10;
        }
    }

    /// The nodes that an orchestrator would choose from.
    pub(crate) fn routable(&self, site: u8) -> BTreeSet<u8> {
        let presence = self.sites[&site].spread.presence();
        (self.nodes.keys())
            .filter(|n| {
                presence
                    .get(&id(**n))
                    .is_some_and(|seen| seen.is_routable())
            })
            .copied()
            .collect()
    }

    pub(crate) fn alive(&self) -> BTreeSet<u8> {
        let beating = self
            .nodes
            .iter()
            .filter(|(_, node)| node.beats_at.is_some());
        beating.map(|(n, _)| *n).collect()
    }

    #[track_caller]
    pub(crate) fn assert_equal_views(&self) {
        for site in self.sites.keys() {
            assert_eq!(
                self.routable(*site),
                self.alive(),
                "at {site}, after {} ms",
                self.ms
            );
        }
    }

    pub(crate) fn take_effects(&mut self, site: u8) -> Vec<Effect> {
        std::mem::take(&mut self.sites.get_mut(&site).expect("a site").effects)
    }
}

/// Cards of every role are good here: the tests of admission are elsewhere.
pub(crate) struct Admitting(pub(crate) Signatures);

impl tether_presence::Verifier for Admitting {
    fn beat(&self, sealed: &tether_wire::Signed<Beat>) -> Result<Verified<Beat>, Rejected> {
        self.0.beat(sealed)
    }
    fn card(
        &self,
        sealed: &tether_wire::Signed<tether_wire::Card>,
        _: u64,
    ) -> Result<tether_presence::AdmittedCard, Rejected> {
        let card = sealed
            .verify(&mesh().id)
            .map_err(|error| tether_presence::admission::reason(&error))?;
        Ok(tether_presence::AdmittedCard::new(
            card,
            tether_wire::Tier::Untrusted,
            None,
        ))
    }
}
