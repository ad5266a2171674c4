//! The models of a mesh on one machine: the small one that is part of this program, and others.

use super::layout::Layout;
use crate::config::ConfigError;
use crate::files;
use anyhow::Context;
use std::path::{Path, PathBuf};
use tether_artifact_store::{MANIFEST_FILE, PackOptions, Trust};
use tether_wire::{ModelRef, NodeKey};

/// The small model, in the data folder: unpacked, packed and signed if it is not there yet.
pub(crate) fn small_model(layout: &Layout, key: &NodeKey) -> anyhow::Result<(ModelRef, PathBuf)> {
    let model = ModelRef {
        name: tether_tiny_model::NAME.parse()?,
        version: tether_tiny_model::VERSION.parse()?,
    };
    let dir = layout.model(tether_tiny_model::NAME, tether_tiny_model::VERSION);
    if !dir.join(MANIFEST_FILE).exists() || is_outdated(&dir) {
        unpack(&dir, &model, key)
            .with_context(|| format!("cannot unpack the small model into {}", dir.display()))?;
    }
    Ok((model, dir))
}

/// Whether the files are another release's of this program: sizes tell, without reading them. What
/// was changed since is for the worker to find, which verifies every byte.
fn is_outdated(dir: &Path) -> bool {
    tether_tiny_model::files().iter().any(|file| {
        std::fs::metadata(dir.join(file.name))
            .is_ok_and(|meta| meta.len() != file.bytes.len() as u64)
    })
}

/// Beside its place and then moved there: a start that was cut off leaves no half of a model.
fn unpack(dir: &Path, model: &ModelRef, key: &NodeKey) -> anyhow::Result<()> {
    let parent = dir.parent().context("the folder has no parent")?;
    let fresh = tempfile::Builder::new()
        .prefix(".unpacking-")
        .tempdir_in(parent)?;
    let inner = fresh.path().join("model");
    files::private_dir(&inner)?;
    for file in tether_tiny_model::files() {
        std::fs::write(inner.join(file.name), file.bytes)?;
    }
    tether_artifact_store::pack(&inner, PackOptions::new(model.clone()), key, &mut |_| {})?;
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    std::fs::rename(&inner, dir)?;
    Ok(())
}

/// Refuses a directory given with `--model` that is none, or was never packed: a mistake in the
/// command, which is known before anything is started. What else is wrong with a model, a worker
/// finds and says, and serves the others.
pub(crate) fn require_packed(dirs: &[PathBuf]) -> Result<(), ConfigError> {
    let refuse = |dir: &Path, why: String| ConfigError::Model {
        dir: dir.to_owned(),
        why,
    };
    for dir in dirs {
        if !dir.is_dir() {
            return Err(refuse(
                dir,
                "is no directory: give that of a model, packed by `tether artifact pack`"
                    .to_owned(),
            ));
        }
        if !dir.join(MANIFEST_FILE).exists() {
            let pack = format!(
                "holds no {MANIFEST_FILE}: pack and sign it with `tether artifact pack {} --model NAME@1.0 --key publisher.key` first",
                dir.display()
            );
            return Err(refuse(dir, pack));
        }
    }
    Ok(())
}

/// The model in a directory given with `--model`, if a publisher who is trusted here signed it.
pub(crate) fn released(dir: &Path, trust: &Trust) -> Option<ModelRef> {
    let (_, manifest) = tether_artifact_store::read_manifest(dir, trust).ok()?;
    Some(manifest.model.clone())
}
