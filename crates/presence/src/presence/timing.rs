//! What the times of a beat say. [T-LIV-3], [T-LIV-4]

use crate::event::{Now, Origin};
use crate::rejected::Rejected;
use tether_wire::Beat;
use tether_wire::beat::{EXPIRY_MS, MAX_SKEW_MS};

/// Freshness, and proof of life.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// When it was made, by true time as far as that is known.
    pub(super) made_ms: u64,
    /// By how much its node's clock is ahead.
    pub(super) ahead_ms: i32,
    /// How long ago it was made; of a direct one, how long ago it was heard.
    pub(super) age_ms: u64,
    /// Why it proves no life now, if it does not.
    pub(super) late: Option<Rejected>,
    /// Whether it proves life to a machine that knew nothing before it began.
    pub(super) proves: bool,
}

/// By how much the first is ahead of the second, within the bound of skew.
pub(super) fn ahead(issued_ms: u64, now_ms: u64) -> i32 {
    let ahead = i128::from(issued_ms) - i128::from(now_ms);
    bounded(i32::try_from(ahead).unwrap_or(if ahead < 0 { i32::MIN } else { i32::MAX }))
}

/// What is believed of a clock at most. [T-LIV-3]
pub(crate) fn bounded(ahead_ms: i32) -> i32 {
    let bound = i32::try_from(MAX_SKEW_MS).unwrap_or(i32::MAX);
    ahead_ms.clamp(-bound, bound)
}

impl Timing {
    pub(super) fn of(beat: &Beat, origin: Origin, now: Now, started_unix_ms: u64) -> Self {
        let issued_ms = beat.issued_ms;
        let skew_ms = match origin {
            Origin::Direct => 0,
            Origin::Relayed { ahead_ms } => bounded(ahead_ms),
        };
        let made_ms = issued_ms.saturating_add_signed(-i64::from(skew_ms));
        let since_ms = now.unix_ms.saturating_sub(made_ms);
        // On its own link a node is heard now, whenever it made the beat.
        let (ahead_ms, age_ms, expiry_ms) = match origin {
            Origin::Direct => (ahead(issued_ms, now.unix_ms), 0, EXPIRY_MS + MAX_SKEW_MS),
            Origin::Relayed { .. } => (skew_ms, since_ms, EXPIRY_MS),
        };
        let late = if made_ms > now.unix_ms.saturating_add(MAX_SKEW_MS) {
            Some(Rejected::Future)
        } else if since_ms >= expiry_ms {
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
