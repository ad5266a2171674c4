//! Loads a model offline, from verified files.

use super::adapter;
use crate::device::Device;
use crate::engine::kind::LoadError;
use crate::engine::protocol::Load;
use crate::text::prompt::TextModel;
use mistralrs::core::MistralRsBuilder;
use mistralrs::{
    AnyModelBuilder, DeviceMapSetting, GgufModelBuilder, MistralRs, ModelDType, TextModelBuilder,
    TokenSource,
};
use std::path::Path;
use std::sync::Arc;
use tether_wire::manifest::{Format, is_safe_path};

/// A model and its text side.
pub(super) struct Loaded {
    pub(super) runner: Arc<MistralRs>,
    pub(super) text: TextModel,
}

const TOKENIZER: &str = "tokenizer.json";

pub(super) async fn load(load: &Load) -> Result<Loaded, LoadError> {
    let folder = load.model_folder();
    check_files(load, &folder)?;
    let tokenizer = load.tokenizer.as_deref().unwrap_or(TOKENIZER);
    // The text side first: it is quick, and names what is missing.
    let text = TextModel::load(&folder, tokenizer, load.context_tokens)?;
    // The layers are built on this thread, before anything else of this process is waited for.
    let adapter = match load.adapter_folder() {
        Some(_) if load.format != Format::Safetensors => {
            let why = "the base is not in safetensors, and adapters are applied to those only";
            return Err(LoadError::AdapterUnfit(why.to_owned()));
        }
        Some(adapter) => Some(adapter::put_on(&adapter, &folder)?),
        None => None,
    };
    let (pipeline, scheduler, _) = builder(load, &folder)?
        .build_pipeline()
        .await
        .map_err(|error| format!("{error:#}"))?;
    if let Some(adapter) = adapter {
        adapter.confirm()?;
    }
    let runner = MistralRsBuilder::new(pipeline, scheduler, false, None)
        // A prefix from the cache changes the shapes that are computed, and with them the last bits.
        .with_no_prefix_cache(true)
        // Where an answer ends is decided by our fold.
        .with_disable_eos_stop(true)
        .build()
        .await;
    let most = runner.config(None).map_err(|error| error.to_string())?;
    let most = most.max_seq_len.unwrap_or(usize::MAX);
    let most = u32::try_from(usable_context(most)).unwrap_or(u32::MAX);
    let text = text.with_context_at_most(most);
    Ok(Loaded { runner, text })
}

/// How its cache of keys and values grows.
const CACHE_GROWTH: usize = 512;

/// The cache grows in steps, and fails when a step leads over the model's context.
fn usable_context(most: usize) -> usize {
    if most <= CACHE_GROWTH {
        most
    } else {
        most / CACHE_GROWTH * CACHE_GROWTH
    }
}

/// For a path that does not exist, mistral.rs asks the hub.
fn check_files(load: &Load, folder: &Path) -> Result<(), String> {
    if !folder.is_absolute() || !folder.is_dir() {
        return Err(format!(
            "{} is not an absolute path of a folder",
            folder.display()
        ));
    }
    let needed = [
        Some(load.weights.as_str()),
        Some(load.tokenizer.as_deref().unwrap_or(TOKENIZER)),
        (load.format == Format::Safetensors).then_some("config.json"),
    ];
    for file in needed.into_iter().flatten() {
        if !is_safe_path(file) {
            return Err(format!("{file:?} leads outside the model's folder"));
        }
        if !folder.join(file).is_file() {
            return Err(format!("the model needs {file} in its folder"));
        }
    }
    Ok(())
}

fn builder(load: &Load, folder: &Path) -> Result<AnyModelBuilder, String> {
    let root = folder
        .to_str()
        .ok_or("the path of the model's folder is not UTF-8")?;
    let (device, sequences) = (open(load.compute.device)?, super::sequences(load)?);
    let is_cpu = load.compute.device == Device::Cpu;
    match load.format {
        Format::Gguf => {
            let mut builder = GgufModelBuilder::new(root, vec![load.weights.clone()])
                .with_device(device)
                // All of it on that device: what does not fit there is an error, and not slow.
                .with_device_mapping(DeviceMapSetting::dummy())
                .with_token_source(TokenSource::None)
                .with_max_num_seqs(sequences)
                .with_prefix_cache_n(None);
            if is_cpu {
                builder = builder.with_force_cpu();
            }
            if Path::new(TOKENIZER) == Path::new(load.tokenizer.as_deref().unwrap_or(TOKENIZER)) {
                // Otherwise it converts the tokenizer of the GGUF file, guessing its pattern.
                builder = builder.with_tok_model_id(root);
            }
            Ok(builder.into())
        }
        Format::Safetensors => {
            let mut builder = TextModelBuilder::new(root)
                .with_device(device)
                .with_device_mapping(DeviceMapSetting::dummy())
                .with_token_source(TokenSource::None)
                .with_dtype(ModelDType::Auto)
                .with_max_num_seqs(sequences)
                .with_prefix_cache_n(None);
            if is_cpu {
                // The faster one there.
                builder = builder.with_force_cpu().with_dtype(ModelDType::F32);
            }
            Ok(builder.into())
        }
        Format::Unknown => Err("the format of the weights is not known".to_owned()),
    }
}

/// A process sees its own accelerator alone, as the first.
fn open(device: Device) -> Result<mistralrs::Device, String> {
    let (opened, feature) = match device {
        Device::Cpu => return Ok(mistralrs::Device::Cpu),
        Device::Cuda(_) => (mistralrs::Device::new_cuda(0), "cuda"),
        Device::Metal => (mistralrs::Device::new_metal(0), "metal"),
    };
    opened.map_err(|error| {
        if cfg!(any(feature = "cuda", feature = "metal")) {
            format!("{device} cannot be used: {error}")
        } else {
            format!("this build has no {device}: build Tether with `--features {feature}`")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(any(feature = "cuda", feature = "metal")))]
    #[test]
    fn a_device_that_this_build_does_not_have_is_named_with_its_feature() {
        assert!(open(Device::Cpu).is_ok());
        let error = open(Device::Cuda(1)).expect_err("no such build");
        assert!(
            error.contains("cuda:1") && error.contains("--features cuda"),
            "{error}"
        );
        assert!(
            open(Device::Metal)
                .expect_err("no such build")
                .contains("--features metal")
        );
    }

    #[test]
    fn the_cache_never_grows_over_the_models_context() {
        assert_eq!(usable_context(300), 300);
        assert_eq!(usable_context(512), 512);
        assert_eq!(usable_context(1_000), 512);
        assert_eq!(usable_context(2_048), 2_048);
        assert_eq!(usable_context(131_072), 131_072);
    }
}
