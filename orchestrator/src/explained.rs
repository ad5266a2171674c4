//! Why requests went where they went, kept for `tether explain`: of all that failed, and of a share of
//! the others. Bounded: the newest are kept. (SCH-1)
//!
//! Nothing of a prompt or an answer is here, and no message of a worker, which could hold some of
//! either: what a worker said is a code.

use crate::place::{Placed, Ranked};
use crate::score::{Terms, Weights};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tether_wire::rpc::Code;
use tether_wire::{CorrelationId, Digest, NodeId, Region, TenantId};

/// Failed requests that are kept, and as many others.
pub const MAX_EXPLAINED: usize = 512;
/// Orders of a request that are kept: the first ones.
pub const MAX_ORDERS: usize = 8;
/// Workers that were left alone by breakers that are kept of a request.
pub const MAX_LEFT_ALONE: usize = 64;

/// Why a request went where it went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The request, by its correlation id.
    pub request: CorrelationId,
    /// Whose it was.
    pub tenant: TenantId,
    /// The model: with its version, or as it was asked for where nobody knows it.
    pub model: String,
    /// The artifact that the name means.
    pub artifact: Option<Digest>,
    /// The model that was asked for, where another one was to answer.
    pub degraded_from: Option<String>,
    /// The rule of the policy that forbade it.
    pub rule: Option<String>,
    /// The region that it was placed from.
    pub region: Region,
    /// Unix milliseconds at which it came.
    pub came_ms: u64,
    /// Milliseconds until it ended.
    pub took_ms: u64,
    /// How it ended: `ok`, or the code of its error.
    pub outcome: &'static str,
    /// Blocks of its prompt's beginning that the gateway told of.
    pub prefix_blocks: usize,
    /// Orders that were given to workers, the first ones.
    pub orders: Vec<Order>,
    /// Further ones.
    pub orders_left_out: usize,
    /// Workers that it could not go to, since breakers left them alone: the first ones.
    pub left_alone: Vec<NodeId>,
}

/// An order to a worker.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Order {
    /// Milliseconds since the request came.
    pub after_ms: u64,
    /// The worker.
    pub worker: NodeId,
    /// Why this one, in words.
    pub reason: String,
    /// How it ended: `ok`, the code of its error, or `lost` where another one that was asked beside it
    /// was the first to give something.
    pub outcome: &'static str,
    /// Whether this worker was asked beside the one before it, which had given nothing yet.
    pub hedge: bool,
    /// How many workers were looked at.
    pub looked_at: usize,
    /// How much each term counted.
    pub weights: Weights,
    /// The best of them, of which the first got the order.
    pub candidates: Vec<Considered>,
}

/// A worker that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Considered {
    /// Which one.
    pub worker: NodeId,
    /// Weighted mean of the terms.
    pub score: f32,
    /// The terms, before weighting.
    pub terms: Terms,
    /// Requests that ran or waited there, by the best knowledge.
    pub load: f32,
    /// Requests that it runs at once.
    pub slots: u32,
    /// Blocks of the prompt's beginning that it was sent before.
    pub prefix_blocks: u32,
    /// Whether it had too much to do for that to count.
    pub over_bound: bool,
    /// Whether it was in doubt, so that all others came first.
    pub suspect: bool,
    /// Whether it is of another numerics class than what was given of the answer.
    pub other_class: bool,
}

impl Considered {
    fn of(ranked: &Ranked) -> Self {
        let worker = &ranked.candidate.worker;
        Self {
            worker: worker.id(),
            score: ranked.score,
            terms: ranked.terms,
            load: ranked.load,
            slots: worker.card().capacity,
            prefix_blocks: ranked.prefix_blocks,
            over_bound: ranked.over_bound,
            suspect: ranked.suspect,
            other_class: ranked.other_class,
        }
    }
}

