//! Making an artifact of a directory of files: what a publisher does.

use crate::adapter::Shapes;
use crate::detect::{self, Detected};
use crate::error::ArtifactError;
use crate::manifest_file::{self, MANIFEST_FILE};
use crate::regular::{self, Progress};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use tether_wire::manifest::{FileEntry, Format, MAX_FILES, is_safe_path};
use tether_wire::{Digest, Manifest, ModelRef, NodeId, NodeKey};

/// Deepest folder inside an artifact.
const MAX_FOLDERS_DEEP: usize = 8;

/// What the publisher says about the artifact; the rest is detected.
#[derive(Clone, Debug)]
pub struct PackOptions {
    /// Name and version.
    pub model: ModelRef,
    /// The file of the weights, where there are several that could be meant.
    pub weights: Option<String>,
    /// Most tokens of prompt and answer together; nothing means as the model's own files say.
    pub context_tokens: Option<u32>,
    /// SPDX expression or name of the licence; nothing means as the model's own files say.
    pub licence: Option<String>,
    /// The model that it was made from.
    pub base_model: Option<ModelRef>,
    /// Of an adapter: what it is for.
    pub base: Option<Base>,
}

/// The base of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Name and version.
    pub model: ModelRef,
    /// Most tokens of prompt and answer together, which are the adapter's too.
    pub context_tokens: u32,
    /// The tensors of its weights.
    pub tensors: Shapes,
}

impl Base {
    /// As the manifest in the folder of the base says, whoever signed it: the publisher of the
    /// adapter decides what it is for.
    ///
    /// # Errors
    /// When there is no whole manifest, or it is an adapter's itself.
    pub fn read(dir: &Path) -> Result<Self, ArtifactError> {
        let (digest, manifest) = manifest_file::read_any(dir)?;
        if manifest.base_digest.is_some() {
            return Err(ArtifactError::UnsupportedFormat(format!(
                "{} is an adapter itself, and none is applied to another",
                dir.display()
            )));
        }
        if manifest.format != Format::Safetensors {
            return Err(ArtifactError::UnsupportedFormat(format!(
                "the base {} is not in safetensors: adapters are applied to those only",
                manifest.model
            )));
        }
        let files = manifest.files.iter().map(|file| file.path.as_str());
        let mut tensors = Shapes::default();
        for path in files.filter(|path| path.ends_with(".safetensors")) {
            let unreadable = |why| ArtifactError::UnsupportedFormat(format!("{path}: {why}"));
            tensors.extend(Shapes::read(regular::open(dir, path)?.0).map_err(unreadable)?);
        }
        Ok(Self {
            digest,
            model: manifest.model.clone(),
            context_tokens: manifest.context_tokens,
            tensors,
        })
    }
}

impl PackOptions {
    /// Options for a model of which everything else is detected.
    #[must_use]
    pub fn new(model: ModelRef) -> Self {
        Self {
            model,
            weights: None,
            context_tokens: None,
            licence: None,
            base_model: None,
            base: None,
        }
    }
}

/// An artifact that was packed or signed.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The model's digest.
    pub digest: Digest,
    /// Who signed it.
    pub publisher: NodeId,
    /// What was signed.
    pub manifest: Manifest,
}

