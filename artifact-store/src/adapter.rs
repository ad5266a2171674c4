//! LoRA adapters in the layout of PEFT: what can be applied exactly, and nothing else. [T-ART-6]
//!
//! Engines apply `W + (alpha / r) · B·A` and leave out, without a word, whatever else a configuration
//! asks for. So everything that would change the result is refused by name.

use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};

/// The configuration's file.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The weights' file.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Most bytes of the configuration.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;
/// Most bytes of the header of the weights; one of 10,000 tensors has some 1.5 MB.
const MAX_HEADER_BYTES: u64 = 16 * 1024 * 1024;
/// Highest rank.
const MAX_RANK: u32 = 4_096;
/// What PEFT puts before each module's path.
const PREFIX: &str = "base_model.model.";

/// What of a configuration can change the result.
#[derive(Deserialize)]
struct Config {
    peft_type: Option<String>,
    r: u32,
    lora_alpha: f64,
    target_modules: Vec<String>,
    bias: Option<String>,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    fan_in_fan_out: bool,
    rank_pattern: Option<BTreeMap<String, serde_json::Value>>,
    alpha_pattern: Option<BTreeMap<String, serde_json::Value>>,
    modules_to_save: Option<Vec<String>>,
    layers_to_transform: Option<serde_json::Value>,
    layer_replication: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Tensor {
    shape: Vec<u64>,
}

/// Checks that an adapter can be applied exactly: its configuration asks for nothing but plain
/// LoRA, and its weights are the pairs that the configuration names.
///
/// # Errors
/// What of it cannot be applied.
pub fn check(config: impl Read, weights: impl Read) -> Result<(), String> {
    let config = Config::read(config).map_err(|why| format!("{ADAPTER_CONFIG}: {why}"))?;
    (config.check()).map_err(|why| format!("{ADAPTER_CONFIG}: {why}"))?;
    let tensors = header(weights).map_err(|why| format!("{ADAPTER_WEIGHTS}: {why}"))?;
    (config.check_tensors(&tensors)).map_err(|why| format!("{ADAPTER_WEIGHTS}: {why}"))
}

impl Config {
    fn read(file: impl Read) -> Result<Self, String> {
        let mut text = String::new();
        let read = file
            .take(MAX_CONFIG_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        if read as u64 > MAX_CONFIG_BYTES {
            return Err(format!("it has more than {MAX_CONFIG_BYTES} bytes"));
        }
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    fn check(&self) -> Result<(), String> {
        let asks = |is: bool, what: &str| {
            if is {
                Err(format!("it asks for {what}, which is not applied here"))
            } else {
                Ok(())
            }
        };
        let has = |map: &Option<BTreeMap<_, _>>| map.as_ref().is_some_and(|map| !map.is_empty());
        let kind = self.peft_type.as_deref().unwrap_or("LORA");
        asks(kind != "LORA", &format!("peft_type {kind:?}"))?;
        asks(self.use_dora, "use_dora")?;
        asks(self.use_rslora, "use_rslora")?;
        asks(self.lora_bias, "lora_bias")?;
        asks(self.fan_in_fan_out, "fan_in_fan_out")?;
        let bias = self.bias.as_deref().unwrap_or("none");
        asks(bias != "none", &format!("bias {bias:?}"))?;
        asks(has(&self.rank_pattern), "rank_pattern")?;
        asks(has(&self.alpha_pattern), "alpha_pattern")?;
        let saves = self.modules_to_save.as_ref();
        asks(saves.is_some_and(|it| !it.is_empty()), "modules_to_save")?;
        asks(self.layers_to_transform.is_some(), "layers_to_transform")?;
        asks(self.layer_replication.is_some(), "layer_replication")?;
        if !(1..=MAX_RANK).contains(&self.r) {
            return Err(format!("r is {}, not between 1 and {MAX_RANK}", self.r));
        }
        if !self.lora_alpha.is_finite() {
            return Err("lora_alpha is not a number".to_owned());
        }
        if self.target_modules.is_empty() {
            return Err("target_modules is empty".to_owned());
        }
        for module in &self.target_modules {
            // Engines take them for patterns, and find them in the middle of other names.
            let is_plain = !module.is_empty()
                && module
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_plain {
                return Err(format!(
                    "target_modules holds {module:?}, not a module's plain name"
                ));
            }
            if ["embed_tokens", "lm_head"].contains(&module.as_str()) {
                return Err(format!(
                    "target_modules holds {module}, which is not applied here"
                ));
            }
        }
        Ok(())
    }

    /// Each tensor is one of a pair for a module that is a target, of the rank that is said; each
    /// target has a pair.
    fn check_tensors(&self, tensors: &BTreeMap<String, Tensor>) -> Result<(), String> {
        let rank = u64::from(self.r);
        let mut seen = BTreeSet::new();
        for (name, tensor) in tensors {
            let path = name
                .strip_prefix(PREFIX)
                .ok_or_else(|| format!("the name of {name} does not begin with {PREFIX}"))?;
            let (module, other, at) = if let Some(module) = path.strip_suffix(".lora_A.weight") {
                (module, "lora_B", 0)
            } else if let Some(module) = path.strip_suffix(".lora_B.weight") {
                (module, "lora_A", 1)
            } else {
                return Err(format!(
                    "{name} is not one of lora_A.weight and lora_B.weight"
                ));
            };
            let last = module.rsplit('.').next().unwrap_or(module);
            if !self.target_modules.iter().any(|target| target == last) {
                return Err(format!("{name} belongs to no module of target_modules"));
            }
            if tensor.shape.len() != 2 || tensor.shape[at] != rank {
                let shape = &tensor.shape;
                return Err(format!(
                    "{name} has the shape {shape:?}, which is not of rank {rank}"
                ));
            }
            if !tensors.contains_key(&format!("{PREFIX}{module}.{other}.weight")) {
                return Err(format!("{name} has no {other} beside it"));
            }
            seen.insert(last);
        }
        let unseen = self
            .target_modules
            .iter()
            .find(|it| !seen.contains(it.as_str()));
        match unseen {
            Some(module) => Err(format!("it holds nothing for {module} of target_modules")),
            None => Ok(()),
        }
    }
}

/// Names and shapes of safetensors: <https://github.com/huggingface/safetensors#format>.
fn header(file: impl Read) -> Result<BTreeMap<String, Tensor>, String> {
    let mut file = BufReader::new(file);
    let mut len = [0; 8];
    let truncated = |_| "it ends in the middle of its header".to_owned();
    file.read_exact(&mut len).map_err(truncated)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER_BYTES {
        return Err(format!("it claims a header of {len} bytes"));
    }
    let mut bytes = Vec::new();
    (file.take(len).read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
    if (bytes.len() as u64) < len {
        return Err("it ends in the middle of its header".to_owned());
    }
    let mut values: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    values.remove("__metadata__");
    values
        .into_iter()
        .map(|(name, value)| {
            let tensor =
                serde_json::from_value(value).map_err(|error| format!("{name}: {error}"))?;
            Ok((name, tensor))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config() -> Value {
        json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none",
            "target_modules": ["q_proj"], "lora_dropout": 0.1,
        })
    }

    fn weights(tensors: &[(&str, [u64; 2])]) -> Vec<u8> {
        let mut header = json!({"__metadata__": {"format": "pt"}});
        for (name, shape) in tensors {
            header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [0, 0]});
        }
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes
    }

    const A: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    const B: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight";

    fn good() -> Vec<u8> {
        weights(&[(A, [4, 64]), (B, [64, 4])])
    }

    fn tried(config: &Value, weights: &[u8]) -> Result<(), String> {
        check(config.to_string().as_bytes(), weights)
    }

    #[test]
    fn plain_lora_is_taken_and_what_would_be_left_out_is_refused_by_name() {
        tried(&config(), &good()).expect("plain");
        for (key, value) in [
            ("peft_type", json!("LOHA")),
            ("use_dora", json!(true)),
            ("use_rslora", json!(true)),
            ("bias", json!("all")),
            ("rank_pattern", json!({"q_proj": 8})),
            ("alpha_pattern", json!({"q_proj": 8})),
            ("modules_to_save", json!(["lm_head"])),
            ("layers_to_transform", json!([1])),
            ("target_modules", json!([".*"])),
            ("target_modules", json!([])),
            ("target_modules", json!(["lm_head"])),
            ("target_modules", json!("all-linear")),
            ("r", json!(0)),
        ] {
            let mut config = config();
            config[key] = value;
            let why = tried(&config, &good()).expect_err(key);
            assert!(why.contains(ADAPTER_CONFIG), "{why}");
        }
    }

    #[test]
    fn weights_that_do_not_belong_to_the_configuration_are_refused() {
        let other = "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight";
        for (wrong, says) in [
            (weights(&[(A, [4, 64])]), "no lora_B"),
            (weights(&[(A, [8, 64]), (B, [64, 8])]), "rank 4"),
            (
                weights(&[(A, [4, 64]), (B, [64, 4]), (other, [4, 64])]),
                "belongs to no",
            ),
            (weights(&[("model.layers.0.weight", [4, 64])]), "begin with"),
            (weights(&[]), "nothing for q_proj"),
            (good()[..40].to_vec(), "middle of its header"),
            (u64::MAX.to_le_bytes().to_vec(), "claims a header"),
        ] {
            let why = tried(&config(), &wrong).expect_err(says);
            assert!(why.contains(says), "{why}");
        }
    }
}
