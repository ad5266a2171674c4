//! What tenants may ask for, where it may go, and what is done for them when there is no room: rules
//! that the operator writes, as JSON. Pure, but for [`mod@file`]. (SCH-6)
//!
//! A policy has a section `global`, which holds for everybody, one for each of some `tenants`, and
//! one for all `others`. Two of them speak about a request: the global one, and the tenant's own or
//! that of the others.
//!
//! * **What is forbidden: the strictest wins.** A model is used where both permit it, a request stays
//!   in the regions that both name, and the smaller limit holds. So a tenant's section can narrow
//!   what holds for all and never widen it: whoever reads `global` knows the most that can happen.
//! * **What is preferred: the most specific wins.** Priority, weight, which smaller model answers in the
//!   place of another, and when a second worker is asked beside the first are the tenant's, else the global ones, else the default.
//!
//! The orchestrator alone decides. Gateways are told which models to show, and are not believed.
//!
//! # Layout
//!
//! * [`rules`] – the file as it is written; `bounded` – how much of it; [`schema`] – its JSON Schema
//! * [`text`] – from text to a policy, or the line of the mistake
//! * [`effective`] – what holds for one tenant; [`decision`] – about one request, and why
//! * [`mod@dry_run`] – the same for people
//! * [`mod@file`] – the file, followed

mod bounded;
pub mod decision;
pub mod dry_run;
pub mod effective;
pub mod file;
pub mod rules;
pub mod schema;
#[cfg(test)]
mod tests;
pub mod text;

pub use decision::{Facts, Granted, Refusal};
pub use dry_run::{DryRun, dry_run};
pub use effective::{Effective, Section};
pub use file::{PolicyError, PolicyFile};
pub use rules::{HedgeAfter, NamedModel, Rules};
pub use text::Mistake;

use std::collections::BTreeMap;
use std::sync::Arc;
use tether_wire::TenantId;
use tether_wire::directory::{MAX_RULES, ModelRule};

/// Most tenants with a section of their own.
pub const MAX_TENANTS: usize = 10_000;
const _: () = assert!(MAX_TENANTS + 2 <= MAX_RULES);

/// All rules of a file. Without one everything is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    tenants: BTreeMap<TenantId, Tenant>,
    others: Tenant,
    /// What gateways are told. [T-DIR-5]
    models: Arc<Vec<ModelRule>>,
}

/// What holds for one tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tenant {
    effective: Arc<Effective>,
    /// Which of [`Policy::models`] is its own.
    rule: u32,
}

impl Policy {
    fn new(global: Rules, others: Rules, tenants: BTreeMap<TenantId, Rules>) -> Self {
        let global = Arc::new(global);
        let mut models = Models::new(&global);
        let mut tenant = |section, rules: Rules| Tenant {
            rule: models.number(&rules.models),
            effective: Arc::new(Effective::new(global.clone(), section, rules)),
        };
        let others = tenant(Section::Others, others);
        let tenants = tenants
            .into_iter()
            .map(|(id, rules)| (id, tenant(Section::Tenant, rules)))
            .collect();
        Self {
            tenants,
            others,
            models: Arc::new(models.told()),
        }
    }

    fn tenant(&self, id: &TenantId) -> &Tenant {
        self.tenants.get(id).unwrap_or(&self.others)
    }

    /// What holds for a tenant.
    #[must_use]
    pub fn of(&self, id: &TenantId) -> &Arc<Effective> {
        &self.tenant(id).effective
    }

    /// Which models are shown to whom, for gateways; nothing where all are shown to all. [T-DIR-5]
    #[must_use]
    pub fn model_rules(&self) -> &Arc<Vec<ModelRule>> {
        &self.models
    }

    /// Which of these is a tenant's own.
    #[must_use]
    pub fn model_rule(&self, id: &TenantId) -> u32 {
        if self.models.is_empty() {
            return 0;
        }
        self.tenant(id).rule
    }
}

/// Rules about models, each once.
struct Models {
    rules: Vec<ModelRule>,
    numbers: BTreeMap<ModelRule, u32>,
}

impl Models {
    fn new(global: &Rules) -> Self {
        Self {
            rules: vec![global.models.clone()],
            numbers: BTreeMap::from([(global.models.clone(), 0), (ModelRule::default(), 0)]),
        }
    }

    /// The number of a rule. One that forbids nothing is the first again.
    fn number(&mut self, rule: &ModelRule) -> u32 {
        if let Some(number) = self.numbers.get(rule) {
            return *number;
        }
        let number = u32::try_from(self.rules.len()).unwrap_or(u32::MAX);
        self.rules.push(rule.clone());
        self.numbers.insert(rule.clone(), number);
        number
    }

    fn told(self) -> Vec<ModelRule> {
        if self.rules.iter().all(|rule| *rule == ModelRule::default()) {
            return Vec::new();
        }
        self.rules
    }
}
