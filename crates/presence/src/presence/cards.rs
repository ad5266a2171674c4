//! Cards: whose role and offer count. [T-LIV-7]

use super::node::HeldCard;
use super::{News, Presence};
use crate::admission::AdmittedCard;
use crate::event::{Effect, Now};
use crate::rejected::Rejected;
use tether_wire::Role;

impl Presence {
    /// A card counts if and only if its node lives and its last beat names it. So all machines that
    /// have the same beat hold the same card, in whatever order cards came.
    pub(super) fn card(
        &mut self,
        card: Box<AdmittedCard>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> News {
        let id = card.node();
        if self.revoked.contains(&id) {
            return Self::reject(id, Rejected::Revoked, effects);
        }
        let Some(node) = self.fleet.get(&id) else {
            return Self::reject(id, Rejected::Unnamed, effects);
        };
        if !node.is_live() || node.named != card.digest() {
            return Self::reject(id, Rejected::Unnamed, effects);
        }
        if node.current_card().is_some() {
            return News::None;
        }
        if card.until_ms() <= now.unix_ms {
            return Self::reject(id, Rejected::Ungranted, effects);
        }
        let held = node.card.as_ref().map(|card| card.role);
        if held != Some(card.role()) && !self.has_room_for(card.role()) {
            return Self::reject(id, Rejected::Full, effects);
        }
        self.fleet.change(&id, |node| {
            node.card = Some(HeldCard {
                sealed: card.card().bytes().clone(),
                digest: card.digest(),
                until_ms: card.until_ms(),
                role: card.role(),
                tier: card.tier(),
            });
        });
        self.look_at(id, now);
        effects.push(Effect::Carded(card));
        News::Changed
    }

    fn has_room_for(&self, role: Role) -> bool {
        let most = match role {
            Role::Orchestrator => self.settings.max_orchestrators,
            Role::Gateway => self.settings.max_gateways,
            _ => return true,
        };
        self.fleet.in_role(role) < most
    }
}
