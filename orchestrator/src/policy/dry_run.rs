//! What would be decided about a request, and by which rule, for people and their scripts.

use super::Policy;
use super::decision::{Facts, Refusal};
use super::effective::{Effective, Place, Section};
use super::rules::NamedModel;
use serde::Serialize;
use serde_json::{Value, json};
use std::fmt;

/// What would be decided.
#[derive(Clone, Debug, Serialize)]
pub struct DryRun {
    /// Whether the request would run.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// What holds for it.
    pub holds: Vec<Holds>,
}

/// One thing that holds, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Holds {
    /// What it is about: a field of a section.
    pub what: &'static str,
    /// What holds; null where no rule says anything.
    pub value: Value,
    /// The rules that make it so; none where no rule says anything.
    pub rules: Vec<String>,
    /// What says it where no rule does.
    pub otherwise: &'static str,
}

/// Decides about a request that nobody made.
#[must_use]
pub fn dry_run(policy: &Policy, facts: &Facts<'_>) -> DryRun {
    let rules = policy.of(facts.tenant);
    let refused = rules.decide(facts).err();
    DryRun {
        allowed: refused.is_none(),
        refused,
        holds: Explaining { rules, facts }.all(),
    }
}

/// Nobody says it, and nothing is limited.
const DEFAULT: &str = "default";
/// It is the tenant's entry there that says it: see [`Effective::share`].
const TENANTS_FILE: &str = "the tenants' file";

struct Explaining<'a> {
    rules: &'a Effective,
    facts: &'a Facts<'a>,
}

impl Explaining<'_> {
    fn all(&self) -> Vec<Holds> {
        let rules = self.rules;
        let tokens = rules.max_output_tokens();
        let bytes = rules.max_prompt_bytes();
        let (priority, weight, hedge) = (rules.priority(), rules.weight(), rules.hedge_after());
        let model = self.facts.model.parse::<NamedModel>().ok();
        let smaller = model.as_ref().and_then(|model| rules.smaller(model));
        vec![
            Holds {
                what: "regions",
                value: json!(rules.regions()),
                rules: self.naming(|section| section.regions.is_some(), "regions"),
                otherwise: DEFAULT,
            },
            self.one(
                "max_output_tokens",
                json!(tokens.map(|it| it.value)),
                tokens.map(|it| it.section),
            ),
            self.one(
                "max_prompt_bytes",
                json!(bytes.map(|it| it.value)),
                bytes.map(|it| it.section),
            ),
            self.one(
                "priority",
                json!(priority.map(|it| it.value)),
                priority.map(|it| it.section),
            ),
            self.one(
                "weight",
                json!(weight.map(|it| it.value)),
                weight.map(|it| it.section),
            ),
            self.one(
                "degrade",
                json!(smaller.map(|it| it.value)),
                smaller.map(|it| it.section),
            ),
            self.one(
                "hedge_after_ms",
                json!(hedge.and_then(|it| it.value.ms())),
                hedge.map(|it| it.section),
            ),
        ]
    }

    fn one(&self, what: &'static str, value: Value, section: Option<Section>) -> Holds {
        let rules = section.map(|section| self.place(section, what));
        Holds {
            what,
            value,
            rules: rules.into_iter().collect(),
            otherwise: match what {
                "priority" | "weight" => TENANTS_FILE,
                _ => DEFAULT,
            },
        }
    }

    /// The sections that say something about a field.
    fn naming(&self, says: impl Fn(&super::Rules) -> bool, field: &str) -> Vec<String> {
        (self.rules.sections().into_iter())
            .filter(|(_, rules)| says(rules))
            .map(|(section, _)| self.place(section, field))
            .collect()
    }

    fn place(&self, section: Section, field: &str) -> String {
        let tenant = self.facts.tenant;
        let place = Place {
            section,
            tenant,
            field,
        };
        place.to_string()
    }
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refused {
            None => writeln!(f, "allowed")?,
            Some(refusal) => {
                writeln!(f, "refused: {}", refusal.message)?;
                let param = refusal.param.unwrap_or("none");
                writeln!(
                    f,
                    "  code {}, param {param}, by {}",
                    refusal.code.as_str(),
                    refusal.rule
                )?;
            }
        }
        for holds in &self.holds {
            let value = match &holds.value {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.clone(),
                Value::Array(list) => list
                    .iter()
                    .map(|it| it.as_str().unwrap_or_default())
                    .collect::<Vec<_>>()
                    .join(", "),
                other => other.to_string(),
            };
            let by = if holds.rules.is_empty() {
                holds.otherwise.to_owned()
            } else {
                holds.rules.join(", ")
            };
            writeln!(f, "  {:<18} {value:<20} {by}", holds.what)?;
        }
        Ok(())
    }
}
