//! Whether a request may run, and which model it gets: by what its tenant may use, and by what there
//! is. (SCH-6)
//!
//! Here alone a policy is enforced; what a gateway shows or says counts for nothing.

use super::Dispatcher;
use super::explaining::Explaining;
use crate::job::Job;
use crate::policy::{Effective, Facts, NamedModel};
use crate::warmth::Warm;
use std::sync::Arc;
use tether_wire::infer::{InferRequest, PromptSize, Started};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef};

/// The model that a request gets.
pub(super) struct Chosen {
    pub(super) model: ModelRef,
    pub(super) digest: Digest,
    /// The model that was asked for, where another one is to answer.
    pub(super) degraded_from: Option<ModelRef>,
    /// Why that one does not: what is told where no other one can.
    pub(super) refused: Option<RpcError>,
}

impl Chosen {
    /// A smaller one in its place, and why.
    pub(super) fn smaller(self, (model, digest): (ModelRef, Digest), why: &RpcError) -> Self {
        Self {
            model,
            digest,
            degraded_from: self.degraded_from.or(Some(self.model)),
            refused: self.refused.or_else(|| Some(why.clone())),
        }
    }
}

impl Dispatcher {
    /// Decides about a request: what its tenant's policy says, as of now, and the most tokens that it
    /// gets, where it does not say how many it wants. What was begun by the store's word keeps the
    /// limits that it came under: it is to end where it would have.
    pub(super) fn permitted(
        &self,
        request: &InferRequest,
        begun: Option<&Job>,
        explaining: &mut Explaining,
    ) -> Result<(Arc<Effective>, Option<u32>), RpcError> {
        let rules = self.policy.load().of(&request.tenant).clone();
        let facts = Facts {
            tenant: &request.tenant,
            region: &self.region,
            model: &request.model,
            max_tokens: request.sampling.max_tokens,
            prompt_bytes: PromptSize::of(&request.input, &request.output).bytes(),
        };
        let before = begun.map(|job| {
            let limit = job.max_tokens;
            limit.filter(|_| request.sampling.max_tokens.is_none())
        });
        match (rules.decide(&facts), before) {
            (Ok(granted), None) => Ok((rules, granted.limit)),
            (Ok(_), Some(limit)) => Ok((rules, limit)),
            (Err(refusal), Some(limit)) if refusal.code == Code::Invalid => Ok((rules, limit)),
            (Err(refusal), _) => {
                self.metrics.policy_refused(refusal.reason);
                tracing::info!(rule = refusal.rule, "the policy forbids the request");
                let told = RpcError::from(&refusal);
                explaining.forbidden(refusal.rule);
                Err(told)
            }
        }
    }

    /// The model that somebody can answer a request with now. One that goes on does so as what it
    /// began as, whatever is released meanwhile, and where it still may.
    pub(super) fn choose(
        &self,
        request: &InferRequest,
        started: Option<&Started>,
        rules: &Effective,
        explaining: &mut Explaining,
    ) -> Result<Chosen, RpcError> {
        let chosen = match started {
            Some(started) => self.goes_on(request, started, rules)?,
            None => {
                let (model, digest) = self.resolve(&request.model, rules)?;
                Chosen {
                    model,
                    digest,
                    degraded_from: None,
                    refused: None,
                }
            }
        };
        let wanted = (&chosen.model, &chosen.digest);
        explaining.means(wanted.0, chosen.digest);
        let fleet = self.fleet.snapshot();
        let (found, barred) = self.candidates(&fleet, wanted, rules.regions(), &Warm::default());
        // Who is tried by others may be well by the turn of this one.
        if !found.is_empty() || barred.is_tried {
            return Ok(chosen);
        }
        explaining.left_alone(&barred.workers);
        let why = self.nothing_serves_now(wanted, rules);
        match self.smaller(&chosen.model, rules) {
            Some(smaller) if started.is_none() => {
                self.metrics.degraded(Code::Unavailable.as_str());
                Ok(chosen.smaller(smaller, &why))
            }
            _ => Err(why),
        }
    }

    /// Whether somebody can go on with what was begun, as what it began.
    pub(super) fn can_go_on(
        &self,
        request: &InferRequest,
        started: &Started,
        rules: &Effective,
    ) -> bool {
        let goes_on = self.goes_on(request, started, rules);
        goes_on.is_ok_and(|chosen| {
            let (wanted, fleet) = ((&chosen.model, &chosen.digest), self.fleet.snapshot());
            let cold = Warm::default();
            let (found, barred) = self.candidates(&fleet, wanted, rules.regions(), &cold);
            !found.is_empty() || barred.is_tried
        })
    }

    /// What an answer goes on as that a gateway was given some of.
    fn goes_on(
        &self,
        request: &InferRequest,
        started: &Started,
        rules: &Effective,
    ) -> Result<Chosen, RpcError> {
        let digest = started.digest;
        let Some(model) = &started.model else {
            let (model, _) = self.resolve(&request.model, rules)?;
            return Ok(Chosen {
                model,
                digest,
                degraded_from: None,
                refused: None,
            });
        };
        if !rules.permits(model) {
            let why = format!("the model `{model}` may not be used any more");
            return Err(RpcError::new(Code::Forbidden, why).with_param("model"));
        }
        let asks_for = |model: &ModelRef| {
            request.model == model.name.as_str() || request.model == model.to_string()
        };
        let told = started.degraded_from.clone().filter(asks_for);
        let asked = || Some(self.resolve(&request.model, rules).ok()?.0);
        let from = (!asks_for(model)).then(|| told.or_else(asked)).flatten();
        Ok(Chosen {
            model: model.clone(),
            digest,
            degraded_from: from,
            refused: None,
        })
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
                // Named by a worker that does not serve it: not now, rather than not at all. Who has met
                // no worker yet cannot tell the one from the other.
                let may_be = fleet.cannot_tell(text) || fleet.withheld_among(text, may).is_some();
                Err(if may_be {
                    self.nothing_serves(text)
                } else {
                    unknown
                })
            }
        }
    }

    /// The next smaller model that somebody serves, by the tenant's policy, which has no circles.
    pub(super) fn smaller(
        &self,
        model: &ModelRef,
        rules: &Effective,
    ) -> Option<(ModelRef, Digest)> {
        let fleet = self.fleet.snapshot();
        let mut model = NamedModel::from(model);
        loop {
            let smaller = rules.smaller(&model)?.value;
            if let Ok((found, digest)) = self.resolve(&smaller.to_string(), rules) {
                let wanted = (&found, &digest);
                let cold = Warm::default();
                if !(self.candidates(&fleet, wanted, rules.regions(), &cold).0).is_empty() {
                    return Some((found, digest));
                }
            }
            model = smaller.clone();
        }
    }
}
