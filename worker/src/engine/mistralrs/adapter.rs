//! A LoRA adapter over its base: `W + (alpha / r) · B·A`, computed once, when the model is built.
//! [T-ART-6]
//!
//! mistral.rs adds what waits in a list of the building thread to each layer whose path a pattern
//! finds. Its own loader fills that list from a cache of the Hugging Face hub and from nowhere else,
//! takes the configuration's words for patterns that may match in the middle of other names, passes
//! over layers of kinds that it cannot add to, and never empties the list. So it is filled here: with
//! what was checked against the base, under patterns of whole paths, by a source of tensors that
//! remembers what was taken; and it is emptied when the model is built. A pair that nobody took is an
//! error, never an adapter that was applied by half.

use crate::engine::kind::LoadError;
use candle_core::{DType, Device, Result as CandleResult, Shape, Tensor, bail};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;
use mistralrs_quant::{
    LoraAdapter, LoraConfig, ShardedSafeTensors, clear_applied_loras, push_applied_lora,
};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_artifact_store::adapter::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, Adapter, Shapes, check};

/// An adapter that waits for the layers of its base, on this thread.
pub(super) struct Waiting {
    pairs: BTreeSet<String>,
    taken: Taken,
}

type Taken = Arc<Mutex<BTreeSet<String>>>;

/// Checks the adapter in `folder` against the base, and has it wait.
pub(super) fn put_on(folder: &Path, base: &Path) -> Result<Waiting, LoadError> {
    let adapter = check(
        open(folder, ADAPTER_CONFIG)?,
        open(folder, ADAPTER_WEIGHTS)?,
    )
    .map_err(LoadError::AdapterUnfit)?;
    let shapes = shapes(base).map_err(LoadError::Failed)?;
    adapter.fits(&shapes).map_err(LoadError::AdapterUnfit)?;
    let tensors = tensors(&folder.join(ADAPTER_WEIGHTS))
        .map_err(|why| LoadError::AdapterUnfit(format!("{ADAPTER_WEIGHTS}: {why}")))?;
    let pairs = tensors.keys().cloned().collect();
    let taken = Taken::default();
    let source = Source {
        tensors,
        taken: taken.clone(),
    };
    clear_applied_loras();
    push_applied_lora(LoraAdapter {
        config: LoraConfig {
            rank: adapter.rank as usize,
            alpha: adapter.alpha,
            target_modules: [pattern(&adapter)].into(),
        },
        weights: ShardedSafeTensors::wrap(Box::new(source), DType::F32, Device::Cpu),
    });
    Ok(Waiting { pairs, taken })
}

impl Waiting {
    /// The base is built: every pair must be part of it.
    pub(super) fn confirm(self) -> Result<(), LoadError> {
        clear_applied_loras();
        let taken = lock(&self.taken);
        match self.pairs.iter().find(|name| !taken.contains(*name)) {
            Some(name) => Err(LoadError::AdapterUnfit(format!(
                "{ADAPTER_WEIGHTS}: the engine cannot add {name} to a layer of this base's kind"
            ))),
            None => Ok(()),
        }
    }
}

fn open(folder: &Path, file: &str) -> Result<File, LoadError> {
    File::open(folder.join(file)).map_err(|error| LoadError::Failed(format!("{file}: {error}")))
}

/// What the base holds, over all of its files.
fn shapes(base: &Path) -> Result<Shapes, String> {
    let told = |path: &Path, why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
    let mut shapes = Shapes::default();
    for entry in std::fs::read_dir(base).map_err(|error| told(base, &error))? {
        let path = entry.map_err(|error| told(base, &error))?.path();
        if path.extension().is_some_and(|it| it == "safetensors") {
            let file = File::open(&path).map_err(|error| told(&path, &error))?;
            shapes.extend(Shapes::read(file).map_err(|error| told(&path, &error))?);
        }
    }
    Ok(shapes)
}

/// In 32 bits, as all is computed.
fn tensors(weights: &Path) -> CandleResult<HashMap<String, Tensor>> {
    let tensors = candle_core::safetensors::load(weights, &Device::Cpu)?;
    let exact = |(name, tensor): (String, Tensor)| Ok((name, tensor.to_dtype(DType::F32)?));
    tensors.into_iter().map(exact).collect()
}

/// Exactly the adapter's modules, of which each path is letters, digits, `_` and `.`.
fn pattern(adapter: &Adapter) -> String {
    let paths = adapter.modules.keys().map(|path| path.replace('.', r"\."));
    format!("^(?:{})$", paths.collect::<Vec<_>>().join("|"))
}

fn lock(taken: &Taken) -> MutexGuard<'_, BTreeSet<String>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pairs, and which of them were asked for.
struct Source {
    tensors: HashMap<String, Tensor>,
    taken: Taken,
}

impl SimpleBackend for Source {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> CandleResult<Tensor> {
        let tensor = self.get_unchecked(name, dtype, device)?;
        if tensor.shape() != &shape {
            bail!("{name} has the shape {:?}, not {shape:?}", tensor.shape());
        }
        lock(&self.taken).insert(name.to_owned());
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> CandleResult<Tensor> {
        match self.tensors.get(name) {
            Some(tensor) => tensor.to_device(device)?.to_dtype(dtype),
            None => bail!("the adapter holds no {name}"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}
