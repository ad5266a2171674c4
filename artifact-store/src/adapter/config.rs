//! What the configuration of an adapter may ask for.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;

/// Most bytes of the configuration.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
/// Highest rank.
const MAX_RANK: u32 = 4_096;

/// What says how an adapter was trained or where it came from, and changes nothing of what it is.
const WITHOUT_EFFECT: [&str; 16] = [
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
];
/// How `A` and `B` may have been begun. Other ways take their beginning out of the base's weights, so
/// that the adapter belongs to a base that was changed.
const BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];
/// Modules whose weights are shared, or stand in two places.
const NOT_APPLIED: [&str; 2] = ["embed_tokens", "lm_head"];

/// A configuration that asks for plain LoRA.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    peft_type: Option<String>,
    pub(super) r: u32,
    pub(super) lora_alpha: f64,
    pub(super) target_modules: Vec<String>,
    bias: Option<String>,
    #[serde(default)]
    init_lora_weights: Value,
    /// Everything else. What is not known here must ask for nothing.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl Config {
    pub(super) fn read(file: impl Read) -> Result<Self, String> {
        let mut text = String::new();
        let read = file
            .take(MAX_CONFIG_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        if read as u64 > MAX_CONFIG_BYTES {
            return Err(format!("it has more than {MAX_CONFIG_BYTES} bytes"));
        }
        let config: Self = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let kind = self.peft_type.as_deref().unwrap_or("LORA");
        let bias = self.bias.as_deref().unwrap_or("none");
        let begins = &self.init_lora_weights;
        let is_plain = begins.is_null()
            || begins.is_boolean()
            || begins.as_str().is_some_and(|it| BEGINNINGS.contains(&it));
        for (is_asked, what) in [
            (kind != "LORA", format!("peft_type {kind:?}")),
            (bias != "none", format!("bias {bias:?}")),
            (!is_plain, format!("init_lora_weights {begins}")),
        ] {
            applied(!is_asked, &what)?;
        }
        for (key, value) in &self.rest {
            applied(
                WITHOUT_EFFECT.contains(&key.as_str()) || asks_nothing(value),
                key,
            )?;
        }
        if !(1..=MAX_RANK).contains(&self.r) {
            return Err(format!("r is {}, not between 1 and {MAX_RANK}", self.r));
        }
        if !self.lora_alpha.is_finite() {
            return Err("lora_alpha is not a number".to_owned());
        }
        if self.target_modules.is_empty() {
            return Err("target_modules is empty".to_owned());
        }
        self.target_modules.iter().try_for_each(|it| target(it))
    }
}

fn applied(is: bool, what: &str) -> Result<(), String> {
    if is {
        Ok(())
    } else {
        Err(format!("it asks for {what}, which is not applied here"))
    }
}

/// As PEFT writes what is off.
fn asks_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::String(_) => false,
    }
}

fn target(module: &str) -> Result<(), String> {
    // PEFT takes some of them for patterns.
    let is_plain =
        !module.is_empty() && (module.chars()).all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_plain {
        return Err(format!(
            "target_modules holds {module:?}, not a module's plain name"
        ));
    }
    if NOT_APPLIED.contains(&module) {
        return Err(format!(
            "target_modules holds {module}, which is not applied here"
        ));
    }
    Ok(())
}
