//! Beats: order, freshness, life and clones. [T-LIV-1] to [T-LIV-6]

use super::node::{Link, Node, Standing};
use super::{CLONE_MARGIN_MS, CLONE_REPORT_MS, News, Presence, REPLAYABLE_MS, Wheel};
use crate::admission::AdmittedCard;
use crate::event::{Effect, Gone, Now, Origin};
use crate::rejected::Rejected;
use tether_wire::beat::{EXPIRY_MS, MAX_SKEW_MS, NodeState, Order};
use tether_wire::{Beat, NodeId, Verified};

const SKEW: i64 = MAX_SKEW_MS as i64;

/// What the times of a beat say. [T-LIV-3]
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// When it was made, by true time as far as that is known.
    made_ms: u64,
    /// By how much its node's clock is ahead.
    ahead_ms: i32,
    /// How long ago it was made; of a direct one, how long ago it was heard.
    age_ms: u64,
    /// Why it proves no life now, if it does not.
    late: Option<Rejected>,
    /// Whether it proves life to a machine that knew nothing before it began.
    proves: bool,
}

/// By how much the first is ahead of the second, within the bound of skew.
pub(crate) fn ahead(issued_ms: u64, now_ms: u64) -> i32 {
    let ahead = i128::from(issued_ms) - i128::from(now_ms);
    let bound = i128::from(MAX_SKEW_MS);
    i32::try_from(ahead.clamp(-bound, bound)).unwrap_or_default()
}

