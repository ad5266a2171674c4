//! Which orchestrators a node keeps links with, whom it dials next, and when. (NET-7, PRE-5) [T-TOP-6]
//!
//! Anyone may announce anything on a topic; only a link shows who holds a grant. So orchestrators
//! are of two kinds. *Trusted* are those that were configured, and those that a link was had with,
//! in this run or one before: of these the node keeps the `k` that rank highest for it. *Strangers*
//! were only found: they are probed, few at a time, where there are too few links or where one
//! would rank among the `k`, and they never take the place of a trusted one in memory. However many
//! strangers crowd a topic, they delay the way to an orchestrator that is not known yet, and cannot
//! bar the way to one that is.

use crate::plan::{self, MAX_REDIAL_MS};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use tether_wire::{Digest, NodeId};

/// Most trusted orchestrators that are remembered beside the configured ones; of those that are not
/// linked the one linked longest ago makes room.
pub const MAX_PROVEN: usize = 64;
/// Most strangers that are remembered. One that was tried in vain makes room for one that was not.
pub const MAX_STRANGERS: usize = 256;
/// Most strangers that are dialled at once while there is no link at all.
pub const MAX_PROBES: usize = 16;
/// Strangers that are dialled at once while there is a link.
pub const PROBES: usize = 2;
/// Longest wait before an orchestrator is dialled again while there are other links. Without any it
/// is [`MAX_REDIAL_MS`]: a node that is cut off looks again within seconds, for ever.
pub const MAX_PATIENCE_MS: u64 = 60_000;
/// Look-ups in a row without a stranger after which it is forgotten.
const MAX_MISSED: u32 = 5;

/// How the link to an orchestrator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// None.
    Idle,
    /// One is being made; there may be a quiet one.
    Dialling,
    Up,
    /// Up, but nothing is heard: as good as lost, and dialled anew.
    Quiet,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// For this node; the highest is the best.
    rank: Digest,
    configured: bool,
    /// There was a link once: it holds a grant.
    proven: bool,
    standing: Standing,
    /// Failed dials since the last link.
    failures: u32,
    /// When it is to be dialled, and when at the latest while there is no link at all.
    dial_at_ms: u64,
    alone_at_ms: u64,
    /// Look-ups in a row that did not give it.
    missed: u32,
    /// When a link with it was seen last; 0 is never in this run.
    linked_ms: u64,
}

impl Known {
    fn is_trusted(&self) -> bool {
        self.configured || self.proven
    }
}

/// Where an orchestrator is known from. What comes first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// It was configured.
    Configured,
    /// A link was had with it, in this run or one before.
    Remembered,
    /// It was only found on the control topic: a stranger.
    Found,
}

/// An orchestrator that a node knows of, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Which one.
    pub id: NodeId,
    /// Where it is known from.
    pub source: Source,
    /// `in-use`, `spare`, `quiet`, `dialling`, or `not-linked`.
    pub state: &'static str,
    /// Failed dials since the last link.
    pub failures: u32,
    /// Look-ups in a row that did not give it.
    pub missed: u32,
    /// When a link with it was seen last; 0 is never in this run.
    pub linked_ms: u64,
    /// When it is dialled at the latest, if it is to be.
    pub dial_at_ms: Option<u64>,
}

/// The orchestrators that a node knows of.
#[derive(Clone, Debug)]
pub struct Uplinks {
    own: NodeId,
    k: usize,
    known: BTreeMap<NodeId, Known>,
}

impl Uplinks {
    /// For a node that wants `k` links. `configured` are never forgotten; `remembered` were linked
    /// with in an earlier run, the last of them first.
    #[must_use]
    pub fn new(own: NodeId, k: usize, configured: &[NodeId], remembered: &[NodeId]) -> Self {
        let mut plan = Self {
            own,
            k,
            known: BTreeMap::new(),
        };
        for id in configured {
            plan.entry(*id).configured = true;
        }
        for id in remembered.iter().take(MAX_PROVEN) {
            plan.entry(*id).proven = true;
        }
        plan.known.remove(&own);
        plan
    }

    fn entry(&mut self, id: NodeId) -> &mut Known {
        let rank = plan::score(&self.own, &id);
        self.known.entry(id).or_insert(Known {
            rank,
            configured: false,
            proven: false,
            standing: Standing::Idle,
            failures: 0,
            dial_at_ms: 0,
            alone_at_ms: 0,
            missed: 0,
            linked_ms: 0,
        })
    }

    /// A look-up gave these, in an order that nobody outside could choose. One that it did not give
    /// is kept for some more: a look-up on a DHT is not a roll call.
    pub fn found(&mut self, ids: &[NodeId]) {
        for known in self.known.values_mut() {
            known.missed = known.missed.saturating_add(1);
        }
        let own = self.own;
        for id in ids.iter().filter(|id| **id != own) {
            if self.known.contains_key(id) || self.has_room() {
                self.entry(*id).missed = 0;
            }
        }
        self.known.retain(|_, it| {
            it.is_trusted() || it.standing == Standing::Dialling || it.missed <= MAX_MISSED
        });
    }