/// Packs the files in `dir`, in place: hashes every file, detects what it is, writes the sealed
/// manifest. Names that begin with a dot are left out; links and special files are refused.
///
/// Blocks while it reads every byte: not for an async thread.
///
/// # Errors
/// When the directory holds no model that can be served, or cannot be read or written.
pub fn pack(
    dir: &Path,
    options: PackOptions,
    key: &NodeKey,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Packed, ArtifactError> {
    let paths = list(dir)?;
    let Detected {
        format,
        weights,
        tokenizer,
        context_tokens,
        licence,
        cache_width,
        adapter,
    } = detect::detect(dir, &paths, options.weights.as_deref())?;
    match (&adapter, &options.base) {
        (Some(adapter), Some(base)) => adapter.fits(&base.tensors),
        (Some(_), None) => {
            Err("this is an adapter: say which artifact it is for with --base".to_owned())
        }
        (None, Some(_)) => {
            Err("only an adapter has a base, and this is none: leave --base out".to_owned())
        }
        (None, None) => Ok(()),
    }
    .map_err(ArtifactError::UnsupportedFormat)?;
    let base = options.base;
    let own_context = base
        .as_ref()
        .map_or(context_tokens, |base| Some(base.context_tokens));
    let context_tokens = choose_context(options.context_tokens, own_context)?;
    let files = hash_all(dir, &paths, progress)?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let manifest = Manifest {
        model: options.model,
        format,
        weights,
        tokenizer,
        files,
        context_tokens,
        licence: options.licence.or(licence),
        base_model: options
            .base_model
            .or_else(|| base.as_ref().map(|base| base.model.clone())),
        base_digest: base.map(|base| base.digest),
        cache_width,
        adapters: Vec::new(),
        created_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
    };
    manifest_file::write(dir, manifest, key)
}

/// More than the model was made for gives nonsense, so it is refused; less is the publisher's choice.
fn choose_context(wanted: Option<u32>, own: Option<u32>) -> Result<u32, ArtifactError> {
    match (wanted, own) {
        (Some(wanted), Some(own)) if wanted > own => Err(ArtifactError::UnsupportedFormat(
            format!("a context of {wanted} tokens is more than the {own} of the model itself"),
        )),
        (Some(0), _) => Err(ArtifactError::UnsupportedFormat(
            "a context of 0 tokens holds nothing".to_owned(),
        )),
        (Some(wanted), _) => Ok(wanted),
        (None, Some(own)) => Ok(own),
        (None, None) => Err(ArtifactError::UnsupportedFormat(
            "the files do not say how many tokens the context holds: give it with --context-tokens"
                .to_owned(),
        )),
    }
}

fn hash_all(
    dir: &Path,
    paths: &[String],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Vec<FileEntry>, ArtifactError> {
    let mut bytes_total = 0_u64;
    for path in paths {
        bytes_total = bytes_total.saturating_add(regular::open(dir, path)?.1);
    }
    let mut bytes_done = 0;
    let mut entries = Vec::with_capacity(paths.len());
    for (file, path) in paths.iter().enumerate() {
        let (open, _) = regular::open(dir, path)?;
        let tell = |count| {
            bytes_done += count;
            progress(Progress {
                path,
                file,
                files: paths.len(),
                bytes_done,
                bytes_total,
            });
            ControlFlow::Continue(())
        };
        let (digest, size_bytes) = regular::hash(open, u64::MAX, tell)
            .map_err(|error| ArtifactError::io(&dir.join(path), error))?;
        entries.push(FileEntry {
            path: path.clone(),
            size_bytes,
            digest,
        });
    }
    Ok(entries)
}

/// Every file below `dir`, with `/`, sorted.
fn list(dir: &Path) -> Result<Vec<String>, ArtifactError> {
    let mut paths = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let at = dir.join(&folder);
        let io = |error| ArtifactError::io(&at, error);
        for entry in fs::read_dir(&at).map_err(io)? {
            let entry = entry.map_err(io)?;
            let kind = entry.file_type().map_err(io)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || (folder.is_empty() && name == MANIFEST_FILE) {
                continue;
            }
            let path = if folder.is_empty() {
                name.into_owned()
            } else {
                format!("{folder}/{name}")
            };
            if !is_safe_path(&path) {
                return Err(ArtifactError::UnsupportedFormat(format!(
                    "{path:?} cannot be the name of a file on every platform: rename it"
                )));
            }
            if kind.is_dir() {
                if depth + 1 > MAX_FOLDERS_DEEP {
                    return Err(ArtifactError::UnsupportedFormat(format!(
                        "{path} is more than {MAX_FOLDERS_DEEP} folders deep"
                    )));
                }
                folders.push((path, depth + 1));
            } else if kind.is_file() {
                paths.push(path);
            } else {
                return Err(ArtifactError::NotARegularFile(path));
            }
            if paths.len() > MAX_FILES || folders.len() > MAX_FILES {
                return Err(ArtifactError::UnsupportedFormat(format!(
                    "{} holds more than {MAX_FILES} files: is it the folder of a model?",
                    dir.display()
                )));
            }
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_larger_than_the_models_own_is_refused() {
        assert_eq!(choose_context(None, Some(2048)).expect("own"), 2048);
        assert_eq!(choose_context(Some(512), Some(2048)).expect("less"), 512);
        assert_eq!(choose_context(Some(512), None).expect("given"), 512);
        assert!(choose_context(Some(4096), Some(2048)).is_err());
        assert!(choose_context(Some(0), Some(2048)).is_err());
        assert!(choose_context(None, None).is_err());
    }
}
