//! The signed description of a model's files. (ART-1) [T-ART-1] to [T-ART-6]

use crate::codec::{CodecError, check_field, check_len};
use crate::envelope::Signable;
use crate::id::{Digest, ModelRef, NodeId};
use serde::{Deserialize, Serialize};

/// Most files of an artifact. [T-ART-4]
pub const MAX_FILES: usize = 1_024;

/// Format of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One GGUF file, beside tokenizer files.
    Gguf,
    /// A Hugging Face directory: `config.json` and safetensors.
    Safetensors,
    /// A format that this version does not know; never loaded.
    #[serde(other)]
    Unknown,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path inside the artifact, with `/`, relative, without `.` or `..`.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// BLAKE3 of its content.
    pub digest: Digest,
}

/// What an artifact is. Its own digest, that of its sealed bytes, is the model's digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name and version.
    pub model: ModelRef,
    /// Format of the weights.
    pub format: Format,
    /// The file of the weights; the first of several shards.
    pub weights: String,
    /// The tokenizer's file.
    #[serde(default)]
    pub tokenizer: Option<String>,
    /// Every file.
    pub files: Vec<FileEntry>,
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// SPDX expression or name of the licence.
    #[serde(default)]
    pub licence: Option<String>,
    /// The model that it was made from.
    #[serde(default)]
    pub base_model: Option<ModelRef>,
    /// An adapter says by it which base it is for; it is loaded with that and no other. [T-ART-6]
    #[serde(default)]
    pub base_digest: Option<Digest>,
    /// Numbers that attention keeps for each token, over all layers, for estimates of memory.
    #[serde(default)]
    pub cache_width: Option<u32>,
    /// Digests of adapters' manifests that go with it.
    #[serde(default)]
    pub adapters: Vec<Digest>,
    /// Unix milliseconds at which it was packed.
    pub created_ms: u64,
}

/// Whether a path stays inside the artifact on every platform. [T-ART-3]
#[must_use]
pub fn is_safe_path(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 255
        && !path.starts_with('/')
        && !path.contains(['\\', ':', '\0'])
        && path
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

impl Signable for Manifest {
    const WHAT: &'static str = "manifest";
    const DOMAIN: &'static str = "tether/manifest/1";
    const MAX_BYTES: usize = 512 * 1024;
    const MESH_BOUND: bool = false;

    fn check(&self, _: &NodeId) -> Result<(), CodecError> {
        let what = Self::WHAT;
        check_len(what, "files", self.files.len(), MAX_FILES)?;
        check_len(what, "adapters", self.adapters.len(), 64)?;
        check_len(
            what,
            "licence",
            self.licence.as_ref().map_or(0, String::len),
            256,
        )?;
        for file in &self.files {
            check_field(what, "files", is_safe_path(&file.path), || {
                // Shown shortly: it is a stranger's, and as long as they like.
                let path: String = file.path.chars().take(80).collect();
                format!("has the path {path:?}, which may lead outside the artifact")
            })?;
        }
        let mut paths: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        paths.sort_unstable();
        let unique = paths.windows(2).all(|pair| pair[0] != pair[1]);
        check_field(what, "files", unique, || "names a path twice".to_owned())?;
        let listed = |path: &str| paths.binary_search(&path).is_ok();
        check_field(what, "weights", listed(&self.weights), || {
            "is not one of its files".to_owned()
        })?;
        let tokenizer = self.tokenizer.as_deref();
        check_field(what, "tokenizer", tokenizer.is_none_or(listed), || {
            "is not one of its files".to_owned()
        })?;
        check_field(what, "context_tokens", self.context_tokens > 0, || {
            "is zero".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_outside_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a//b",
            "./a",
            "a/",
            "c:\\x",
            "a\0b",
        ] {
            assert!(!is_safe_path(bad), "{bad:?}");
        }
        assert!(is_safe_path("model.gguf") && is_safe_path("onnx/model.bin"));
    }
}
