//! Who is there: the acceptance of heartbeats, as a pure state machine. (PRE-2 to PRE-4)
//!
//! Nothing here reads a clock, locks or waits. A heartbeat comes in verified; what comes out is a
//! [`Change`] for the fleet, or the reason why it was refused. For each worker only the order
//! `(epoch, seq)` of its last heartbeat counts, and it never goes back, whether the worker is
//! alive, expired or departed: that is what keeps ghosts away.

use std::collections::HashMap;
use tether_wire::heartbeat::{EXPIRY_MS, MAX_AGE_MS, MAX_FUTURE_MS, WorkerState};
use tether_wire::{Heartbeat, NodeId, Tier, Verified};

/// How long the order of a worker that is gone is remembered. Older heartbeats than its last one
/// were issued before it and are stale by themselves after `MAX_AGE_MS + MAX_FUTURE_MS`; the rest
/// is for a worker whose clock was set back in between.
pub const TOMBSTONE_MS: u64 = 10 * 60_000;
/// How long a worker that lost its link, or could not be linked, is not dialled. A worker that is
/// well links again by itself and is heard at once, so that dialling it would mostly cost a request
/// its time; a dead one is dialled a few times until it expires. [T-PRE-8]
pub const REDIAL_AFTER_MS: u64 = 3_000;

/// The time, read once at the edge. The first decides freshness, which others' clocks take part
/// in; the second decides silence, and does not jump when somebody sets this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Unix milliseconds.
    pub unix_ms: u64,
    /// Milliseconds of a clock that only goes forward.
    pub mono_ms: u64,
}

/// Why a heartbeat is dropped. Each has a label in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// Longer than a heartbeat may be.
    Oversized,
    /// Not rightly signed, or signed for another mesh.
    Forged,
    /// Rightly signed, but its content is outside the specification.
    Malformed,
    /// It came over the link of another worker.
    WrongWorker,
    /// It names another region than the worker's grant.
    WrongRegion,
    /// Too many in a short time over one link.
    Flood,
    /// Dated further ahead than clocks may differ.
    Future,
    /// Older than a worker may be silent.
    Stale,
    /// The very order that was accepted last.
    Replayed,
    /// An order lower than what was accepted last.
    Reordered,
    /// Not newer than the goodbye of its worker.
    Departed,
    /// More workers than this orchestrator keeps.
    Full,
}

impl Rejected {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Oversized,
        Self::Forged,
        Self::Malformed,
        Self::WrongWorker,
        Self::WrongRegion,
        Self::Flood,
        Self::Future,
        Self::Stale,
        Self::Replayed,
        Self::Reordered,
        Self::Departed,
        Self::Full,
    ];

    /// Its label in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Oversized => "oversized",
            Self::Forged => "forged",
            Self::Malformed => "malformed",
            Self::WrongWorker => "wrong-worker",
            Self::WrongRegion => "wrong-region",
            Self::Flood => "flood",
            Self::Future => "future",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
            Self::Reordered => "reordered",
            Self::Departed => "departed",
            Self::Full => "full",
        }
    }
}

/// What a heartbeat or the passing of time does to the fleet.
#[derive(Clone, Debug)]
pub enum Change {
    /// The worker is there, with this heartbeat, and is not suspect.
    Beat {
        /// What it says.
        beat: Box<Heartbeat>,
        /// How far it is believed, by its grant.
        tier: Tier,
        /// When it was heard.
        heard_mono_ms: u64,
    },
    /// The worker may be dead: it is chosen last.
    Suspect(NodeId),
    /// The worker is suspect and cannot be linked: without a link it is not chosen at all for a
    /// while.
    Unreachable {
        /// Which worker.
        worker: NodeId,
        /// When it may be dialled again.
        redial_mono_ms: u64,
    },
    /// The worker is gone.
    Gone(NodeId, Gone),
}

/// How a worker went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It said goodbye.
    Departed,
    /// It was silent for too long.
    Expired,
}

/// Who is there.
#[derive(Debug)]
pub struct Presence {
    known: HashMap<NodeId, Known>,
    live: usize,
    max_workers: usize,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    order: (u64, u64),
    status: Status,
}

#[derive(Clone, Copy, Debug)]
enum Status {
    Live {
        heard_ms: u64,
        suspect: bool,
        redial_ms: u64,
    },
    Gone {
        how: Gone,
        since_ms: u64,
    },
}

