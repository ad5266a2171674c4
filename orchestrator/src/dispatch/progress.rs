//! How far an answer is: what was given of it, by whom it may be continued, and how often it was
//! tried. Pure. (SCH-4, SCH-8)
//!
//! Whether it is tried again is decided by [`crate::retry`], by what is kept here.

use crate::retry::{Failure, MAX_HAND_OVERS, Tries};
use tether_wire::NodeId;
use tether_wire::infer::{Chunk, Resume};
use tether_wire::receipt::hash::Given;

/// How far an answer is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Orders that were given, those of owners before included.
    attempts: u32,
    /// Those since the answer last made progress, and how often it changed hands.
    tries: Tries,
    /// Workers that had an order, and the boot epochs of their processes then. Those that failed at it
    /// are asked again when no other is left.
    tried: Vec<(NodeId, u64)>,
    /// Whether the last of them gave anything.
    has_given: bool,
    /// Workers that asked to be left alone, and until when.
    resting: Vec<(NodeId, u64)>,
    prompt_tokens: Option<u32>,
    /// Ids of the tokens that were given, or that a gateway says were.
    transcript: Vec<u32>,
    /// Tokens in the log.
    tokens: u32,
    /// Those that a gateway was given by an owner before.
    given_before: u32,
    /// Somebody was given some of it by an owner before.
    goes_on: bool,
    /// Whether anything is in the log.
    has_begun: bool,
    /// Since when workers that are full refuse to go on with it.
    refused_since_ms: Option<u64>,
    /// Some tokens have no id.
    is_nameless: bool,
    /// What is in the log.
    given: Given,
    /// In which it was given.
    numerics_class: String,
    /// Who made it for an owner that is lost, until somebody has an order here.
    left_at: Option<NodeId>,
}

impl Progress {
    /// Of a request that nobody had, or that was ordered so often by another orchestrator.
    pub(crate) fn new(resume: Option<Resume>, has_logprobs: bool, attempts: u32) -> Self {
        let nothing = Self {
            attempts,
            ..Self::default()
        };
        let Some(started) = resume.and_then(|resume| resume.started) else {
            return nothing;
        };
        Self {
            goes_on: true,
            given_before: u32::try_from(started.transcript.len()).unwrap_or(u32::MAX),
            // Those that are told again come without logprobs, and this log has none.
            transcript: if has_logprobs {
                Vec::new()
            } else {
                started.transcript
            },
            numerics_class: started.numerics_class,
            left_at: started.worker,
            ..nothing
        }
    }

    /// In which class it is to be made, preferably, where it was begun in one before.
    pub(crate) fn preferring(mut self, class: Option<String>) -> Self {
        if let Some(class) = class {
            self.numerics_class = class;
        }
        self
    }

    /// Orders that were given.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Workers that are not asked now.
    pub(crate) fn not_now(&self, now_ms: u64) -> Vec<NodeId> {
        let resting = self.resting.iter().filter(|(_, until)| *until > now_ms);
        let resting = resting.map(|(worker, _)| *worker);
        let tried = self.tried.iter().map(|(worker, _)| *worker);
        tried.chain(resting).collect()
    }

    /// The last of those that had an order.
    pub(crate) fn last(&self) -> Option<NodeId> {
        self.tried.last().map(|(worker, _)| *worker)
    }

    /// Tokens in the log.
    pub(crate) fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Tokens that the tenant was given, by whomever.
    pub(crate) fn given_tokens(&self) -> u32 {
        self.tokens.max(self.given_before)
    }

    /// Tokens of the prompt, once they were counted.
    pub(crate) fn prompt_tokens(&self) -> u32 {
        self.prompt_tokens.unwrap_or(0)
    }

    /// What the next worker goes on behind.
    pub(crate) fn transcript(&self) -> &[u32] {
        &self.transcript
    }

    /// The class in which it goes on exactly; nothing before it began.
    pub(crate) fn numerics_class(&self) -> Option<&str> {
        (!self.numerics_class.is_empty()).then_some(self.numerics_class.as_str())
    }

    /// Who may be at it still, for an owner that is lost, and goes on with it as it stands. [T-INF-15]
    pub(crate) fn left_at(&self) -> Option<NodeId> {
        self.left_at
    }

    /// Whether anything was given.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether anything was given, here or by an owner before: somebody reads it.
    pub(crate) fn goes_on(&self) -> bool {
        self.has_begun || self.goes_on
    }

    /// Whether another worker can go on.
    pub(crate) fn can_go_on(&self) -> bool {
        !self.is_nameless && self.tries.hand_overs < MAX_HAND_OVERS
    }

