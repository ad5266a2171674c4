//! Whether one request may run, and with which limits; or why not, and by which rule.

use super::effective::{Effective, Forbidden, Place, Section};
use super::rules::NamedModel;
use serde::Serialize;
use std::collections::BTreeSet;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Region, TenantId};

/// Most regions that are named in words.
const SHOWN_REGIONS: usize = 8;

/// What is known of a request.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Whose it is.
    pub tenant: &'a TenantId,
    /// The region of the orchestrator that takes it.
    pub region: &'a Region,
    /// The model as it was asked for.
    pub model: &'a str,
    /// The most tokens that it asks for, where it says so.
    pub max_tokens: Option<u32>,
    /// Bytes of all messages, tools and schemas.
    pub prompt_bytes: u64,
}

/// It may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The most tokens that it gets, where it does not say how many it wants.
    pub limit: Option<u32>,
}

/// It may not run: the tenant's own mistake, and no worker hears of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What is told: `forbidden` or `invalid`.
    pub code: Code,
    /// What it is counted as.
    pub reason: &'static str,
    /// The parameter of the request that is wrong, where one is.
    pub param: Option<&'static str>,
    /// What is wrong, and what is allowed, for the tenant.
    pub message: String,
    /// The rule that decided, for the operator.
    pub rule: String,
}

impl From<&Refusal> for RpcError {
    fn from(refusal: &Refusal) -> Self {
        let error = Self::new(refusal.code, refusal.message.clone());
        match refusal.param {
            Some(param) => error.with_param(param),
            None => error,
        }
    }
}

impl Effective {
    /// Decides about a request of the tenant whose rules these are.
    ///
    /// # Errors
    /// Why it may not run.
    pub fn decide(&self, facts: &Facts<'_>) -> Result<Granted, Refusal> {
        self.check_region(facts)?;
        self.check_model(facts)?;
        self.check_prompt(facts)?;
        self.check_tokens(facts)
    }

    fn check_region(&self, facts: &Facts<'_>) -> Result<(), Refusal> {
        let Some(section) = self.keeps_out_of(facts.region) else {
            return Ok(());
        };
        let (tenant, here) = (facts.tenant, facts.region);
        let allowed = self.regions().map(words).unwrap_or_default();
        Err(Refusal {
            code: Code::Forbidden,
            reason: "region",
            param: None,
            message: format!(
                "requests of the tenant `{tenant}` stay in {allowed}, and this is `{here}`: ask a \
                 gateway there"
            ),
            rule: place(facts, section, "regions"),
        })
    }

    /// By the name alone, so that a refusal does not tell which models there are.
    fn check_model(&self, facts: &Facts<'_>) -> Result<(), Refusal> {
        // What cannot be a model's name is not found, which is said elsewhere.
        let Ok(model) = facts.model.parse::<NamedModel>() else {
            return Ok(());
        };
        let Some(forbidden) = self.forbids(&model) else {
            return Ok(());
        };
        let field = match &forbidden.value {
            Forbidden::NotAllowed => "models.allow".to_owned(),
            Forbidden::Denied(selector) => format!("models.deny ({selector})"),
        };
        let tenant = facts.tenant;
        Err(Refusal {
            code: Code::Forbidden,
            reason: "model",
            param: Some("model"),
            message: format!(
                "the tenant `{tenant}` may not use the model `{model}`; GET /v1/models lists those \
                 that it may"
            ),
            rule: place(facts, forbidden.section, &field),
        })
    }

    fn check_prompt(&self, facts: &Facts<'_>) -> Result<(), Refusal> {
        let most = match self.max_prompt_bytes() {
            Some(most) if facts.prompt_bytes > most.value => most,
            _ => return Ok(()),
        };
        let (bytes, allowed) = (facts.prompt_bytes, most.value);
        Err(Refusal {
            code: Code::Invalid,
            reason: "prompt-bytes",
            param: Some("messages"),
            message: format!(
                "messages, tools and schema have {bytes} bytes together, and {allowed} are allowed \
                 to this tenant"
            ),
            rule: place(facts, most.section, "max_prompt_bytes"),
        })
    }

    fn check_tokens(&self, facts: &Facts<'_>) -> Result<Granted, Refusal> {
        let most = self.max_output_tokens();
        match (facts.max_tokens, most) {
            (Some(wanted), Some(most)) if wanted > most.value => Err(Refusal {
                code: Code::Invalid,
                reason: "output-tokens",
                param: Some("max_tokens"),
                message: format!(
                    "max_tokens is {wanted}, and {} are allowed to this tenant",
                    most.value
                ),
                rule: place(facts, most.section, "max_output_tokens"),
            }),
            (Some(_), _) => Ok(Granted { limit: None }),
            (None, most) => Ok(Granted {
                limit: most.map(|most| most.value),
            }),
        }
    }
}

fn place(facts: &Facts<'_>, section: Section, field: &str) -> String {
    let tenant = facts.tenant;
    let place = Place {
        section,
        tenant,
        field,
    };
    place.to_string()
}

fn words(regions: &BTreeSet<Region>) -> String {
    let names: Vec<String> = (regions.iter().take(SHOWN_REGIONS))
        .map(|region| format!("`{region}`"))
        .collect();
    let more = regions.len().saturating_sub(names.len());
    let names = names.join(", ");
    if more > 0 {
        format!("{names} and {more} more")
    } else {
        names
    }
}
