//! Beats: order, freshness, life and clones. [T-LIV-1] to [T-LIV-6]

use super::node::{Node, Standing};
use super::timing::{Timing, ahead};
use super::{CLONE_MARGIN_MS, CLONE_REPORT_MS, News, Presence, REPLAYABLE_MS, Wheel};
use crate::admission::AdmittedCard;
use crate::event::{Effect, Gone, Now, Origin};
use crate::rejected::Rejected;
use tether_wire::beat::NodeState;
use tether_wire::{Beat, NodeId, Verified};

/// A verified beat on its way through the rules.
struct Arrived {
    id: NodeId,
    beat: Verified<Beat>,
    card: Option<Box<AdmittedCard>>,
    origin: Origin,
    timing: Timing,
}

impl Presence {
    pub(super) fn beat(
        &mut self,
        beat: Verified<Beat>,
        card: Option<Box<AdmittedCard>>,
        origin: Origin,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> News {
        let id = beat.signer();
        if self.revoked.contains(&id) {
            return Self::reject(id, Rejected::Revoked, effects);
        }
        let timing = Timing::of(&beat, origin, now, self.started_unix_ms);
        let arrived = Arrived {
            id,
            beat,
            card,
            origin,
            timing,
        };
        let Some(known) = self.fleet.get(&id) else {
            return self.first_beat(arrived, now, effects);
        };
        let order = arrived.beat.order();
        if order > known.order {
            return self.newer_beat(arrived, now, effects);
        }
        let is_last = order == known.order && known.beat == *arrived.beat.bytes();
        if is_last && origin == Origin::Direct {
            let news = (arrived.card).map_or(News::None, |card| self.card(card, now, effects));
            return news.max(self.again(id, now, effects));
        }
        let reason = self.older_beat(&arrived, now, effects);
        Self::reject(id, reason, effects)
    }

    /// A beat of a node of which nothing is known.
    fn first_beat(&mut self, arrived: Arrived, now: Now, effects: &mut Vec<Effect>) -> News {
        let (id, timing) = (arrived.id, arrived.timing);
        // What is this far off can revive nobody, so nothing need be remembered against it.
        if let Some(reason) = timing.late
            && timing.made_ms.abs_diff(now.unix_ms) >= REPLAYABLE_MS
        {
            return Self::reject(id, reason, effects);
        }
        if self.fleet.len() >= self.settings.max_nodes.saturating_mul(2) {
            return Self::reject(id, Rejected::Full, effects);
        }
        let slot = Wheel::next_slot(now.mono_ms);
        self.wheel.put(id, slot);
        let node = Node::heard_of(&arrived.beat, timing.ahead_ms, slot, now);
        self.fleet.insert(id, node);
        self.newer_beat(arrived, now, effects)
    }

    /// A beat above the floor, which it raises whatever else is wrong with it.
    fn newer_beat(&mut self, arrived: Arrived, now: Now, effects: &mut Vec<Effect>) -> News {
        let Arrived {
            id,
            beat,
            card,
            origin,
            timing,
        } = arrived;
        let full = self.fleet.live() >= self.settings.max_nodes;
        let changed = self.fleet.change(&id, |node| {
            let was_live = node.is_live();
            let outcome = node.take(&beat, origin, timing, full, now);
            (was_live, outcome)
        });
        let Some((was_live, outcome)) = changed else {
            return News::None;
        };
        match outcome {
            Err(reason) => Self::reject(id, reason, effects),
            Ok(_) if beat.state == NodeState::Leaving => {
                if was_live {
                    let how = Gone::Departed;
                    effects.push(Effect::Gone { node: id, how });
                }
                News::Changed
            }
            Ok(news) => {
                self.look_at(id, now);
                news.max(self.lives(id, beat, card, now, effects))
            }
        }
    }

    /// Tells of a beat that counted, after its card.
    fn lives(
        &mut self,
        id: NodeId,
        beat: Verified<Beat>,
        card: Option<Box<AdmittedCard>>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> News {
        let news = card.map_or(News::None, |card| self.card(card, now, effects));
        let Some(node) = self.fleet.get(&id) else {
            return news;
        };
        let carded = node.current_card().is_some();
        let (heard_mono_ms, digest) = (node.heard_ms, beat.card);
        effects.push(Effect::Beat {
            beat,
            heard_mono_ms,
            carded,
        });
        if !carded {
            effects.push(Effect::WantCard { node: id, digest });
        }
        news
    }

    /// The very last beat again, over its node's own link: the node lives, if it lived.
    pub(super) fn again(&mut self, id: NodeId, now: Now, effects: &mut Vec<Effect>) -> News {
        let Some(node) = self.fleet.get_mut(&id).filter(|node| node.is_live()) else {
            return News::None;
        };
        node.measure(ahead(node.issued_ms, now.unix_ms));
        let was_suspect = node.suspect;
        node.live(Origin::Direct, now.mono_ms, true);
        if was_suspect {
            effects.push(Effect::Well(id));
        }
        if node.current_card().is_none() {
            let digest = node.named;
            effects.push(Effect::WantCard { node: id, digest });
        }
        News::None
    }

    /// A beat that is not above the floor: why it counts for nothing.
    fn older_beat(&mut self, arrived: &Arrived, now: Now, effects: &mut Vec<Effect>) -> Rejected {
        let (id, beat, timing) = (arrived.id, &arrived.beat, arrived.timing);
        let order = beat.order();
        let Some(node) = self.fleet.get_mut(&id) else {
            return Rejected::Reordered;
        };
        // Two different beats of one order are two processes, whenever they were made; a lower
        // epoch is one only if it goes on after the higher one began.
        let forked = order == node.order && node.beat != *beat.bytes();
        let goes_on = order.epoch < node.order.epoch
            && timing.late.is_none()
            && timing.made_ms > node.epoch_since_ms.saturating_add(CLONE_MARGIN_MS);
        if forked || goes_on {
            let (epoch, other) = (node.order.epoch, order.epoch);
            let reported = (node.cloned_at_ms)
                .is_some_and(|at| now.mono_ms.saturating_sub(at) < CLONE_REPORT_MS);
            if !reported {
                node.cloned_at_ms = Some(now.mono_ms);
                effects.push(Effect::Clone {
                    node: id,
                    epoch,
                    other,
                });
            }
            return Rejected::Cloned;
        }
        match node.standing {
            Standing::Gone(Gone::Departed) => Rejected::Departed,
            _ if order == node.order => Rejected::Replayed,
            _ => Rejected::Reordered,
        }
    }
}