impl Presence {
    /// Nobody yet; at most `max_workers` at once. As many again are remembered after they went.
    #[must_use]
    pub fn new(max_workers: usize) -> Self {
        Self {
            known: HashMap::new(),
            live: 0,
            max_workers,
        }
    }

    /// Takes a verified heartbeat; `tier` is what the worker's grant says.
    ///
    /// # Errors
    /// The first reason against it, in this order: future, stale, not newer than the last, full.
    pub fn accept(
        &mut self,
        beat: Verified<Heartbeat>,
        tier: Tier,
        now: Now,
    ) -> Result<Change, Rejected> {
        let worker = beat.worker;
        if beat.issued_ms > now.unix_ms.saturating_add(MAX_FUTURE_MS) {
            return Err(Rejected::Future);
        }
        if beat.issued_ms.saturating_add(MAX_AGE_MS) < now.unix_ms {
            return Err(Rejected::Stale);
        }
        let order = (beat.epoch, beat.seq);
        let was_live = match self.known.get(&worker) {
            Some(known) => {
                self.newer(known, order)?;
                matches!(known.status, Status::Live { .. })
            }
            // A key that is neither alive nor remembered costs memory: bounded, and refused
            // rather than paid for by forgetting a tombstone.
            None if self.known.len() >= self.max_workers.saturating_mul(2) => {
                return Err(Rejected::Full);
            }
            None => false,
        };
        let leaving = beat.state == WorkerState::Leaving;
        if !was_live && !leaving && self.live >= self.max_workers {
            return Err(Rejected::Full);
        }
        let status = if leaving {
            Status::Gone {
                how: Gone::Departed,
                since_ms: now.mono_ms,
            }
        } else {
            Status::Live {
                heard_ms: now.mono_ms,
                suspect: false,
                redial_ms: 0,
            }
        };
        self.known.insert(worker, Known { order, status });
        match (was_live, leaving) {
            (false, false) => self.live += 1,
            (true, true) => self.live -= 1,
            _ => {}
        }
        if leaving {
            return Ok(Change::Gone(worker, Gone::Departed));
        }
        Ok(Change::Beat {
            beat: Box::new(beat.into_inner()),
            tier,
            heard_mono_ms: now.mono_ms,
        })
    }

    fn newer(&self, known: &Known, order: (u64, u64)) -> Result<(), Rejected> {
        if order > known.order {
            return Ok(());
        }
        Err(match known.status {
            Status::Gone {
                how: Gone::Departed,
                ..
            } => Rejected::Departed,
            _ if order == known.order => Rejected::Replayed,
            _ => Rejected::Reordered,
        })
    }

    /// A worker did not answer: chosen last until its next heartbeat.
    pub fn suspect(&mut self, worker: NodeId) -> Option<Change> {
        match &mut self.known.get_mut(&worker)?.status {
            Status::Live { suspect, .. } if !*suspect => {
                *suspect = true;
                Some(Change::Suspect(worker))
            }
            _ => None,
        }
    }

    /// The link to a worker broke, or cannot be had: suspect, and not to be dialled until it is
    /// heard, or for [`REDIAL_AFTER_MS`]. Those who find out together find out once.
    pub fn unreachable(&mut self, worker: NodeId, now: Now) -> Option<Change> {
        match &mut self.known.get_mut(&worker)?.status {
            Status::Live {
                suspect, redial_ms, ..
            } if now.mono_ms >= *redial_ms => {
                *suspect = true;
                *redial_ms = now.mono_ms.saturating_add(REDIAL_AFTER_MS);
                Some(Change::Unreachable {
                    worker,
                    redial_mono_ms: *redial_ms,
                })
            }
            _ => None,
        }
    }

    /// Expires who was silent for 15 s, and forgets who went long ago.
    pub fn tick(&mut self, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        self.known.retain(|worker, known| match known.status {
            Status::Live { heard_ms, .. } if now.mono_ms.saturating_sub(heard_ms) >= EXPIRY_MS => {
                known.status = Status::Gone {
                    how: Gone::Expired,
                    since_ms: now.mono_ms,
                };
                changes.push(Change::Gone(*worker, Gone::Expired));
                true
            }
            Status::Live { .. } => true,
            Status::Gone { since_ms, .. } => now.mono_ms.saturating_sub(since_ms) < TOMBSTONE_MS,
        });
        self.live -= changes.len();
        changes
    }

    /// Workers that are there.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }

    /// Workers that are there or remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
#[path = "presence/tests.rs"]
mod tests;
