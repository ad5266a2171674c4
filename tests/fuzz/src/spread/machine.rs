//! One orchestrator's state machine, and what must hold of it after each thing that happens.

use super::cast::{self, Remembering};
use crate::known::NOW_MS;
use std::collections::{BTreeMap, BTreeSet};
use tether_presence::presence::TOMBSTONE_MS;
use tether_presence::spread::{MAX_CONTROLS, ROOM};
use tether_presence::{Effect, Event, Input, Now, Output, Settings, Spread, Verifier, check};
use tether_wire::beat::{EXPIRY_MS, MAX_SKEW_MS, NodeState, Order};
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::spread::{Batch, Push};
use tether_wire::{Digest, NodeId, Role, Signed, codec};

/// So small that a story of a few nodes goes beyond it.
const SETTINGS: Settings = Settings {
    max_nodes: 5,
    max_orchestrators: 2,
    max_gateways: 1,
    max_revoked: 3,
};

pub(crate) struct Machine {
    pub(crate) spread: Spread,
    pub(crate) now: Now,
    /// The highest order seen of each node that is remembered.
    floors: BTreeMap<NodeId, Order>,
    revoked: BTreeSet<NodeId>,
    /// Who is live and who is suspect, as whoever listens to the effects believes.
    told_live: BTreeSet<NodeId>,
    told_suspect: BTreeSet<NodeId>,
    in_flight: BTreeMap<NodeId, usize>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let now = Now {
            unix_ms: NOW_MS,
            mono_ms: 777_000,
        };
        // It is an orchestrator that plays no other part.
        let own = NodeId([200; 32]);
        Self {
            spread: Spread::new(own, SETTINGS, now, 1),
            now,
            floors: BTreeMap::new(),
            revoked: BTreeSet::new(),
            told_live: BTreeSet::new(),
            told_suspect: BTreeSet::new(),
            in_flight: BTreeMap::new(),
        }
    }

    /// A push over the link of `peer`; whether its beat was taken.
    pub(crate) fn push(&mut self, push: Push, peer: NodeId, by: &impl Verifier) -> bool {
        match check::push(push, peer, by, &self.spread, self.now.unix_ms) {
            Ok((event, _)) => {
                self.handle(Input::Own(event));
                true
            }
            Err(_) => false,
        }
    }

    /// A batch over the link of `from`; whether anything of it was found good.
    pub(crate) fn batch(&mut self, batch: Batch, from: NodeId, by: &impl Verifier) -> bool {
        let sealed = batch.beats.len() + batch.cards.len();
        let sifted = check::sift(batch, &self.spread);
        assert!(sifted.costs() <= 2 * sealed, "more work than was sent");
        let checked = sifted.verify(by, self.now.unix_ms);
        let counted = checked.accepted() + checked.skipped() + checked.rejected().len();
        assert!(counted <= sealed, "counted twice");
        let good = checked.accepted() + checked.skipped() > 0;
        let batch = checked;
        self.handle(Input::Batch { from, batch });
        good
    }

    pub(crate) fn revoke(&mut self, node: NodeId) {
        let may = self.revoked.len() < SETTINGS.max_revoked;
        if may {
            self.revoked.insert(node);
        }
        self.handle(Input::Own(Event::Revoked(node)));
    }

    /// Time passes, with a look at what is due at each step.
    pub(crate) fn pass(&mut self, ms: u64, step_ms: u64) {
        let end = self.now.mono_ms + ms;
        while self.now.mono_ms < end {
            let step = step_ms.min(end - self.now.mono_ms);
            self.now.mono_ms += step;
            self.now.unix_ms = self.now.unix_ms.saturating_add(step);
            self.happens(Input::Tick);
        }
        self.check();
    }

    pub(crate) fn handle(&mut self, input: Input) {
        self.happens(input);
        self.check();
    }

    fn happens(&mut self, input: Input) {
        match &input {
            Input::Written(peer) => {
                let count = self.in_flight.entry(*peer).or_default();
                *count = count.saturating_sub(1);
            }
            Input::PeerUp { peer, .. } => {
                self.in_flight.insert(*peer, 0);
            }
            _ => {}
        }
        let mut outputs = Vec::new();
        self.spread.handle(input, self.now, &mut outputs);
        for output in outputs {
            match output {
                Output::Send { to, batch } => self.sent(to, &batch),
                Output::Effect(effect) => self.told(effect),
            }
        }
    }

    /// What is sent is within the limits of the wire, and nothing in it is made up here.
    fn sent(&mut self, to: NodeId, batch: &Batch) {
        assert!(self.spread.peers().any(|peer| peer == to), "sent to nobody");
        let count = self.in_flight.entry(to).or_default();
        *count += 1;
        assert!(*count <= ROOM, "more under way than there is room for");
        let read = Batch::decode(&codec::encode(batch)).expect("inside the limits of the wire");
        assert_eq!(read, *batch);
        assert!(!batch.is_empty(), "nothing is sent");
        for relayed in &batch.beats {
            let sealed = Signed::from_bytes(relayed.beat.clone());
            let beat = Remembering.beat(&sealed).expect("signed by its node");
            assert_eq!(beat.order(), relayed.order());
            assert!(!self.revoked.contains(&beat.signer()), "of a revoked key");
        }
        for card in &batch.cards {
            let sealed = Signed::from_bytes(card.clone().into_vec());
            cast::verified_card(&sealed).expect("signed by its node");
        }
    }

    fn told(&mut self, effect: Effect) {
        match effect {
            Effect::Beat { beat, .. } => {
                assert_ne!(beat.state, NodeState::Leaving, "a goodbye is no life");
                self.told_live.insert(beat.signer());
                self.told_suspect.remove(&beat.signer());
            }
            Effect::Carded(card) => {
                assert!(self.spread.presence().get(&card.node()).is_some());
            }
            Effect::Suspect(node) => {
                assert!(self.told_suspect.insert(node), "told twice");
            }
            Effect::Well(node) => {
                assert!(self.told_suspect.remove(&node), "it was not suspect");
            }
            Effect::Gone { node, .. } => {
                assert!(self.told_live.remove(&node), "gone, and was not there");
                self.told_suspect.remove(&node);
            }
            Effect::WantCard { .. } | Effect::Clone { .. } | Effect::Rejected { .. } => {}
        }
    }

    /// What holds at all times.
    fn check(&mut self) {
        let presence = self.spread.presence();
        assert!(presence.live() <= SETTINGS.max_nodes, "too many live");
        assert!(presence.remembered() <= 2 * SETTINGS.max_nodes, "too many");
        let in_role = |role| presence.in_role(role).filter(|it| it.is_live()).count();
        assert!(in_role(Role::Orchestrator) <= SETTINGS.max_orchestrators);
        assert!(in_role(Role::Gateway) <= SETTINGS.max_gateways);
        let (mut live, mut suspect) = (BTreeSet::new(), BTreeSet::new());
        let mut floors = BTreeMap::new();
        for seen in presence.iter() {
            let node = seen.node();
            assert!(!self.revoked.contains(&node), "a revoked key is remembered");
            let floor = self.floors.get(&node).copied().unwrap_or_default();
            assert!(seen.order() >= floor, "the order went back");
            floors.insert(node, seen.order());
            assert!(u64::from(seen.ahead_ms().unsigned_abs()) <= MAX_SKEW_MS);
            let sealed = Signed::from_bytes(seen.sealed_beat().clone());
            let beat = Remembering
                .beat(&sealed)
                .expect("only what is signed is held");
            assert_eq!((beat.signer(), beat.order()), (node, seen.order()));
            if let Some(card) = seen.sealed_card() {
                assert_eq!(Digest::of(card), seen.named_card());
                assert_eq!(beat.card, seen.named_card());
            }
            if seen.is_routable() {
                assert!(seen.is_live() && seen.is_carded() && seen.role().is_some());
                assert_eq!(beat.state, NodeState::Serving);
            }
            if seen.is_live() {
                assert_ne!(beat.state, NodeState::Leaving);
                live.insert(node);
            }
            if seen.is_suspect() {
                suspect.insert(node);
            }
        }
        assert_eq!(live.len(), presence.live());
        assert_eq!(live, self.told_live, "who is live is what was told");
        assert_eq!(
            suspect, self.told_suspect,
            "who is suspect is what was told"
        );
        self.floors = floors;
        let mut controls = 0;
        for sealed in self.spread.controls() {
            controls += 1;
            assert!(sealed.len() <= MAX_CONTROL_BYTES);
        }
        assert!(controls <= MAX_CONTROLS);
        for peer in self.spread.peers() {
            // Each node waits at most once in each of two queues.
            assert!(self.spread.waiting(&peer) <= 2 * usize::from(cast::NODES));
        }
    }

    /// Whatever happened, silence ends every life, and in the end everything is forgotten.
    pub(crate) fn silence(&mut self) {
        self.pass(EXPIRY_MS + 2_000, 500);
        assert_eq!(self.spread.presence().live(), 0, "silence ends a life");
        self.pass(TOMBSTONE_MS + 60_000, 15_000);
        assert_eq!(self.spread.presence().remembered(), 0, "forgotten");
    }
}
