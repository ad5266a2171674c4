//! Who is live, suspect or gone, as one machine sees it. (PRE-2 to PRE-4) [T-LIV-1] to [T-LIV-9]
//!
//! For each node only the order of its last validly signed beat counts, and it never goes back,
//! whether the node is live or gone: that is what keeps ghosts away. Nothing unsigned is believed
//! about life or death; a suspicion only makes a node be chosen last.

mod accept;
mod cards;
mod fleet;
mod life;
mod node;
mod passing;
mod timing;
mod wheel;

use crate::check::{KnownBeat, Knows};
use crate::event::{Effect, Event, Now};
use crate::rejected::Rejected;
use fleet::Fleet;
pub(crate) use fleet::first_eight;
pub(crate) use node::Node;
pub use node::{Doubt, Seen, Standing};
use std::collections::HashSet;
use tether_wire::beat::{BEAT_INTERVAL_MS, EXPIRY_MS, MAX_SKEW_MS};
use tether_wire::{Digest, NodeId, Role};
pub(crate) use timing::bounded;
use wheel::Wheel;

/// How long the last beat of a node that is gone is remembered. [T-LIV-5]
pub const TOMBSTONE_MS: u64 = 10 * 60_000;
/// A beat that was made longer ago than this revives nobody, whoever says what of clocks; so nothing
/// older is remembered of nodes that were never live here, or told to others of nodes that are
/// gone. Twice what skew and expiry need; the rest is for clocks that were set back. [T-LIV-5]
pub const REPLAYABLE_MS: u64 = 2 * (EXPIRY_MS + 2 * MAX_SKEW_MS);
/// Two processes of one key are reported once in this time. [T-LIV-6]
pub const CLONE_REPORT_MS: u64 = 60_000;
/// A beat of a lower epoch that was made this much later than the higher one was first heard is no
/// straggler. [T-LIV-6]
pub const CLONE_MARGIN_MS: u64 = MAX_SKEW_MS + BEAT_INTERVAL_MS;
/// A machine to which nothing happens for longer than this, not even a tick, was not run: that is
/// nobody's silence. Far above what a busy scheduler makes of ticks, far below what a node may be
/// silent. [T-LIV-2]
pub const STALL_MS: u64 = 1_000;

const _: () = assert!(TOMBSTONE_MS > REPLAYABLE_MS);

/// Bounds of memory. [T-LIV-8]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most nodes that are live at once. As many again are remembered after they went.
    pub max_nodes: usize,
    /// Most of them that are orchestrators.
    pub max_orchestrators: usize,
    /// Most of them that are gateways.
    pub max_gateways: usize,
    /// Most keys that are remembered as revoked, until they are told to count again.
    pub max_revoked: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_nodes: 131_072,
            max_orchestrators: 256,
            max_gateways: 4_096,
            max_revoked: 131_072,
        }
    }
}

/// Who is there.
#[derive(Clone, Debug)]
pub struct Presence {
    settings: Settings,
    started_unix_ms: u64,
    fleet: Fleet,
    wheel: Wheel,
    revoked: HashSet<NodeId>,
    /// Monotonic time of the last event.
    ran_ms: u64,
}

/// What an event means for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum News {
    /// Nothing.
    None,
    /// A node goes on living.
    Refreshed,
    /// A node came, went, or says something else than before.
    Changed,
}

impl Presence {
    /// Nobody yet. `started` is when this process began: what was made before it and comes from
    /// others proves no life. [T-LIV-4]
    #[must_use]
    pub fn new(settings: Settings, started: Now) -> Self {
        Self {
            settings,
            started_unix_ms: started.unix_ms,
            fleet: Fleet::default(),
            wheel: Wheel::default(),
            revoked: HashSet::new(),
            ran_ms: started.mono_ms,
        }
    }

    /// Takes what happened; what changed is added to `effects`.
    pub fn handle(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        self.apply(event, now, effects);
    }

    pub(crate) fn apply(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) -> News {
        self.forgive_stall(now);
        match event {
            Event::Beat { beat, card, origin } => self.beat(beat, card, origin, now, effects),
            Event::Again(node) => self.again(node, now, effects),
            Event::Card(card) => self.card(card, now, effects),
            Event::LinkLost(node) => self.link_lost(node, now, effects),
            Event::LinkClosed(node) => self.link_closed(node),
            Event::LinkQuiet(node) => self.link_quiet(node, now, effects),
            Event::LinkLively(node) => self.link_lively(node, now, effects),
            Event::Suspected(suspicion) => self.suspected(&suspicion, now, effects),
            Event::Revoked(node) => self.revoke(node, now, effects),
            Event::Unbarred(node) => {
                self.revoked.remove(&node);
                News::None
            }
            Event::GrantRevoked(node) => self.grant_revoked(node, now, effects),
            Event::Tick => {
                self.pass(now, effects);
                News::None
            }
        }
    }

    /// What is known of a node.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<Seen<'_>> {
        Some(Seen::new(*node, self.fleet.get(node)?))
    }

    /// Everything that is known, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = Seen<'_>> {
        (self.fleet.iter()).map(|(id, node)| Seen::new(*id, node))
    }

    /// Everything that is known of nodes behind this one, in the order of ids.
    pub fn after<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = Seen<'a>> {
        (self.fleet.after(Some(node))).map(|(id, node)| Seen::new(*id, node))
    }

    /// Whether a key was revoked.
    #[must_use]
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.revoked.contains(node)
    }

    /// Nodes that are live and in this role, in the order of ids.
    pub fn in_role(&self, role: Role) -> impl Iterator<Item = Seen<'_>> {
        self.iter().filter(move |seen| seen.role() == Some(role))
    }

    /// Nodes that are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.fleet.live()
    }

    /// Nodes that are live or remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.fleet.len()
    }

    /// Whether these are the very bytes of the node's last beat: no verification need be spent.
    #[must_use]
    pub fn is_known(&self, node: &NodeId, sealed_beat: &[u8]) -> bool {
        (self.fleet.get(node)).is_some_and(|known| *known.beat == *sealed_beat)
    }

    pub(crate) fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    pub(crate) fn node_mut(&mut self, node: &NodeId) -> Option<&mut Node> {
        self.fleet.get_mut(node)
    }

    fn reject(node: NodeId, reason: Rejected, effects: &mut Vec<Effect>) -> News {
        let node = Some(node);
        effects.push(Effect::Rejected { node, reason });
        News::None
    }
}

impl Knows for Presence {
    fn beat(&self, node: &NodeId) -> Option<KnownBeat<'_>> {
        let known = self.fleet.get(node)?;
        Some(KnownBeat {
            order: known.order,
            sealed: &known.beat,
            live: known.is_live(),
        })
    }

    fn revoked(&self, node: &NodeId) -> bool {
        self.revoked.contains(node)
    }

    fn card(&self, node: &NodeId, digest: &Digest) -> bool {
        (self.fleet.get(node))
            .and_then(|known| known.card.as_ref())
            .is_some_and(|card| card.digest == *digest)
    }
}
