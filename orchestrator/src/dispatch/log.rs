//! The events of an answer under way, kept for whoever is to be given them. (RSV-1, SCH-8)
//!
//! One run writes, and any number of calls read, each from the first event on and at its own pace. So
//! a key that comes again joins the answer that is being given, and an answer that goes on elsewhere
//! is the same one. The run is held back by the quickest of those who read, and is over when nobody
//! is left to read.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::watch;

/// Bytes that an answer may be ahead of the quickest of those who read it.
const WINDOW_BYTES: usize = 256 * 1024;
/// Most bytes of one answer's events. With twenty likely tokens beside each token that is some sixty
/// thousand tokens, and without them more than any context holds.
pub(crate) const MAX_LOG_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of all answers under way from which on no further request is taken, and no answer goes on that
/// has more than its part of them.
const MAX_HELD_BYTES: usize = 1024 * 1024 * 1024;
/// What an event costs beside its bytes.
const EVENT_BYTES: usize = 48;

/// How an answer ended.
pub(crate) type Ended = Result<(), RpcError>;

/// What all answers under way hold together.
#[derive(Clone, Debug)]
pub(crate) struct Held(Arc<Together>);

#[derive(Debug)]
struct Together {
    bytes: AtomicUsize,
    answers: AtomicUsize,
    most_bytes: usize,
}

impl Default for Held {
    fn default() -> Self {
        Self::at_most(MAX_HELD_BYTES)
    }
}

impl Held {
    /// Nothing yet.
    fn at_most(most_bytes: usize) -> Self {
        Self(Arc::new(Together {
            bytes: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            most_bytes,
        }))
    }

    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whether it is more than it may be.
    pub(crate) fn is_over(&self) -> bool {
        self.bytes() > self.0.most_bytes
    }

    /// Bytes that one answer may have now. Where all have too many, those that have less than an
    /// equal part go on: together they never have more than all may have, so that what is held stays
    /// below twice that.
    fn part(&self) -> usize {
        let answers = self.0.answers.load(Ordering::Relaxed).max(1);
        if self.is_over() {
            MAX_LOG_BYTES.min(self.0.most_bytes / answers)
        } else {
            MAX_LOG_BYTES
        }
    }
}

/// An answer's events so far. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct AnswerLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Told of each change.
    changes: watch::Sender<()>,
    held: Held,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<Arc<[u8]>>,
    bytes: usize,
    /// Bytes that the quickest reader took.
    most_read: usize,
    readers: usize,
    /// Nobody is left to read: whoever comes now comes too late.
    is_abandoned: bool,
    /// There was no room for an event.
    is_cut: bool,
    end: Option<Ended>,
}

/// The answer has more events than any may have, or than this one may where all together have too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    /// Bytes that it may have.
    pub(crate) most_bytes: usize,
}

impl AnswerLog {
    /// Without events, and with one who reads it.
    pub(crate) fn new(held: Held) -> (Self, Reader) {
        held.0.answers.fetch_add(1, Ordering::Relaxed);
        let shared = Shared {
            state: Mutex::default(),
            changes: watch::Sender::new(()),
            held,
        };
        let log = Self(Arc::new(shared));
        let reader = log.join().expect("nobody has left it");
        (log, reader)
    }

    /// One more who reads it from its first event on; nobody once it was left by all.
    pub(crate) fn join(&self) -> Option<Reader> {
        let mut state = self.0.state();
        if state.is_abandoned {
            return None;
        }
        state.readers += 1;
        drop(state);
        Some(Reader {
            log: self.clone(),
            next: 0,
            read: 0,
            changes: self.0.changes.subscribe(),
        })
    }

    /// One more event, once there is room for it: nobody waits for a slow reader where there is a
    /// quick one.
    pub(crate) async fn append(&self, event: &[u8]) -> Result<(), TooLong> {
        let mut changes = self.0.changes.subscribe();
        loop {
            {
                let mut state = self.0.state();
                let bytes = state.bytes.saturating_add(event.len());
                let most_bytes = self.0.held.part();
                if bytes > most_bytes {
                    tracing::warn!(bytes, most_bytes, "an answer is too long");
                    state.is_cut = true;
                    return Err(TooLong { most_bytes });
                }
                // Who left holds nobody back; the run ends by itself then.
                if state.is_abandoned || state.bytes < state.most_read + WINDOW_BYTES {
                    let bytes = event.len() + EVENT_BYTES;
                    state.bytes += bytes;
                    state.events.push(event.into());
                    self.0.held.0.bytes.fetch_add(bytes, Ordering::Relaxed);
                    break;
                }
            }
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
        self.0.changes.send_replace(());
        Ok(())
    }

    /// The events so far.
    pub(crate) fn events(&self) -> Vec<Arc<[u8]>> {
        self.0.state().events.clone()
    }

    /// How it ended; only the first end counts. One that lacks an event never ends well.
    pub(crate) fn end(&self, end: Ended) {
        let mut state = self.0.state();
        let end = if state.is_cut {
            end.and(Err(cut()))
        } else {
            end
        };
        state.end.get_or_insert(end);
        drop(state);
        self.0.changes.send_replace(());
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        let mut changes = self.0.changes.subscribe();
        while self.0.state().end.is_none() {
            let _ = changes.changed().await;
        }
    }

    /// Waits until nobody is left to read it.
    pub(crate) async fn abandoned(&self) {
        let mut changes = self.0.changes.subscribe();
        while !self.0.state().is_abandoned {
            let _ = changes.changed().await;
        }
    }

    /// Whether both are the same answer.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What is kept of it may be whole.
fn cut() -> RpcError {
    let why = "there was no room for the end of the answer; ask for it again under its key";
    RpcError::new(Code::Unavailable, why)
}

impl Shared {
    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let bytes = self.state().bytes;
        self.held.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.held.0.answers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who reads an answer. Dropping it is going away.
#[derive(Debug)]
pub(crate) struct Reader {
    log: AnswerLog,
    next: usize,
    read: usize,
    changes: watch::Receiver<()>,
}

impl Reader {
    /// The next event, or nothing where it ended well. Losing interest in the future and asking anew
    /// loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Arc<[u8]>>, RpcError> {
        loop {
            {
                let mut state = self.log.0.state();
                if let Some(event) = state.events.get(self.next).cloned() {
                    self.next += 1;
                    self.read += event.len() + EVENT_BYTES;
                    let waits = state.bytes >= state.most_read + WINDOW_BYTES;
                    state.most_read = state.most_read.max(self.read);
                    drop(state);
                    if waits {
                        self.log.0.changes.send_replace(());
                    }
                    return Ok(Some(event));
                }
                if let Some(end) = &state.end {
                    return end.clone().map(|()| None);
                }
                self.changes.mark_unchanged();
            }
            let _ = self.changes.changed().await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.log.0.state();
        state.readers -= 1;
        if state.readers == 0 {
            state.is_abandoned = true;
        }
        drop(state);
        self.log.0.changes.send_replace(());
    }
}

#[cfg(test)]
#[path = "log/tests.rs"]
mod tests;
