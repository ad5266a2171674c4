//! The JSON Schema of a policy, made from the types that read it. `docs/policy.schema.json` is what
//! comes of it, and a test keeps it so.

use super::MAX_TENANTS;
use super::rules::{
    HEDGE_AFTER_MS, MAX_DEGRADES, MAX_OUTPUT_TOKENS, MAX_PROMPT_BYTES, MAX_REGIONS, PolicyText,
    Rules,
};
use crate::queue::{MAX_WEIGHT, Priority};
use schemars::{Schema, SchemaGenerator, json_schema, schema_for};
use serde_json::Value;
use tether_wire::directory::MAX_SELECTORS;

/// Names of models, regions and tenants.
const NAME: &str = "[a-z0-9]+(-[a-z0-9]+)*";
/// A version.
const VERSION: &str = r"(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})";

/// The schema, as it is published.
///
/// # Panics
/// Never: a schema is JSON.
#[must_use]
pub fn published() -> String {
    let mut schema = schema_for!(PolicyText).to_value();
    forget_defaults(&mut schema);
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    format!("{text}\n")
}

/// Defaults are told in words: those of the types are often what may not be written.
fn forget_defaults(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.remove("default");
            fields.values_mut().for_each(forget_defaults);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_defaults),
        _ => {}
    }
}

/// `NAME` or `NAME@MAJOR.MINOR`.
fn named() -> String {
    format!("^{NAME}(@{VERSION})?$")
}

/// The same, `BEGINNING*` or `*`.
fn selector() -> String {
    format!(r"^([a-z0-9-]{{0,64}}\*|{NAME}(@{VERSION})?)$")
}

pub(super) fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string"})
}

pub(super) fn selectors(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": MAX_SELECTORS,
        "items": {"type": "string", "pattern": selector()},
    })
}

pub(super) fn regions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_REGIONS,
        "items": {"type": "string", "pattern": format!("^{NAME}$"), "maxLength": 32},
    })
}

pub(super) fn output_tokens(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": MAX_OUTPUT_TOKENS})
}

pub(super) fn prompt_bytes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": MAX_PROMPT_BYTES})
}

pub(super) fn weight(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": MAX_WEIGHT})
}

pub(super) fn priority(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": Priority::ALL.map(Priority::as_str)})
}

pub(super) fn degrade(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_DEGRADES,
        "propertyNames": {"pattern": named()},
        "additionalProperties": {"type": ["string", "null"], "pattern": named()},
    })
}

pub(super) fn hedge_after(_: &mut SchemaGenerator) -> Schema {
    let (least, most) = (HEDGE_AFTER_MS.start(), HEDGE_AFTER_MS.end());
    json_schema!({"type": ["integer", "null"], "minimum": least, "maximum": most})
}

pub(super) fn tenants(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_TENANTS,
        "propertyNames": {"pattern": format!("^{NAME}$"), "maxLength": 64},
        "additionalProperties": generator.subschema_for::<Rules>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rules::NamedModel;
    use proptest::prelude::*;
    use proptest::string::string_regex;
    use tether_wire::directory::ModelSelector;

    #[test]
    fn every_object_of_the_schema_says_what_may_stand_in_it() {
        fn look(schema: &Value, path: &str) {
            match schema {
                Value::Object(fields) => {
                    if fields.get("type").and_then(Value::as_str) == Some("object") {
                        let more = fields.get("additionalProperties");
                        assert!(more.is_some_and(|more| *more != true), "{path}");
                    }
                    for (name, value) in fields {
                        look(value, &format!("{path}/{name}"));
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| look(item, path)),
                _ => {}
            }
        }
        look(&serde_json::from_str(&published()).expect("JSON"), "");
    }

    /// Of the pattern's shape, and short: lengths are bounded by the reader alone.
    fn of(pattern: &str) -> impl Strategy<Value = String> + use<> {
        let inner = pattern.trim_start_matches('^').trim_end_matches('$');
        let short = inner.replace('+', "{1,4}").replace(")*", "){0,3}");
        string_regex(&short).expect("a pattern")
    }

    proptest! {
        #[test]
        fn what_the_schema_takes_for_a_model_is_one(
            selector in of(&selector()),
            named in of(&named()),
        ) {
            prop_assert!(selector.parse::<ModelSelector>().is_ok(), "{}", selector);
            prop_assert!(named.parse::<NamedModel>().is_ok(), "{}", named);
        }
    }
}