impl Timing {
    fn of(beat: &Beat, origin: Origin, now: Now, started_unix_ms: u64) -> Self {
        let issued_ms = beat.issued_ms;
        let (ahead_ms, age_ms, expiry_ms) = match origin {
            Origin::Direct => (ahead(issued_ms, now.unix_ms), 0, EXPIRY_MS + MAX_SKEW_MS),
            Origin::Relayed { ahead_ms } => {
                let bounded = i64::from(ahead_ms).clamp(-SKEW, SKEW);
                let made_ms = issued_ms.saturating_add_signed(-bounded);
                let age_ms = now.unix_ms.saturating_sub(made_ms);
                (
                    i32::try_from(bounded).unwrap_or_default(),
                    age_ms,
                    EXPIRY_MS,
                )
            }
        };
        let made_ms = match origin {
            Origin::Direct => issued_ms,
            Origin::Relayed { .. } => issued_ms.saturating_add_signed(-i64::from(ahead_ms)),
        };
        let late = if made_ms > now.unix_ms.saturating_add(MAX_SKEW_MS) {
            Some(Rejected::Future)
        } else if now.unix_ms.saturating_sub(made_ms) >= expiry_ms {
            Some(Rejected::Stale)
        } else {
            None
        };
        // Nobody's word makes a beat look younger here: a recording would need only that.
        let proven_ms = issued_ms.saturating_add_signed(-i64::from(ahead_ms.max(0)));
        let proves = origin == Origin::Direct || proven_ms > started_unix_ms;
        Self {
            made_ms,
            ahead_ms,
            age_ms,
            late,
            proves,
        }
    }
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
        let Some(known) = self.fleet.get(&id) else {
            return self.first_beat(id, beat, card, origin, timing, now, effects);
        };
        let order = beat.order();
        if order > known.order {
            return self.newer_beat(id, beat, card, origin, timing, now, effects);
        }
        if order == known.order && known.beat == *beat.bytes() && origin == Origin::Direct {
            let news = self.again(id, now, effects);
            return news.max(card.map_or(News::None, |card| self.card(card, now, effects)));
        }
        let reason = self.older_beat(id, &beat, timing, now, effects);
        Self::reject(id, reason, effects)
    }

    /// A beat of a node of which nothing is known.
    #[expect(clippy::too_many_arguments, reason = "one step of `beat`")]
    fn first_beat(
        &mut self,
        id: NodeId,
        beat: Verified<Beat>,
        card: Option<Box<AdmittedCard>>,
        origin: Origin,
        timing: Timing,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> News {
        // What is this old can revive nobody, so nothing need be remembered against it; and what is
        // dated ahead could be remembered for ever.
        let replayable = now.unix_ms.saturating_sub(timing.made_ms) < REPLAYABLE_MS;
        if let Some(reason) = timing.late
            && (reason == Rejected::Future || !replayable)
        {
            return Self::reject(id, reason, effects);
        }
        if self.fleet.len() >= self.settings.max_nodes.saturating_mul(2) {
            return Self::reject(id, Rejected::Full, effects);
        }
        let slot = Wheel::next_slot(now.mono_ms);
        self.wheel.put(id, slot);
        self.fleet.insert(
            id,
            Node {
                // Below every beat, so that this one is newer.
                order: Order::default(),
                beat: beat.bytes().clone(),
                issued_ms: beat.issued_ms,
                ahead_ms: timing.ahead_ms,
                state: NodeState::Unknown,
                named: beat.card,
                card: None,
                standing: Standing::Unproven,
                heard_ms: now.mono_ms,
                epoch_since_ms: now.unix_ms,
                cloned_at_ms: None,
                print: 0,
                due_slot: slot,
                suspect: false,
                link: Link::None,
                rank: (0, 0),
            },
        );
        self.newer_beat(id, beat, card, origin, timing, now, effects)
    }

    /// A beat above the floor, which it raises whatever else is wrong with it.
    #[expect(clippy::too_many_arguments, reason = "one step of `beat`")]
    fn newer_beat(
        &mut self,
        id: NodeId,
        beat: Verified<Beat>,
        card: Option<Box<AdmittedCard>>,
        origin: Origin,
        timing: Timing,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> News {
        let full = self.fleet.live() >= self.settings.max_nodes;
        let leaving = beat.state == NodeState::Leaving;
        let mut outcome = Ok(News::Refreshed);
        let was_live = self.fleet.change(&id, |node| {
            let was_live = node.is_live();
            if node.order.epoch != beat.epoch {
                node.epoch_since_ms = now.unix_ms;
            }
            let says_else = node.order.epoch != beat.epoch || node.state != beat.state;
            node.take(&beat, origin, timing.ahead_ms);
            if leaving && timing.late != Some(Rejected::Future) {
                // A goodbye is true at any age.
                node.go(Gone::Departed, now);
                outcome = Ok(News::Changed);
                return was_live;
            }
            if let Some(reason) = timing.late {
                outcome = Err(reason);
            } else if was_live || (timing.proves && !full) {
                node.live(origin, now.mono_ms.saturating_sub(timing.age_ms), was_live);
                if !was_live || says_else {
                    outcome = Ok(News::Changed);
                }
            } else if timing.proves {
                outcome = Err(Rejected::Full);
            } else {
                node.unproven(now);
                outcome = Err(Rejected::Unproven);
            }
            was_live
        });
        let was_live = was_live.unwrap_or_default();
        match outcome {
            Err(reason) => Self::reject(id, reason, effects),
            Ok(_) if leaving => {
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
    fn older_beat(
        &mut self,
        id: NodeId,
        beat: &Verified<Beat>,
        timing: Timing,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Rejected {
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

impl Node {
    /// Raises the floor to this beat.
    fn take(&mut self, beat: &Verified<Beat>, origin: Origin, ahead_ms: i32) {
        self.order = beat.order();
        self.beat = beat.bytes().clone();
        self.issued_ms = beat.issued_ms;
        self.state = beat.state;
        self.named = beat.card;
        match origin {
            Origin::Direct => self.measure(ahead_ms),
            // What is measured on the own link is better than a word.
            Origin::Relayed { .. } if self.link == Link::Lively => {}
            Origin::Relayed { .. } => self.ahead_ms = ahead_ms,
        }
    }

    /// A node's clock is ahead by at least what a beat shows; delays only hide some of it. What was
    /// measured before fades, so that a clock that was set back is followed within some beats.
    fn measure(&mut self, ahead_ms: i32) {
        let shown = self.link == Link::None || ahead_ms >= self.ahead_ms;
        self.ahead_ms = if shown {
            ahead_ms
        } else {
            self.ahead_ms - (self.ahead_ms - ahead_ms).div_euclid(4).max(1)
        };
    }

    fn live(&mut self, origin: Origin, heard_ms: u64, was_live: bool) {
        self.standing = Standing::Live;
        self.heard_ms = if was_live {
            self.heard_ms.max(heard_ms)
        } else {
            heard_ms
        };
        self.suspect = false;
        if origin == Origin::Direct {
            self.link = Link::Lively;
        }
    }

    pub(super) fn go(&mut self, how: Gone, now: Now) {
        self.standing = Standing::Gone(how);
        self.heard_ms = now.mono_ms;
        self.suspect = false;
        self.card = None;
    }

    fn unproven(&mut self, now: Now) {
        if self.standing == Standing::Unproven {
            self.heard_ms = now.mono_ms;
        }
    }
}