/// Why the first of those that are ranked is the first.
pub(crate) fn reason(placed: &Placed) -> String {
    let mut reason = placed.choice.to_string();
    let Some(best) = placed.best() else {
        return reason;
    };
    let blocks = best.prefix_blocks;
    if best.suspect {
        reason.push_str("; it is in doubt, and so are all others");
    }
    if best.other_class {
        reason.push_str("; of another numerics class, of which there is nobody else");
    }
    if blocks > 0 && !best.over_bound {
        reason.push_str(&format!(
            "; {blocks} blocks of the prompt's beginning were sent to it before"
        ));
    }
    let kept_off = placed.ranked.iter().filter(|it| it.over_bound).count();
    if kept_off > 0 {
        reason.push_str(&format!(
            "; for {kept_off} that were sent the beginning that does not count: they have too much to do"
        ));
    }
    if !placed.left_alone.is_empty() {
        let count = placed.left_alone.len();
        reason.push_str(&format!("; breakers leave {count} alone"));
    }
    reason
}

/// The orders of a request under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    /// The first ones.
    pub(crate) first: Vec<Order>,
    /// Further ones.
    pub(crate) left_out: usize,
    /// Workers that it could not go to, each once.
    pub(crate) left_alone: Vec<NodeId>,
}

impl Orders {
    /// Somebody was looked for, and breakers left these alone.
    pub(crate) fn left_alone(&mut self, workers: &[NodeId]) {
        for worker in workers {
            if self.left_alone.len() < MAX_LEFT_ALONE && !self.left_alone.contains(worker) {
                self.left_alone.push(*worker);
            }
        }
    }

    /// An order went to the best, in place of those before or as a hedge beside the last. Where it is
    /// kept.
    pub(crate) fn gave(&mut self, placed: &Placed, after: Duration, hedge: bool) -> Option<usize> {
        let best = placed.best()?;
        if self.first.len() == MAX_ORDERS {
            self.left_out += 1;
            return None;
        }
        self.first.push(Order {
            after_ms: millis(after),
            worker: best.candidate.worker.id(),
            reason: reason(placed),
            outcome: Code::Internal.as_str(),
            hedge,
            looked_at: placed.choice.looked_at,
            weights: placed.weights,
            candidates: placed.ranked.iter().map(Considered::of).collect(),
        });
        Some(self.first.len() - 1)
    }

    /// The one that is kept there ended.
    pub(crate) fn ended(&mut self, at: Option<usize>, outcome: &'static str) {
        if let Some(order) = at.and_then(|at| self.first.get_mut(at)) {
            order.outcome = outcome;
        }
    }
}

/// Milliseconds of a duration.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The explanations that are kept.
#[derive(Debug, Default)]
pub struct Explanations {
    failed: Mutex<VecDeque<Arc<Explanation>>>,
    others: Mutex<VecDeque<Arc<Explanation>>>,
}

impl Explanations {
    /// Keeps one that failed, or one of the others where `is_drawn`.
    pub fn keep(&self, explanation: Explanation, is_drawn: bool) {
        let kept = match explanation.outcome {
            // That its caller went is nobody's failure.
            "ok" => is_drawn.then_some(&self.others),
            code if code == Code::Cancelled.as_str() => is_drawn.then_some(&self.others),
            _ => Some(&self.failed),
        };
        let Some(kept) = kept else { return };
        let mut kept = lock(kept);
        if kept.len() == MAX_EXPLAINED {
            kept.pop_front();
        }
        kept.push_back(Arc::new(explanation));
    }

    /// Those of requests whose ids begin so, the newest first.
    #[must_use]
    pub fn find(&self, hex: &str) -> Vec<Arc<Explanation>> {
        let mut found: Vec<_> = [&self.failed, &self.others]
            .into_iter()
            .flat_map(|kept| {
                let kept = lock(kept);
                let is_it = |it: &&Arc<Explanation>| it.request.to_hex().starts_with(hex);
                kept.iter().filter(is_it).cloned().collect::<Vec<_>>()
            })
            .collect();
        found.sort_by_key(|it| std::cmp::Reverse(it.came_ms));
        found
    }

    /// How many failed requests are kept, and how many others.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (lock(&self.failed).len(), lock(&self.others).len())
    }
}

type Kept = VecDeque<Arc<Explanation>>;

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "explained/tests.rs"]
mod tests;
