//! Reaching a worker: the link to it, and that it takes an order.

use super::Dispatcher;
use super::attempt::Opened;
use super::check::{Check, Seen};
use super::hear::next;
use super::outcome::End;
use super::run::Run;
use super::search::LOOK;
use super::vigil::{self, Vigil};
use crate::clock;
use std::time::{Duration, Instant};
use tether_net::Link;
use tether_wire::codec;
use tether_wire::infer::WorkOrder;
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{NodeId, Role};
use tokio::time::{sleep, timeout, timeout_at};

/// Slack of the worker's deadline over ours, so that ours is the one that is told.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// How long a worker that does not answer may be starved, and is waited for, by a request that was given
/// nothing and that nobody else can take.
const SILENCE: Duration = Duration::from_millis(1_500);
/// Bytes of an order for which one more millisecond is given: 4 MB in a second.
const BYTES_PER_MS: usize = 4_096;

impl Dispatcher {
    /// Gives the order to the worker, which must take it in time.
    pub(super) async fn accepted(
        &self,
        run: &Run,
        worker: NodeId,
        order: &WorkOrder,
        check: &mut Check,
    ) -> Result<Opened, End> {
        let link = self.link(worker).await.map_err(End::Fault)?;
        let body = codec::encode(order);
        let began = Instant::now();
        let extra_ms = u64::try_from(body.len() / BYTES_PER_MS).unwrap_or(u64::MAX);
        let patience =
            Duration::from_millis(self.config.accept_timeout_ms.saturating_add(extra_ms));
        let left = run
            .deadline
            .saturating_duration_since(tokio::time::Instant::now());
        let by = tokio::time::Instant::from_std(began + patience);
        let exchange = async {
            let mut call = link
                .call(method::INFER, Some(left + DEADLINE_SLACK), &body)
                .await
                .map_err(End::Fault)?;
            call.finish_sending().await;
            loop {
                match next(&mut call, check).await? {
                    Seen::Accepted(accepted) => {
                        let learnt = self.paces.of(worker, &order.model);
                        let now_ms = clock::now().mono_ms;
                        return Ok(Opened {
                            worker,
                            vigil: Vigil::new(self.limits(), learnt, now_ms),
                            quiet: Box::pin(call.link().until_unanswered()),
                            is_quiet: false,
                            call,
                            trial: None,
                            untold: Some(accepted),
                            numerics_class: String::new(),
                            is_left: false,
                            planned: None,
                            again: Vec::new(),
                            again_bytes: 0,
                        });
                    }
                    Seen::Nothing => {}
                    Seen::Begun(_) | Seen::Again(_) | Seen::Chunk(_) | Seen::Done(_) => {
                        return Err(End::Fault(RpcError::new(
                            Code::Internal,
                            "the worker answers what it did not accept",
                        )));
                    }
                }
            }
        };
        let exchange = async {
            tokio::select! {
                biased;
                opened = exchange => opened,
                () = self.given_up(&link, run, worker) => Err(self.is_silent(worker).await),
            }
        };
        match timeout_at(by, exchange).await {
            Ok(opened) => {
                if opened.is_ok() {
                    self.metrics.accepted(began.elapsed());
                }
                opened
            }
            Err(_) => {
                self.fleet
                    .suspect(worker, "it did not accept an order in time")
                    .await;
                Err(End::Fault(RpcError::new(
                    Code::Unavailable,
                    format!("worker {} does not answer", worker.short()),
                )))
            }
        }
    }

    /// Waits until a worker of which nothing is heard is left. One that is heard again is not.
    async fn given_up(&self, link: &Link, run: &Run, worker: NodeId) {
        while link.is_up() {
            link.until_unanswered().await;
            let since = Instant::now();
            while link.is_up() && link.is_quiet() {
                if is_given_up(run, since.elapsed())
                    || (self.can_leave(run, worker) && self.may_retry(run))
                {
                    return;
                }
                sleep(LOOK).await;
            }
        }
    }

    /// Whether another than this worker can go on.
    pub(super) fn can_leave(&self, run: &Run, worker: NodeId) -> bool {
        run.progress.can_go_on() && self.has_other(run, worker)
    }

    /// The worker's link is quiet, or was lost at this moment.
    pub(super) async fn is_silent(&self, worker: NodeId) -> End {
        self.fleet.suspect(worker, "its link is silent").await;
        End::Fault(RpcError::new(
            Code::Unavailable,
            format!("nothing is heard of worker {}", worker.short()),
        ))
    }

    /// The link to a worker: the one that it opened to us, or a new one. One that is quiet is not
    /// dialled: a worker that was restarted links by itself, and others may serve at once.
    async fn link(&self, worker: NodeId) -> Result<Link, RpcError> {
        let unreachable = |why: String| {
            RpcError::new(
                Code::Unavailable,
                format!("worker {} cannot be reached: {why}", worker.short()),
            )
        };
        let Some(node) = self.node.get() else {
            return Err(unreachable("this node is starting".to_owned()));
        };
        // Only one that is up, as it is for candidates.
        if let Some(link) = node.linked(&worker) {
            if link.is_quiet() {
                self.fleet.suspect(worker, "its link is silent").await;
                return Err(unreachable("nothing is heard of it".to_owned()));
            }
            return Ok(link);
        }
        let patience = Duration::from_millis(self.config.dial_timeout_ms);
        let why = match timeout(patience, node.link(worker, Role::Worker)).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no link within {} ms", patience.as_millis()),
        };
        (self.fleet.unreachable(worker, "it cannot be linked")).await;
        Err(unreachable(why))
    }

    fn limits(&self) -> vigil::Limits {
        vigil::Limits {
            queue_ms: self.config.queue_timeout_ms,
            first_ms: self.config.first_token_timeout_ms,
            stall_ms: self.config.stall_timeout_ms,
        }
    }

    pub(super) async fn is_stalled(&self, worker: NodeId) -> End {
        self.fleet.suspect(worker, "its answer stalled").await;
        End::Fault(RpcError::new(
            Code::Unavailable,
            format!("worker {} sends nothing any more", worker.short()),
        ))
    }
}

/// Whether a worker is left of which nothing has been heard for so long, whoever else is there.
pub(super) fn is_given_up(run: &Run, silent: Duration) -> bool {
    silent >= SILENCE && !run.progress.has_begun()
}
