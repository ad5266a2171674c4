//! What an orchestrator decides.

use super::labels::{ByPriority, KindState, Outcome, Reason, RoleState, State};
use super::registry::{
    FIRST_TOKEN_SECONDS, Histograms, REQUEST_SECONDS, Registry, SHORT_SECONDS, SIZES,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;
use std::sync::Arc;
use std::time::Duration;

/// Metrics of an orchestrator.
#[derive(Debug)]
pub struct OrchestratorMetrics {
    heartbeats_accepted: Counter,
    heartbeats_rejected: Family<Reason, Counter>,
    fleet: Family<State, Gauge>,
    nodes: Family<RoleState, Gauge>,
    dispatches: Family<Outcome, Counter>,
    retries: Family<Reason, Counter>,
    give_ups: Family<Reason, Counter>,
    hand_overs: Family<Reason, Counter>,
    hedges: Family<Outcome, Counter>,
    joined: Counter,
    false_alarms: Counter,
    breakers: Family<KindState, Gauge>,
    breaker_turns: Family<KindState, Counter>,
    waiting: Family<ByPriority, Gauge>,
    shed: Family<Reason, Counter>,
    wait_seconds: Histogram,
    answered_again: Counter,
    taken_over: Family<Reason, Counter>,
    abandoned: Counter,
    policy_refusals: Family<Reason, Counter>,
    policy_reads: Family<Outcome, Counter>,
    policy_outdated: Gauge,
    degraded: Family<Reason, Counter>,
    receipts: Family<Outcome, Counter>,
    attempt_seconds: Histograms<Outcome>,
    accept_seconds: Histogram,
    first_token_seconds: Histogram,
    jobs: Family<State, Gauge>,
    commit_seconds: Histogram,
    commit_size: Histogram,
    subscribers: Gauge,
    in_flight: Gauge,
}

impl OrchestratorMetrics {
    /// Registers them, or gives those that are registered.
    pub fn register(registry: &Registry) -> Arc<Self> {
        registry.once(|d| Self {
            heartbeats_accepted: d.counter(
                "tether_orchestrator_heartbeats_accepted",
                "Heartbeats that were believed",
            ),
            heartbeats_rejected: d.add(
                "tether_orchestrator_heartbeats_rejected",
                "Heartbeats that were dropped, by reason",
                Family::default(),
            ),
            fleet: d.add(
                "tether_orchestrator_fleet_workers",
                "Workers in the fleet view, by state",
                Family::default(),
            ),
            nodes: d.add(
                "tether_orchestrator_nodes",
                "Gateways and orchestrators that are there, by role and state",
                Family::default(),
            ),
            dispatches: d.add(
                "tether_orchestrator_dispatches",
                "Requests that ended, by outcome",
                Family::default(),
            ),
            retries: d.add(
                "tether_orchestrator_retries",
                "Attempts after the first one, by the reason of the one before",
                Family::default(),
            ),
            hand_overs: d.add(
                "tether_orchestrator_hand_overs",
                "Answers that another worker went on with, by the reason why the one before did not",
                Family::default(),
            ),
            hedges: d.add(
                "tether_orchestrator_hedges",
                "Times that it was time for a second worker beside the first, by what became of it (won, adopted, lost, failed, cancelled) or why none was asked (others-wait, no-worker, no-budget)",
                Family::default(),
            ),
            false_alarms: d.counter(
                "tether_orchestrator_false_alarms",
                "Answers that were handed over since a piece was overdue, and whose worker went on",
            ),
            joined: d.counter(
                "tether_orchestrator_joined",
                "Requests whose key was repeated while its answer was given, and that were given the same",
            ),
            give_ups: d.add(
                "tether_orchestrator_give_ups",
                "Requests that were not tried again after a worker failed, by why not",
                Family::default(),
            ),
            breakers: d.add(
                "tether_orchestrator_breakers",
                "Breakers of workers, models and regions that are not closed",
                Family::default(),
            ),
            breaker_turns: d.add(
                "tether_orchestrator_breaker_turns",
                "Times that a breaker opened or closed",
                Family::default(),
            ),
            waiting: d.add(
                "tether_orchestrator_requests_waiting",
                "Requests that wait for a place at a worker, by priority",
                Family::default(),
            ),
            shed: d.add(
                "tether_orchestrator_requests_shed",
                "Requests that were refused before they waited, by why",
                Family::default(),
            ),
            wait_seconds: d.add_in(
                "tether_orchestrator_wait_duration",
                "Time for which requests that waited for a place did so",
                Unit::Seconds,
                REQUEST_SECONDS.new_metric(),
            ),
            answered_again: d.counter(
                "tether_orchestrator_answered_again",
                "Requests whose key was repeated after its answer, and that were given what is kept",
            ),
            taken_over: d.add(
                "tether_orchestrator_taken_over",
                "Open jobs that this orchestrator took over, by why it could",
                Family::default(),
            ),
            abandoned: d.counter(
                "tether_orchestrator_abandoned",
                "Open jobs that were ended as failed since nobody came for them",
            ),
            policy_refusals: d.add(
                "tether_orchestrator_policy_refusals",
                "Requests that the policy forbids, by what of them",
                Family::default(),
            ),
            policy_reads: d.add(
                "tether_orchestrator_policy_reads",
                "Times that a changed policy was read, by whether it was taken (ok) or refused",
                Family::default(),
            ),
            policy_outdated: d.gauge(
                "tether_orchestrator_policy_outdated",
                "1 while the policy's file is refused and an older one counts",
            ),
            degraded: d.add(
                "tether_orchestrator_degraded",
                "Requests that were given to a smaller model, by why the one that was asked for did not take them",
                Family::default(),
            ),
            receipts: d.add(
                "tether_orchestrator_receipts",
                "Whole answers, by whether the worker's receipt is right, wrong or missing",
                Family::default(),
            ),
            attempt_seconds: d.add_in(
                "tether_orchestrator_attempt_duration",
                "Time of one attempt at one worker, by outcome",
                Unit::Seconds,
                Family::new_with_constructor(REQUEST_SECONDS),
            ),
            accept_seconds: d.add_in(
                "tether_orchestrator_accept_duration",
                "Time from the order to the worker's acceptance",
                Unit::Seconds,
                SHORT_SECONDS.new_metric(),
            ),
            first_token_seconds: d.add_in(
                "tether_orchestrator_time_to_first_chunk",
                "Time from the submission to the first chunk of the answer",
                Unit::Seconds,
                FIRST_TOKEN_SECONDS.new_metric(),
            ),
            jobs: d.add(
                "tether_orchestrator_jobs",
                "Jobs in the store, by state",
                Family::default(),
            ),
            commit_seconds: d.add_in(
                "tether_orchestrator_store_commit_duration",
                "Time of one commit of the store",
                Unit::Seconds,
                SHORT_SECONDS.new_metric(),
            ),
            commit_size: d.add(
                "tether_orchestrator_store_commit_operations",
                "Operations that share one commit of the store",
                SIZES.new_metric(),
            ),
            subscribers: d.gauge(
                "tether_orchestrator_directory_subscribers",
                "Gateways that follow the directory",
            ),
            in_flight: d.gauge(
                "tether_orchestrator_requests_in_flight",
                "Requests that are being dispatched or answered",
            ),
        })
    }

    /// A heartbeat was believed.
    pub fn heartbeat_accepted(&self) {
        self.heartbeats_accepted.inc();
    }

    /// The receipt of a whole answer was judged.
    pub fn receipt(&self, outcome: &'static str) {
        self.receipts.get_or_create(&Outcome { outcome }).inc();
    }

    /// The policy forbids a request.
    pub fn policy_refused(&self, reason: &'static str) {
        let reason = Reason { reason };
        self.policy_refusals.get_or_create(&reason).inc();
    }

    /// A changed policy was read, and taken or refused.
    pub fn policy_read(&self, is_taken: bool) {
        let outcome = if is_taken { "ok" } else { "refused" };
        self.policy_reads.get_or_create(&Outcome { outcome }).inc();
        self.policy_outdated.set(i64::from(!is_taken));
    }

    /// A smaller model gets a request, and why the one before does not.
    pub fn degraded(&self, reason: &'static str) {
        self.degraded.get_or_create(&Reason { reason }).inc();
    }

    /// A heartbeat was dropped.
    pub fn heartbeat_rejected(&self, reason: &'static str) {
        self.heartbeats_rejected
            .get_or_create(&Reason { reason })
            .inc();
    }

    /// How many workers are in each state. States that are not named keep their count.
    pub fn set_fleet(&self, counts: &[(&'static str, usize)]) {
        set_all(&self.fleet, counts);
    }

    /// How many other nodes are there, by role and state.
    pub fn set_nodes(&self, counts: &[(&'static str, &'static str, usize)]) {
        for (role, state, count) in counts {
            self.nodes
                .get_or_create(&RoleState { role, state })
                .set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }

    /// A request ended: `ok`, or the code of its error.
    pub fn dispatched(&self, outcome: &'static str) {
        self.dispatches.get_or_create(&Outcome { outcome }).inc();
    }

    /// Another attempt is made.
    pub fn retried(&self, reason: &'static str) {
        self.retries.get_or_create(&Reason { reason }).inc();
    }

    /// How many breakers of a kind are in a state.
    pub fn set_breakers(&self, kind: &'static str, state: &'static str, count: usize) {
        (self.breakers.get_or_create(&KindState { kind, state }))
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A breaker opened or closed.
    pub fn breaker_turned(&self, kind: &'static str, state: &'static str) {
        (self.breaker_turns.get_or_create(&KindState { kind, state })).inc();
    }

    /// How many requests of a priority wait.
    pub fn set_waiting(&self, priority: &'static str, count: usize) {
        (self.waiting.get_or_create(&ByPriority { priority }))
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A request was refused before it waited.
    pub fn shed(&self, reason: &'static str) {
        self.shed.get_or_create(&Reason { reason }).inc();
    }

    /// A request waited for so long, and had its turn or not.
    pub fn waited(&self, waited: Duration) {
        self.wait_seconds.observe(waited.as_secs_f64());
    }

    /// A request is not tried again.
    pub fn gave_up(&self, reason: &'static str) {
        self.give_ups.get_or_create(&Reason { reason }).inc();
    }

    /// Another worker goes on with an answer, and why the one before does not.
    pub fn handed_over(&self, reason: &'static str) {
        self.hand_overs.get_or_create(&Reason { reason }).inc();
    }

    /// It was time for a second worker beside the first: what became of that.
    pub fn hedged(&self, outcome: &'static str) {
        self.hedges.get_or_create(&Outcome { outcome }).inc();
    }

    /// A repeated key was answered with what is kept.
    pub fn answered_again(&self) {
        self.answered_again.inc();
    }

    /// An open job was taken over.
    pub fn taken_over(&self, why: &'static str) {
        self.taken_over.get_or_create(&Reason { reason: why }).inc();
    }

    /// Nobody came for an open job.
    pub fn abandoned(&self) {
        self.abandoned.inc();
    }

    /// A repeated key joined the answer under way.
    pub fn joined(&self) {
        self.joined.inc();
    }

    /// A worker went on after its answer was handed over.
    pub fn false_alarm(&self) {
        self.false_alarms.inc();
    }

    /// An attempt at a worker ended.
    pub fn attempt(&self, outcome: &'static str, took: Duration) {
        self.attempt_seconds
            .get_or_create(&Outcome { outcome })
            .observe(took.as_secs_f64());
    }

    /// A worker accepted an order.
    pub fn accepted(&self, after: Duration) {
        self.accept_seconds.observe(after.as_secs_f64());
    }

    /// The first chunk of an answer came.
    pub fn first_chunk(&self, after: Duration) {
        self.first_token_seconds.observe(after.as_secs_f64());
    }

    /// How many jobs are in each state.
    pub fn set_jobs(&self, counts: &[(&'static str, usize)]) {
        set_all(&self.jobs, counts);
    }

    /// The store committed a group of operations.
    pub fn committed(&self, operations: usize, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
        #[expect(
            clippy::cast_precision_loss,
            reason = "a group is far below 2^52 operations"
        )]
        self.commit_size.observe(operations as f64);
    }

    /// Gateways that follow the directory.
    pub fn subscribers(&self) -> &Gauge {
        &self.subscribers
    }

    /// Requests that are being dispatched or answered.
    pub fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }
}

fn set_all(family: &Family<State, Gauge>, counts: &[(&'static str, usize)]) {
    for (state, count) in counts {
        family
            .get_or_create(&State { state })
            .set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
}