    /// An order goes to a worker, in the process of this boot epoch.
    pub(crate) fn ordered(&mut self, worker: NodeId, epoch: u64) {
        self.attempts += 1;
        self.tries.attempts = self.tries.attempts.max(1);
        self.tried.push((worker, epoch));
        self.left_at = None;
        self.has_given = false;
        // What one said who gave nothing binds nobody.
        if !self.has_begun {
            self.prompt_tokens = None;
        }
    }

    /// Another worker was asked beside the last one. Whether it is the one that goes on, or the last
    /// one is. Both were tries; who only was slower may be asked again.
    pub(crate) fn hedged(&mut self, (worker, epoch): (NodeId, u64), goes_on: bool, is_tried: bool) {
        self.attempts += 1;
        self.tries.attempts += 1;
        if goes_on {
            self.tried.push((worker, epoch));
        } else if is_tried {
            let before_last = self.tried.len().saturating_sub(1);
            self.tried.insert(before_last, (worker, epoch));
        }
    }

    /// Whether the prompt is counted as before, where it was.
    pub(crate) fn counts(&self, prompt_tokens: u32) -> bool {
        self.prompt_tokens.is_none_or(|it| it == prompt_tokens)
    }

    /// The prompt was counted. Whether as before.
    pub(crate) fn counted(&mut self, prompt_tokens: u32) -> bool {
        *self.prompt_tokens.get_or_insert(prompt_tokens) == prompt_tokens
    }

    /// Whether a beginning that was told again is the one that was given.
    pub(crate) fn agrees(&self, told: &Given) -> bool {
        let digests = |it: &Given| (it.text(), it.calls(), it.tokens());
        digests(told) == digests(&self.given)
    }

    /// A piece is given, made in this class.
    pub(crate) fn gave(&mut self, chunk: &Chunk, numerics_class: &str) {
        let at = chunk.position as usize;
        // A gateway's transcript is there before the log is.
        if at >= self.transcript.len() {
            self.transcript.extend_from_slice(&chunk.tokens);
        }
        self.has_begun = true;
        self.refused_since_ms = None;
        self.is_nameless |= chunk.unnamed > 0;
        self.tokens = self
            .tokens
            .saturating_add(chunk.positions().unwrap_or(u32::MAX));
        self.given.take(chunk);
        if self.numerics_class != numerics_class {
            numerics_class.clone_into(&mut self.numerics_class);
        }
        self.has_given = true;
    }

    /// How the last order failed. Of what a gateway was given elsewhere somebody waits as well.
    pub(crate) fn failure(&self) -> Failure {
        match (self.has_given, self.goes_on()) {
            // Nobody could go on.
            _ if self.is_nameless => Failure::Final,
            (true, _) => Failure::AfterProgress,
            (false, true) => Failure::Between,
            (false, false) => Failure::Early,
        }
    }

    /// What it went through, with the last order.
    pub(crate) fn tries(&self) -> Tries {
        self.tries
    }

    /// It is tried again.
    pub(crate) fn again(&mut self, tries: Tries) {
        self.tries = tries;
    }

    /// A worker that had an order is to be left alone for a while; after it, it may be asked again.
    pub(crate) fn rests(&mut self, worker: NodeId, until_ms: u64) {
        if let Some(at) = self.tried.iter().rposition(|(it, _)| *it == worker) {
            self.tried.remove(at);
            self.resting.retain(|(it, _)| *it != worker);
            self.resting.push((worker, until_ms));
        }
    }

    /// For how long, in milliseconds, workers that are full refuse to go on with it, one of them now.
    pub(crate) fn refused_for(&mut self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(*self.refused_since_ms.get_or_insert(now_ms))
    }

    /// When the first of those that rest may be asked again.
    pub(crate) fn rested_ms(&self) -> Option<u64> {
        self.resting.iter().map(|(_, until_ms)| *until_ms).min()
    }

    /// Those that were restarted since are other processes, which may be asked as any that was not.
    pub(crate) fn forgive_restarted(&mut self, epoch_now: impl Fn(&NodeId) -> Option<u64>) {
        (self.tried).retain(|(worker, epoch)| epoch_now(worker).is_none_or(|now| now <= *epoch));
    }

    /// Nobody else is left: all may be tried again, the last one when it is alone.
    pub(crate) fn forgive(&mut self) {
        let all_but_last = self.tried.len().saturating_sub(1).max(1);
        self.tried.drain(..all_but_last.min(self.tried.len()));
    }
}

#[cfg(test)]
#[path = "progress/tests.rs"]
mod tests;
