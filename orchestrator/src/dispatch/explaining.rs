//! Why a request went where it went, as it is kept when it ended. (SCH-1)

use super::Dispatcher;
use super::run::Run;
use crate::clock;
use crate::explained::{Explanation, Orders, millis};
use rand::Rng;
use std::time::Instant;
use tether_wire::infer::InferRequest;
use tether_wire::{CorrelationId, Digest, ModelRef, NodeId, TenantId};

/// What is known of a request beside how it ends.
pub(super) struct Explaining {
    request: CorrelationId,
    tenant: TenantId,
    model: String,
    artifact: Option<Digest>,
    degraded_from: Option<ModelRef>,
    rule: Option<String>,
    prefix_blocks: usize,
    came_ms: u64,
    began: Instant,
    orders: Orders,
}

impl Explaining {
    /// Of a request that came.
    pub(super) fn of(request: &InferRequest) -> Self {
        Self {
            request: request.correlation,
            tenant: request.tenant.clone(),
            model: request.model.clone(),
            artifact: None,
            degraded_from: None,
            rule: None,
            prefix_blocks: request.prefix.blocks().len(),
            came_ms: clock::now().unix_ms,
            began: Instant::now(),
            orders: Orders::default(),
        }
    }

    /// What its model's name means.
    pub(super) fn means(&mut self, model: &ModelRef, artifact: Digest) {
        self.model = model.to_string();
        self.artifact = Some(artifact);
    }

    /// A rule of the policy forbids it.
    pub(super) fn forbidden(&mut self, rule: String) {
        self.rule = Some(rule);
    }

    /// Nobody could be asked: breakers leave these alone.
    pub(super) fn left_alone(&mut self, workers: &[NodeId]) {
        self.orders.left_alone(workers);
    }

    /// It was placed, and ends.
    pub(super) fn ran(&mut self, run: &mut Run) {
        self.means(&run.model, run.digest);
        self.degraded_from.clone_from(&run.degraded_from);
        self.orders = std::mem::take(&mut run.orders);
    }
}

impl Dispatcher {
    /// Keeps why a request went where it went, where it failed or is drawn.
    pub(super) fn explain(&self, explaining: Explaining, outcome: &'static str) {
        let is_drawn = rand::rng().random::<f32>() < self.placement.load().explained;
        let explanation = Explanation {
            request: explaining.request,
            tenant: explaining.tenant,
            model: explaining.model,
            artifact: explaining.artifact,
            degraded_from: explaining.degraded_from.map(|it| it.to_string()),
            rule: explaining.rule,
            region: self.region.clone(),
            came_ms: explaining.came_ms,
            took_ms: millis(explaining.began.elapsed()),
            outcome,
            prefix_blocks: explaining.prefix_blocks,
            orders: explaining.orders.first,
            orders_left_out: explaining.orders.left_out,
            left_alone: explaining.orders.left_alone,
        };
        self.explanations.keep(explanation, is_drawn);
    }
}
