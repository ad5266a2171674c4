//! A worker whose answer went to another one since its next piece was overdue: whether that was a
//! false alarm. (SCH-8)
//!
//! The call stays open until it says something, which shows that it only took longer, or until its
//! link is quiet or its time is over. The next answers of that worker are waited for longer after a
//! false alarm; so what was given up too early is not given up so again and again.

use super::Dispatcher;
use super::attempt::Opened;
use crate::breaker::Outcome;
use crate::clock;
use crate::fleet::InFlight;
use std::time::Duration;
use tether_wire::ModelRef;

/// An answer that went to another worker.
pub(super) struct Left {
    pub(super) model: ModelRef,
    pub(super) opened: Opened,
    /// It still has the request.
    pub(super) busy: InFlight,
}

impl Dispatcher {
    /// Follows it, bounded by the stall timeout, and ends its call.
    pub(super) fn watch(&self, left: Left) {
        let Left {
            model,
            mut opened,
            busy,
        } = left;
        let limit = Duration::from_millis(self.config.stall_timeout_ms);
        let (paces, metrics) = (self.paces.clone(), self.metrics.clone());
        let (draining, waiting) = (self.draining.clone(), self.waiting.clone());
        self.open.spawn(async move {
            let quiet = opened.call.link().until_quiet();
            // What it did, where it said nothing more.
            let outcome = tokio::select! {
                biased;
                // Nobody is blamed for what was not waited for.
                () = draining.cancelled() => return,
                item = opened.call.next() => match item {
                    Ok(Some(_)) => None,
                    Ok(None) => Some(Outcome::Fault),
                    // Its caller's time may have been short.
                    Err(error) => Some(Outcome::of_error(error.code)),
                },
                () = quiet => Some(Outcome::Fault),
                () = tokio::time::sleep(limit) => Some(Outcome::Fault),
            };
            if let (Some(outcome), Some(trial)) = (outcome, opened.trial.take()) {
                trial.end(outcome);
            }
            if outcome.is_none() {
                opened.vigil.piece(clock::now().mono_ms);
                paces.learn(opened.worker, &model, opened.vigil.learnt());
                metrics.false_alarm();
                let worker = opened.worker.short();
                tracing::info!(%worker, "it goes on after its answer was handed over");
            }
            drop(busy);
            waiting.wake();
        });
    }
}
