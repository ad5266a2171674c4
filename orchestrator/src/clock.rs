//! The one place that reads clocks; everything that decides is given the time.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tether_presence::Now;

/// Now, on both clocks.
pub(crate) fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis());
    let since = START.get_or_init(Instant::now).elapsed();
    let unix = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Now {
        unix_ms: millis(unix).unwrap_or(u64::MAX),
        mono_ms: millis(since).unwrap_or(u64::MAX),
    }
}
