//! Which model a request gets: by what its tenant may use, and by what there is. (SCH-6)
//!
//! Here alone a policy is enforced; what a gateway shows or says counts for nothing.

use super::Dispatcher;
use crate::policy::{Effective, Facts, NamedModel};
use std::sync::Arc;
use tether_wire::infer::{InferRequest, PromptSize, Started};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef};

/// A request that may run.
pub(super) struct Permitted {
    /// What its tenant's policy says, as of now.
    pub(super) rules: Arc<Effective>,
    pub(super) model: ModelRef,
    pub(super) digest: Digest,
    /// The model that was asked for, where another one is to answer.
    pub(super) degraded_from: Option<ModelRef>,
    /// The most tokens that it gets, where it does not say how many it wants.
    pub(super) limit: Option<u32>,
}

impl Dispatcher {
    /// Decides about a request. One that goes on does so as what it began as, whatever is released
    /// meanwhile, and where it still may.
    pub(super) fn permit(
        &self,
        request: &InferRequest,
        started: Option<&Started>,
    ) -> Result<Permitted, RpcError> {
        let rules = self.policy.load().of(&request.tenant).clone();
        let facts = Facts {
            tenant: &request.tenant,
            region: &self.region,
            model: &request.model,
            max_tokens: request.sampling.max_tokens,
            prompt_bytes: PromptSize::of(&request.input, &request.output).bytes(),
        };
        let granted = rules.decide(&facts).map_err(|refusal| {
            self.metrics.policy_refused(refusal.reason);
            tracing::info!(rule = refusal.rule, "the policy forbids the request");
            RpcError::from(&refusal)
        })?;
        let (model, digest, degraded_from) = match started {
            Some(started) => self.goes_on(request, started, &rules)?,
            None => {
                let (model, digest) = self.resolve(&request.model, &rules)?;
                (model, digest, None)
            }
        };
        let mut permitted = Permitted {
            rules,
            model,
            digest,
            degraded_from,
            limit: granted.limit,
        };
        let Permitted { rules, model, .. } = &permitted;
        if self.is_served(model, &permitted.digest, rules) {
            return Ok(permitted);
        }
        match self.smaller(model, rules).filter(|_| started.is_none()) {
            None => Err(self.nothing_serves(&model.to_string())),
            Some((smaller, digest)) => {
                self.metrics.degraded(Code::Unavailable.as_str());
                let asked = std::mem::replace(&mut permitted.model, smaller);
                permitted.degraded_from = Some(asked);
                permitted.digest = digest;
                Ok(permitted)
            }
        }
    }

    /// What an answer goes on as that a gateway was given some of.
    fn goes_on(
        &self,
        request: &InferRequest,
        started: &Started,
        rules: &Effective,
    ) -> Result<(ModelRef, Digest, Option<ModelRef>), RpcError> {
        let Some(model) = &started.model else {
            let (model, _) = self.resolve(&request.model, rules)?;
            return Ok((model, started.digest, None));
        };
        if !rules.permits(model) {
            let why = format!("the model `{model}` may not be used any more");
            return Err(RpcError::new(Code::Forbidden, why).with_param("model"));
        }
        let is_asked = request.model == model.name.as_str() || request.model == model.to_string();
        let from = (!is_asked)
            .then(|| self.resolve(&request.model, rules).ok())
            .flatten();
        Ok((model.clone(), started.digest, from.map(|(asked, _)| asked)))
    }

    /// The model that a tenant means among those that it may use, and its artifact. Where there is
    /// none: [`Code::NotFound`] for what no live worker names.
    fn resolve(&self, text: &str, rules: &Effective) -> Result<(ModelRef, Digest), RpcError> {
        let may = |model: &ModelRef| rules.permits(model);
        match self.catalogue.load().resolve_among(text, may) {
            Ok(entry) => Ok((entry.model.clone(), entry.digest)),
            // The catalogue follows the fleet a moment later: what is offered now is known now.
            Err(unknown) => {
                let fleet = self.fleet.snapshot();
                if let Some(offer) = fleet.find(text).filter(|offer| may(&offer.model)) {
                    return Ok((offer.model.clone(), offer.digest));
                }
                // Named by a worker that does not serve it: not now, rather than not at all.
                Err((fleet.withheld(text)).map_or(unknown, |_| self.nothing_serves(text)))
            }
        }
    }

    fn is_served(&self, model: &ModelRef, digest: &Digest, rules: &Effective) -> bool {
        let fleet = self.fleet.snapshot();
        let mut candidates = self.candidates(&fleet, model, digest, rules);
        candidates.next().is_some()
    }

    /// The next smaller model that somebody serves, by the tenant's policy, which has no circles.
    pub(super) fn smaller(
        &self,
        model: &ModelRef,
        rules: &Effective,
    ) -> Option<(ModelRef, Digest)> {
        let mut model = NamedModel::from(model);
        loop {
            let smaller = rules.smaller(&model)?.value;
            if let Ok((found, digest)) = self.resolve(&smaller.to_string(), rules)
                && self.is_served(&found, &digest, rules)
            {
                return Some((found, digest));
            }
            model = smaller.clone();
        }
    }
}
