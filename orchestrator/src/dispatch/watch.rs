//! A worker whose answer went to another one since its next piece was overdue: whether that was a
//! false alarm. (SCH-8)
//!
//! The call stays open until it says something, which shows that it only took longer, or until its
//! link is quiet or its time is over. The next answers of that worker are waited for longer after a
//! false alarm; so what was given up too early is not given up so again and again.

use super::Dispatcher;
use super::vigil::Vigil;
use crate::clock;
use crate::fleet::InFlight;
use std::time::Duration;
use tether_net::Call;
use tether_wire::{ModelRef, NodeId};

/// An answer that went to another worker.
pub(super) struct Left {
    pub(super) worker: NodeId,
    pub(super) model: ModelRef,
    pub(super) call: Call,
    pub(super) vigil: Vigil,
    /// It still has the request.
    pub(super) busy: InFlight,
}

impl Dispatcher {
    /// Follows it, bounded by the stall timeout, and ends its call.
    pub(super) fn watch(&self, mut left: Left) {
        let limit = Duration::from_millis(self.config.stall_timeout_ms);
        let (paces, metrics) = (self.paces.clone(), self.metrics.clone());
        let draining = self.draining.clone();
        self.open.spawn(async move {
            let quiet = left.call.link().until_quiet();
            let lives = tokio::select! {
                biased;
                () = draining.cancelled() => false,
                item = left.call.next() => matches!(item, Ok(Some(_))),
                () = quiet => false,
                () = tokio::time::sleep(limit) => false,
            };
            if lives {
                left.vigil.piece(clock::now().mono_ms);
                paces.learn(left.worker, &left.model, left.vigil.learnt());
                metrics.false_alarm();
                tracing::info!(worker = %left.worker.short(), "it goes on after its answer was handed over");
            }
            drop(left.busy);
        });
    }
}
