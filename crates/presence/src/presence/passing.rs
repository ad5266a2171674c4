//! Silence, broken links, suspicion, revocation: what ends a life, or puts it in doubt.
//! [T-LIV-2], [T-LIV-5], [T-LIV-6]

use super::node::{Doubt, Link, Node, Standing};
use super::{News, Presence, STALL_MS, TOMBSTONE_MS, Wheel};
use crate::event::{Effect, Gone, Now};
use crate::rejected::Rejected;
use tether_wire::NodeId;
use tether_wire::beat::{EXPIRY_MS, SUSPECT_MS};
use tether_wire::spread::Suspicion;

/// Longest time between two looks at a node that is gone. A node that comes back is put into the
/// wheel anew, and its old place is left there for at most this.
const LOOK_MS: u64 = 30_000;

impl Presence {
    /// Puts a node where it is due, unless it is looked at earlier anyway.
    pub(super) fn look_at(&mut self, id: NodeId, now: Now) {
        let Some(node) = self.fleet.get_mut(&id) else {
            return;
        };
        let slot = Wheel::slot(node.due_ms(now)).max(Wheel::next_slot(now.mono_ms));
        if slot < node.due_slot {
            node.due_slot = slot;
            self.wheel.put(id, slot);
        }
    }

    /// The time in which this machine was not run is taken out of everybody's silence, before
    /// anything is decided: what they said meanwhile waits to be read.
    pub(super) fn forgive_stall(&mut self, now: Now) {
        let gap_ms = now.mono_ms.saturating_sub(self.ran_ms);
        self.ran_ms = self.ran_ms.max(now.mono_ms);
        if gap_ms > STALL_MS {
            for node in self.fleet.iter_mut().filter(|node| node.is_live()) {
                node.heard_ms = (node.heard_ms + gap_ms).min(now.mono_ms);
            }
        }
    }

    /// Time passed: looks at those that may be due.
    pub(super) fn pass(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some((slot, due)) = self.wheel.due(now.mono_ms) {
            for id in due {
                self.look(id, slot, now, effects);
            }
        }
    }

    fn look(&mut self, id: NodeId, slot: u64, now: Now, effects: &mut Vec<Effect>) {
        let Some(node) = self.fleet.get_mut(&id).filter(|it| it.due_slot == slot) else {
            return;
        };
        let silent_ms = now.mono_ms.saturating_sub(node.heard_ms);
        match node.standing {
            Standing::Live if silent_ms >= EXPIRY_MS => {
                self.end(id, Gone::Expired, now, effects);
            }
            Standing::Live if node.is_ungranted(now) => {
                self.end(id, Gone::Ungranted, now, effects);
            }
            Standing::Live => {
                if silent_ms >= SUSPECT_MS && !node.suspect {
                    node.set_suspect(Doubt::Silent, now);
                    effects.push(Effect::Suspect(id));
                }
            }
            Standing::Unproven | Standing::Gone(_) if silent_ms >= TOMBSTONE_MS => {
                self.fleet.remove(&id);
                return;
            }
            Standing::Unproven | Standing::Gone(_) => {}
        }
        if let Some(node) = self.fleet.get_mut(&id) {
            node.due_slot = u64::MAX;
        }
        self.look_at(id, now);
    }

    fn end(&mut self, id: NodeId, how: Gone, now: Now, effects: &mut Vec<Effect>) {
        self.fleet.change(&id, |node| node.go(how, now));
        effects.push(Effect::Gone { node: id, how });
    }

    fn suspect(&mut self, id: NodeId, why: Doubt, now: Now, effects: &mut Vec<Effect>) -> News {
        let Some(node) = self.fleet.get_mut(&id) else {
            return News::None;
        };
        if !node.is_live() || node.suspect {
            return News::None;
        }
        node.set_suspect(why, now);
        effects.push(Effect::Suspect(id));
        News::Changed
    }

    pub(super) fn link_lost(&mut self, id: NodeId, now: Now, effects: &mut Vec<Effect>) -> News {
        if let Some(node) = self.fleet.get_mut(&id) {
            node.link = Link::None;
        }
        self.suspect(id, Doubt::LinkLost, now, effects)
    }

    pub(super) fn link_closed(&mut self, id: NodeId) -> News {
        if let Some(node) = self.fleet.get_mut(&id) {
            node.link = Link::None;
        }
        News::None
    }

    /// Told to others too: whoever hears the node itself knows better, and for the rest it is chosen
    /// last until its next beat, at worst.
    pub(super) fn link_quiet(&mut self, id: NodeId, now: Now, effects: &mut Vec<Effect>) -> News {
        if let Some(node) = self.fleet.get_mut(&id) {
            node.link = Link::Quiet;
        }
        self.suspect(id, Doubt::Unresponsive, now, effects)
    }

    pub(super) fn link_lively(&mut self, id: NodeId, now: Now, effects: &mut Vec<Effect>) -> News {
        let Some(node) = self.fleet.get_mut(&id) else {
            return News::None;
        };
        node.link = Link::Lively;
        let silent_ms = now.mono_ms.saturating_sub(node.heard_ms);
        if node.is_live() && node.suspect && silent_ms < SUSPECT_MS {
            node.suspect = false;
            effects.push(Effect::Well(id));
        }
        News::None
    }

    /// A peer's suspicion counts unless more is known here: a later beat, or the node's own link.
    pub(super) fn suspected(
        &mut self,
        suspicion: &Suspicion,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> News {
        let counts = (self.fleet.get(&suspicion.node))
            .is_some_and(|node| suspicion.order() >= node.order && node.link != Link::Lively);
        if !counts {
            return News::None;
        }
        self.suspect(suspicion.node, Doubt::Peer, now, effects)
    }

    /// Nothing of the key counts any more, and nothing else need be remembered of it.
    pub(super) fn revoke(&mut self, id: NodeId, now: Now, effects: &mut Vec<Effect>) -> News {
        if self.revoked.contains(&id) {
            return News::None;
        }
        if self.revoked.len() >= self.settings.max_revoked {
            return Self::reject(id, Rejected::Full, effects);
        }
        self.revoked.insert(id);
        if self.fleet.get(&id).is_some_and(Node::is_live) {
            self.end(id, Gone::Revoked, now, effects);
        }
        self.fleet.remove(&id);
        News::Changed
    }
}

impl Presence {
    /// The node is gone with its card. Nothing is held against its key: with a card that counts its
    /// next beat makes it live.
    pub(super) fn grant_revoked(
        &mut self,
        id: NodeId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> News {
        if !self.fleet.get(&id).is_some_and(Node::is_live) {
            return News::None;
        }
        self.end(id, Gone::Revoked, now, effects);
        self.look_at(id, now);
        News::Changed
    }
}

impl Node {
    fn set_suspect(&mut self, why: Doubt, now: Now) {
        self.suspect = true;
        self.doubt = (why, now.mono_ms);
    }

    fn is_ungranted(&self, now: Now) -> bool {
        (self.current_card()).is_some_and(|card| card.until_ms <= now.unix_ms)
    }

    /// When something may be due.
    fn due_ms(&self, now: Now) -> u64 {
        if !self.is_live() {
            return (self.heard_ms + TOMBSTONE_MS).min(now.mono_ms + LOOK_MS);
        }
        let silence = if self.suspect { EXPIRY_MS } else { SUSPECT_MS };
        let granted_ms = (self.current_card())
            .map_or(u64::MAX, |card| card.until_ms.saturating_sub(now.unix_ms));
        let silent = self.heard_ms + silence;
        silent.min(now.mono_ms.saturating_add(granted_ms))
    }
}
