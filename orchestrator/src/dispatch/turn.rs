//! A request's turn: it goes on when there is a place for it at a worker, waits in its model's queue,
//! or is told at once that it would wait in vain. (SCH-5, SCH-7)

use super::Dispatcher;
use super::log::AnswerLog;
use super::run::Run;
use super::waiting::{Entered, Spent, Turn, Vain, Within};
use crate::clock;
use crate::policy::Effective;
use crate::queue::{Entry, MAX_RETRY_AFTER_MS, Shed, Why};
use crate::warmth::Warm;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::infer::{InferRequest, PromptSize};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef};
use tokio_util::sync::CancellationToken;

/// How often those who wait are looked after, whatever happens: workers tell of their load, and
/// breakers let somebody through, without a word here.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked whether somebody serves at all what they wait for, in milliseconds.
const FORSAKE_MS: u64 = 500;
/// Bytes of a prompt that are as much work as a token of an answer: reading is quicker than writing.
const BYTES_OF_WORK: usize = 32;
/// Tokens of an answer whose length nobody bounded, and of one that is bounded by more.
const LIKELY_TOKENS: u32 = 256;
const MOST_TOKENS: u32 = 2_048;

impl Dispatcher {
    /// Waits for the turn of a request. With what it took of its tenant's share, where it had to wait.
    pub(super) async fn turn(
        &self,
        request: &InferRequest,
        (model, digest): (&ModelRef, Digest),
        rules: &Arc<Effective>,
        deadline: tokio::time::Instant,
        log: &AnswerLog,
    ) -> Result<(Turn, Option<Spent>), RpcError> {
        let now_ms = clock::now().mono_ms;
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let (work, bytes) = size(request);
        let limit_ms = left_ms
            .saturating_sub(self.config.retry.least_left_ms)
            .min(self.config.queue_timeout_ms);
        let (cautious_ms, most_ms) = self.waiting.turn_within_ms(model, work, left_ms);
        let (cautious_ms, most_ms) = (cautious_ms.min(limit_ms), most_ms.min(limit_ms));
        let share = rules.share(self.shares.load().of(&request.tenant));
        let entry = Entry {
            tenant: request.tenant.clone(),
            weight: share.weight,
            priority: share.priority,
            work,
            bytes,
            turn_by_ms: now_ms.saturating_add(most_ms),
            margin_ms: most_ms - cautious_ms,
            what: rules.clone(),
        };
        let free = |within: Within<'_>| self.free((model, &digest), within);
        let mut waiter = match self.waiting.enter((model, digest), entry, free, now_ms) {
            Entered::Turn(turn) => return Ok((turn, None)),
            Entered::Waits(waiter) => waiter,
            Entered::Shed(shed) => return Err(refusal(&shed)),
        };
        let turn = tokio::select! {
            biased;
            () = log.abandoned() => {
                return Err(RpcError::new(Code::Cancelled, "the caller went away"));
            }
            () = self.stop.cancelled() => return Err(super::stopping()),
            turn = waiter.turn() => turn,
            () = tokio::time::sleep_until(deadline) => Err(Vain::Late),
        };
        let then_ms = clock::now().mono_ms;
        let waited_ms = then_ms.saturating_sub(now_ms);
        (self.metrics).waited(Duration::from_millis(waited_ms));
        match turn {
            Ok((turn, spent)) => Ok((turn, Some(spent))),
            Err(Vain::Unserved) => Err(self.nothing_serves_now((model, &digest), rules)),
            Err(Vain::Late) => {
                let why = "every worker of this model is busy: the request had no turn in time";
                let estimate_ms = waiter
                    .estimate_ms(then_ms)
                    .unwrap_or(self.config.retry_after_ms);
                let estimate_ms = estimate_ms.clamp(1, MAX_RETRY_AFTER_MS);
                Err(RpcError::new(Code::Overloaded, why).with_retry_after_ms(estimate_ms))
            }
        }
    }

    /// Makes good what the turn of a request was charged too much or too little: by the tokens that its
    /// answer had.
    pub(super) fn settle(run: &mut Run) {
        // Where no worker read the prompt the turn came to nothing, and what it took is given back.
        if let Some(spent) = run.spent.take()
            && run.progress.prompt_tokens() > 0
        {
            let tokens = run.progress.given_tokens();
            spent.settle(i64::from(tokens) - i64::from(likely_tokens(&run.request)));
        }
    }

    /// Calls those whose turn it is, until the end.
    pub(crate) async fn attend(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.fleet.changes();
        let mut forsake_ms = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.waiting.woken() => {}
                _ = changes.changed(), if !self.waiting.is_empty() => {}
                () = tokio::time::sleep(LOOK), if !self.waiting.is_empty() => {}
            }
            let free = |model: &ModelRef, digest: &Digest, within: Within<'_>| {
                self.free((model, digest), within)
            };
            let now_ms = clock::now().mono_ms;
            self.waiting.call(free, now_ms);
            if now_ms >= forsake_ms {
                forsake_ms = now_ms.saturating_add(FORSAKE_MS);
                let serves = |model: &ModelRef, digest: &Digest, within: Within<'_>| {
                    self.serves((model, digest), within)
                };
                let patience_ms = self.config.hand_over_timeout_ms;
                self.waiting.forsake(serves, patience_ms, now_ms);
            }
        }
    }

    /// Whether somebody serves a model in these regions, or is tried by others.
    fn serves(&self, model: (&ModelRef, &Digest), within: Within<'_>) -> bool {
        let fleet = self.fleet.snapshot();
        let (found, barred) = self.candidates(&fleet, model, within, &Warm::default());
        !found.is_empty() || barred.is_tried
    }

    /// Places at the workers of a model, in these regions.
    pub(super) fn free(&self, model: (&ModelRef, &Digest), within: Within<'_>) -> u32 {
        let fleet = self.fleet.snapshot();
        let (found, _) = self.candidates(&fleet, model, within, &Warm::default());
        let ahead = self.config.queue.ahead_percent;
        let places = (found.iter()).map(|it| (&**it.worker, it.worker.places(ahead)));
        self.breaking.places(places, model.0)
    }
}

/// How much work a request is, and how many bytes it holds.
pub(super) fn size(request: &InferRequest) -> (u32, usize) {
    let bytes = PromptSize::of(&request.input, &request.output).bytes();
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let read = u32::try_from(bytes / BYTES_OF_WORK).unwrap_or(u32::MAX);
    (read.saturating_add(likely_tokens(request)), bytes)
}

/// Tokens that its answer is thought to have.
fn likely_tokens(request: &InferRequest) -> u32 {
    let tokens = request.sampling.max_tokens.unwrap_or(LIKELY_TOKENS);
    tokens.min(MOST_TOKENS)
}

fn refusal(shed: &Shed<()>) -> RpcError {
    let why = match shed.why {
        Why::TooLate => {
            "every worker of this model is busy: the request would have no turn in time"
        }
        Why::TenantFull => {
            "every worker of this model is busy, and too many of this tenant's requests wait"
        }
        Why::Full => "every worker of this model is busy, and too many requests wait",
    };
    RpcError::new(Code::Overloaded, why).with_retry_after_ms(shed.retry_after_ms)
}