    /// Makes room for one more stranger.
    fn has_room(&mut self) -> bool {
        let strangers = self.known.iter().filter(|(_, it)| !it.is_trusted());
        if strangers.clone().count() < MAX_STRANGERS {
            return true;
        }
        let least = strangers
            .filter(|(_, it)| it.failures > 0 && it.standing == Standing::Idle)
            .max_by_key(|(_, it)| (it.failures, Reverse(it.rank)))
            .map(|(id, _)| *id);
        least.is_some_and(|id| self.known.remove(&id).is_some())
    }

    /// The links with orchestrators that there are now, and whether they are quiet. `jitter` between
    /// 0 and 1 spreads the dials of a fleet that has lost the same orchestrator.
    pub fn linked(&mut self, links: &[(NodeId, bool)], now_ms: u64, jitter: f64) {
        for (id, known) in &mut self.known {
            let is_linked = links.iter().any(|(linked, _)| linked == id);
            if !is_linked && matches!(known.standing, Standing::Up | Standing::Quiet) {
                known.standing = Standing::Idle;
                // A lost link is dialled soon, and counts as a failure from the first dial on.
                known.dial_at_ms = now_ms + plan::redial_ms(1, jitter);
                known.alone_at_ms = known.dial_at_ms;
            }
        }
        for (id, quiet) in links {
            let known = self.entry(*id);
            known.proven = true;
            known.linked_ms = now_ms.max(1);
            known.missed = 0;
            match (quiet, known.standing) {
                (false, _) => {
                    known.standing = Standing::Up;
                    known.failures = 0;
                }
                (true, Standing::Up | Standing::Idle) => {
                    known.standing = Standing::Quiet;
                    known.dial_at_ms = now_ms + plan::redial_ms(1, jitter);
                    known.alone_at_ms = known.dial_at_ms;
                }
                (true, Standing::Dialling | Standing::Quiet) => {}
            }
        }
        self.forget_oldest();
    }

    /// Holds the trusted ones to their number.
    fn forget_oldest(&mut self) {
        loop {
            let proven = || self.known.iter().filter(|(_, it)| it.proven);
            if proven().count() <= MAX_PROVEN {
                return;
            }
            let oldest = proven()
                .filter(|(_, it)| !it.configured && it.standing == Standing::Idle)
                .min_by_key(|(_, it)| (it.linked_ms, Reverse(it.failures)))
                .map(|(id, _)| *id);
            let Some(oldest) = oldest else { return };
            self.known.remove(&oldest);
        }
    }

    /// A dial gave a link.
    pub fn answered(&mut self, id: &NodeId, now_ms: u64) {
        if let Some(known) = self.known.get_mut(id) {
            known.standing = Standing::Up;
            known.proven = true;
            known.failures = 0;
            known.linked_ms = now_ms.max(1);
        }
    }

    /// A dial came to nothing; how many have now, since the last link.
    pub fn failed(&mut self, id: &NodeId, now_ms: u64, jitter: f64) -> u32 {
        let Some(known) = self.known.get_mut(id) else {
            return 0;
        };
        known.standing = match known.standing {
            Standing::Dialling => Standing::Idle,
            other => other,
        };
        known.failures = known.failures.saturating_add(1);
        known.alone_at_ms = now_ms + plan::redial_ms(known.failures, jitter);
        known.dial_at_ms = now_ms + patience_ms(known.failures, jitter);
        known.failures
    }

    /// Those to dial now; each is under way until
    /// [`Self::answered`], [`Self::linked`] or [`Self::failed`] tells of it.
    pub fn take_due(&mut self, now_ms: u64) -> Vec<NodeId> {
        let due = self.due();
        let due = due.into_iter().filter(|(_, at_ms)| *at_ms <= now_ms);
        let due: Vec<NodeId> = due.map(|(id, _)| id).collect();
        let (trusted, strangers): (Vec<NodeId>, Vec<NodeId>) =
            due.into_iter().partition(|id| self.is_trusted(id));
        let mut dial = trusted;
        dial.extend(strangers.into_iter().take(self.probes_left()));
        for id in &dial {
            self.entry(*id).standing = Standing::Dialling;
        }
        dial
    }

    /// When the next dial is due.
    #[must_use]
    pub fn next_dial_ms(&self) -> Option<u64> {
        let no_probe = self.probes_left() == 0;
        self.due()
            .into_iter()
            .filter(|(id, _)| !no_probe || self.is_trusted(id))
            .map(|(_, at_ms)| at_ms)
            .min()
    }

