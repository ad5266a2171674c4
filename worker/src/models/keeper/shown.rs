//! How far a fetch or a check of files is.

use crate::models::ModelState;
use crate::models::entry::Entry;
use crate::models::pool::Mib;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often progress is shown, and how often logged.
const SHOW_EVERY_MS: u64 = 250;
const LOG_EVERY_MS: u64 = 10_000;

/// Progress, shown and logged at a calm pace.
pub(super) struct Shown {
    entry: Entry,
    is_fetch: bool,
    /// Cancelled when what it is for is over: a thread that reads files ends a moment later.
    over: CancellationToken,
    began: Instant,
    shown_ms: AtomicU64,
    logged_ms: AtomicU64,
}

impl Shown {
    pub(super) fn new(entry: Entry, is_fetch: bool, over: CancellationToken) -> Self {
        Self {
            entry,
            is_fetch,
            over,
            began: Instant::now(),
            shown_ms: AtomicU64::new(0),
            logged_ms: AtomicU64::new(0),
        }
    }

    /// The same for something else.
    pub(super) fn again(&self, over: CancellationToken) -> Self {
        Self::new(self.entry.clone(), self.is_fetch, over)
    }

    pub(super) fn told(&self, done: u64, total: u64) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let is_due = |last: &AtomicU64, every_ms: u64| {
            let is_due = now_ms >= last.load(Ordering::Relaxed).saturating_add(every_ms);
            if is_due {
                last.store(now_ms, Ordering::Relaxed);
            }
            is_due
        };
        if is_due(&self.shown_ms, SHOW_EVERY_MS) {
            let state = if self.is_fetch {
                ModelState::Fetching { done, total }
            } else {
                ModelState::Verifying { done, total }
            };
            self.entry.change(|status| {
                // One of its processes starts again, while others answer; or it is unloaded, which is
                // shown after this was cancelled.
                let is_served = matches!(status.state, ModelState::Serving(_));
                if !is_served && !self.over.is_cancelled() {
                    status.state = state;
                }
            });
        }
        if is_due(&self.logged_ms, LOG_EVERY_MS) {
            let path = self.entry.configured();
            let what = if self.is_fetch {
                "fetching"
            } else {
                "verifying"
            };
            tracing::info!(path, done = %Mib(done), total = %Mib(total), what);
        }
    }
}
