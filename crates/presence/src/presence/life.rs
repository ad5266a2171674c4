//! One node's life: what a beat that counts does to it. [T-LIV-2] to [T-LIV-5]

use super::News;
use super::node::{Doubt, Link, Node, Standing};
use super::timing::Timing;
use crate::event::{Gone, Now, Origin};
use crate::rejected::Rejected;
use tether_wire::beat::{NodeState, Order};
use tether_wire::{Beat, Verified};

impl Node {
    /// A node of which nothing was known but this beat, which it does not count yet.
    pub(super) fn heard_of(beat: &Verified<Beat>, ahead_ms: i32, due_slot: u64, now: Now) -> Self {
        Self {
            order: Order::default(),
            beat: beat.bytes().clone(),
            issued_ms: beat.issued_ms,
            ahead_ms,
            state: NodeState::Unknown,
            named: beat.card,
            card: None,
            standing: Standing::Unproven,
            heard_ms: now.mono_ms,
            epoch_since_ms: now.unix_ms,
            cloned_at_ms: None,
            print: 0,
            due_slot,
            suspect: false,
            doubt: (Doubt::Silent, now.mono_ms),
            state_since_ms: now.unix_ms,
            link: Link::None,
            rank: (0, 0),
            alone: false,
        }
    }

    /// Takes a beat above the floor: raises it, then lives, goes, or neither.
    pub(super) fn take(
        &mut self,
        beat: &Verified<Beat>,
        origin: Origin,
        timing: Timing,
        full: bool,
        now: Now,
    ) -> Result<News, Rejected> {
        let restarted = self.order.epoch != beat.epoch;
        let says_else = restarted || self.state != beat.state;
        if restarted {
            self.epoch_since_ms = now.unix_ms;
        }
        if says_else || !self.is_live() {
            self.state_since_ms = now.unix_ms;
        }
        self.order = beat.order();
        self.beat = beat.bytes().clone();
        self.issued_ms = beat.issued_ms;
        self.state = beat.state;
        self.named = beat.card;
        match origin {
            Origin::Direct => self.measure(timing.ahead_ms),
            // What is measured on the own link is better than a word.
            Origin::Relayed { .. } if self.link == Link::Lively => {}
            Origin::Relayed { .. } => self.ahead_ms = timing.ahead_ms,
        }
        // A goodbye is true whatever its date, and whatever a peer says of clocks.
        if beat.state == NodeState::Leaving {
            self.go(Gone::Departed, now);
            return Ok(News::Changed);
        }
        if let Some(reason) = timing.late {
            return Err(reason);
        }
        let was_live = self.is_live();
        if !was_live && !timing.proves {
            return Err(Rejected::Unproven);
        }
        if !was_live && full {
            return Err(Rejected::Full);
        }
        // Others may suspect it too: that it is well is news.
        let changed = !was_live || says_else || self.suspect;
        self.live(origin, now.mono_ms.saturating_sub(timing.age_ms), was_live);
        Ok(if changed {
            News::Changed
        } else {
            News::Refreshed
        })
    }

    /// A node's clock is ahead by at least what a beat shows; delays only hide some of it. What was
    /// measured before fades, so that a clock that was set back is followed within some beats.
    pub(super) fn measure(&mut self, ahead_ms: i32) {
        let shown = self.link == Link::None || ahead_ms >= self.ahead_ms;
        self.ahead_ms = if shown {
            ahead_ms
        } else {
            self.ahead_ms - (self.ahead_ms - ahead_ms).div_euclid(4).max(1)
        };
    }

    pub(super) fn live(&mut self, origin: Origin, heard_ms: u64, was_live: bool) {
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
}