    /// Those that should be dialled, and when: trusted ones first, then strangers in the order in
    /// which they are probed.
    fn due(&self) -> Vec<(NodeId, u64)> {
        let up = self.chosen();
        let alone = up.is_empty();
        let at_ms = |it: &Known| {
            if alone {
                it.dial_at_ms.min(it.alone_at_ms)
            } else {
                it.dial_at_ms
            }
        };
        let mut due = Vec::new();
        let mut wanted = self.k;
        for (id, it) in self.ranked().filter(|(_, it)| it.is_trusted()) {
            if wanted == 0 {
                break;
            }
            // One that fails is dialled still, and the next one in its place.
            let counts = match it.standing {
                Standing::Up => true,
                Standing::Quiet => false,
                Standing::Idle | Standing::Dialling => it.failures == 0 && it.linked_ms == 0,
            };
            wanted -= usize::from(counts);
            if matches!(it.standing, Standing::Idle | Standing::Quiet) {
                due.push((id, at_ms(it)));
            }
        }
        let least = (up.len() >= self.k).then(|| up.last().copied()).flatten();
        let least = least.and_then(|id| self.known.get(&id)).map(|it| it.rank);
        let mut strangers: Vec<(NodeId, &Known)> = self
            .ranked()
            .filter(|(_, it)| !it.is_trusted() && it.standing == Standing::Idle)
            .filter(|(_, it)| least.is_none_or(|least| it.rank > least))
            .collect();
        strangers.sort_by_key(|(_, it)| it.failures);
        due.extend(strangers.into_iter().map(|(id, it)| (id, at_ms(it))));
        due
    }

    /// How many more strangers may be dialled. Without a link: as many as links are wanted, and
    /// more of them at once the more were tried in vain.
    fn probes_left(&self) -> usize {
        let strangers = || self.known.values().filter(|it| !it.is_trusted());
        let tried = strangers().filter(|it| it.failures > 0).count();
        let most = if self.chosen().is_empty() {
            (2 * tried).max(self.k).min(MAX_PROBES)
        } else {
            PROBES
        };
        let under_way = strangers().filter(|it| it.standing == Standing::Dialling);
        most.saturating_sub(under_way.count())
    }

    /// The links to use: the `k` best of those that are up and not quiet, the best first.
    #[must_use]
    pub fn chosen(&self) -> Vec<NodeId> {
        self.up().take(self.k).collect()
    }

    /// Links beyond those: nobody needs them.
    #[must_use]
    pub fn surplus(&self) -> Vec<NodeId> {
        self.up().skip(self.k).collect()
    }

    fn up(&self) -> impl Iterator<Item = NodeId> {
        self.ranked()
            .filter(|(_, it)| it.standing == Standing::Up)
            .map(|(id, _)| id)
    }

    /// Everybody that is known, for people: the best for this node first. No more than there may be.
    #[must_use]
    pub fn views(&self) -> Vec<Uplink> {
        let (chosen, due) = (self.chosen(), self.due());
        let view = |(id, it): (NodeId, &Known)| Uplink {
            id,
            source: match it {
                it if it.configured => Source::Configured,
                it if it.proven => Source::Remembered,
                _ => Source::Found,
            },
            state: match it.standing {
                Standing::Up if chosen.contains(&id) => "in-use",
                Standing::Up => "spare",
                Standing::Quiet => "quiet",
                Standing::Dialling => "dialling",
                Standing::Idle => "not-linked",
            },
            failures: it.failures,
            missed: it.missed,
            linked_ms: it.linked_ms,
            dial_at_ms: due
                .iter()
                .find(|(other, _)| *other == id)
                .map(|(_, at)| *at),
        };
        self.ranked().map(view).collect()
    }

    /// Those to remember beyond this run: a link was had with each.
    pub fn proven(&self) -> impl Iterator<Item = NodeId> {
        let proven = self.known.iter().filter(|(_, it)| it.proven);
        proven.map(|(id, _)| *id)
    }

    /// Everybody that is known, the best for this node first.
    fn ranked(&self) -> impl Iterator<Item = (NodeId, &Known)> {
        let mut ranked: Vec<(NodeId, &Known)> =
            self.known.iter().map(|(id, it)| (*id, it)).collect();
        ranked.sort_unstable_by_key(|(id, it)| Reverse((it.rank, *id)));
        ranked.into_iter()
    }

    fn is_trusted(&self, id: &NodeId) -> bool {
        self.known.get(id).is_some_and(Known::is_trusted)
    }
}

/// Milliseconds until an orchestrator is dialled again that is not needed urgently.
fn patience_ms(failures: u32, jitter: f64) -> u64 {
    let wait = plan::redial_ms(failures, jitter);
    // The doublings go on where those of an urgent dial end.
    let more = failures.saturating_sub(6).min(16);
    let slow = wait.saturating_mul(1 << more).min(MAX_PATIENCE_MS);
    debug_assert!(wait <= MAX_REDIAL_MS);
    slow.max(wait)
}

#[cfg(test)]
#[path = "uplinks/tests.rs"]
mod tests;
