//! LoRA adapters in the layout of PEFT: what can be applied exactly, and nothing else. [T-ART-6]
//!
//! Engines apply `W + (alpha / r) · B·A` and leave out, without a word, whatever else a configuration
//! asks for. So everything that would change the result is refused by name.
//!
//! * `config` – what a configuration may ask for
//! * `shapes` – what tensors a file of safetensors holds

mod config;
mod shapes;

use config::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

pub use shapes::{Shapes, Tensor};

/// The configuration's file.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The weights' file.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
/// What PEFT puts before each module's path.
pub const PREFIX: &str = "base_model.model.";

/// How the numbers of an adapter may be written; those of eight bits mean nothing without scales.
const DTYPES: [&str; 3] = ["F32", "F16", "BF16"];

/// Most modules: a dense model of 128 layers has 896 that are of use.
const MAX_MODULES: usize = 2_048;

/// An adapter that can be applied exactly, to a base that it fits.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// Columns of each `A` and rows of each `B`.
    pub rank: u32,
    /// What is multiplied by `B·A / rank`.
    pub alpha: f64,
    /// The modules that it changes, by their path in the base.
    pub modules: BTreeMap<String, Module>,
}

/// One module's pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Columns of the module's weights, and of `A`.
    pub inputs: u64,
    /// Rows of the module's weights, and of `B`.
    pub outputs: u64,
}

/// Checks that an adapter can be applied exactly: its configuration asks for nothing but plain
/// LoRA, and its weights are the pairs that the configuration names.
///
/// # Errors
/// What of it cannot be applied.
pub fn check(config: impl Read, weights: impl Read) -> Result<Adapter, String> {
    let config = Config::read(config).map_err(|why| format!("{ADAPTER_CONFIG}: {why}"))?;
    let tensors = Shapes::read(weights).map_err(|why| format!("{ADAPTER_WEIGHTS}: {why}"))?;
    let modules = pairs(&config, &tensors).map_err(|why| format!("{ADAPTER_WEIGHTS}: {why}"))?;
    Ok(Adapter {
        rank: config.r,
        alpha: config.lora_alpha,
        modules,
    })
}

impl Adapter {
    /// Checks that each module is one of the base, of the same sizes.
    ///
    /// # Errors
    /// The first that is not.
    pub fn fits(&self, base: &Shapes) -> Result<(), String> {
        for (path, module) in &self.modules {
            let Some(tensor) = base.get(&format!("{path}.weight")) else {
                return Err(format!("{ADAPTER_WEIGHTS}: the base has no module {path}"));
            };
            let Module { inputs, outputs } = *module;
            if tensor.shape != [outputs, inputs] {
                return Err(format!(
                    "{ADAPTER_WEIGHTS}: the pair for {path} is made for [{outputs}, {inputs}], and the base has {:?} there",
                    tensor.shape
                ));
            }
        }
        Ok(())
    }
}

/// Each tensor is one of a pair for a module that is a target, of the rank that is said; each
/// target has a pair.
fn pairs(config: &Config, tensors: &Shapes) -> Result<BTreeMap<String, Module>, String> {
    let rank = u64::from(config.r);
    let mut modules = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (name, tensor) in tensors.iter() {
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
        let is_path = (module.chars()).all(|c| c.is_ascii_alphanumeric() || "._".contains(c));
        if !is_path {
            return Err(format!("{name} is not named by a path of modules"));
        }
        let last = module.rsplit('.').next().unwrap_or(module);
        if !config.target_modules.iter().any(|target| target == last) {
            return Err(format!("{name} belongs to no module of target_modules"));
        }
        if tensor.shape.len() != 2 || tensor.shape[at] != rank {
            let shape = &tensor.shape;
            return Err(format!(
                "{name} has the shape {shape:?}, which is not of rank {rank}"
            ));
        }
        if !DTYPES.contains(&tensor.dtype.as_str()) {
            return Err(format!(
                "{name} is written as {}, not as one of {DTYPES:?}",
                tensor.dtype
            ));
        }
        if tensors
            .get(&format!("{PREFIX}{module}.{other}.weight"))
            .is_none()
        {
            return Err(format!("{name} has no {other} beside it"));
        }
        seen.insert(last);
        let sizes = modules.entry(module.to_owned()).or_insert(Module {
            inputs: 0,
            outputs: 0,
        });
        if at == 0 {
            sizes.inputs = tensor.shape[1];
        } else {
            sizes.outputs = tensor.shape[0];
        }
    }
    if modules.len() > MAX_MODULES {
        return Err(format!("it changes more than {MAX_MODULES} modules"));
    }
    let mut targets = config.target_modules.iter();
    match targets.find(|it| !seen.contains(it.as_str())) {
        Some(module) => Err(format!("it holds nothing for {module} of target_modules")),
        None => Ok(modules),
    }
}

#[cfg(test)]
mod tests;
