//! `tether artifact`: models as signed directories. (ART-1, ART-6)

use crate::authority::key_file;
use crate::exit;
use crate::stderr;
use crate::stdout;
use anyhow::Context;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::fmt;
use std::path::{Path, PathBuf};
use tether_artifact_store::{ArtifactError, Base, MANIFEST_FILE, PackOptions, Progress, Trust};
use tether_wire::manifest::Format;
use tether_wire::{Digest, Manifest, ModelRef, NodeId};

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    /// Make an artifact of a model's directory, in place: hash its files and sign the manifest
    ///
    /// The directory holds a Hugging Face model (config.json and safetensors) or a GGUF file with
    /// its tokenizer files. Format, weights, tokenizer and context are detected. A LoRA adapter of
    /// PEFT (adapter_config.json and adapter_model.safetensors) needs --base.
    #[command(after_long_help = "\
Examples:
  tether artifact pack ./my-model --model my-model@1.0 --key publisher.key
  tether artifact pack ./my-model --model my-model@1.1 --key publisher.key --context-tokens 4096
  tether artifact pack ./my-lora --model my-lora@1.0 --key publisher.key --base ./my-model")]
    Pack(PackArgs),
    /// Sign an artifact with another key, after a check of its files
    #[command(after_long_help = "Examples:\n  tether artifact sign ./my-model --key publisher.key")]
    Sign {
        /// The artifact's directory
        dir: PathBuf,
        /// Key file of the publisher
        #[arg(long)]
        key: PathBuf,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check an artifact: who signed it, and every byte of its files
    #[command(after_long_help = "\
Examples:
  tether artifact verify ./my-model --publisher $(tether keys show publisher.key)")]
    Verify {
        /// The artifact's directory
        dir: PathBuf,
        /// Public id of a publisher who is trusted; may be given several times
        #[arg(long, required = true, value_name = "ID")]
        publisher: Vec<NodeId>,
        /// The digest that it must have
        #[arg(long)]
        digest: Option<Digest>,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `tether artifact pack`.
#[derive(Debug, Args)]
pub(crate) struct PackArgs {
    /// The directory with the model's files
    dir: PathBuf,
    /// Name and version, NAME@MAJOR.MINOR
    #[arg(long)]
    model: ModelRef,
    /// Key file of the publisher, who signs
    #[arg(long)]
    key: PathBuf,
    /// The file of the weights, where several could be meant
    #[arg(long, value_name = "FILE")]
    weights: Option<String>,
    /// Most tokens of prompt and answer together, where it should be less than the model's own
    #[arg(long, value_name = "N")]
    context_tokens: Option<u32>,
    /// SPDX expression or name of the licence
    #[arg(long)]
    licence: Option<String>,
    /// The model that it was made from, NAME@MAJOR.MINOR
    #[arg(long, value_name = "MODEL")]
    base_model: Option<ModelRef>,
    /// Of a LoRA adapter: the packed artifact that it is for
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl ArtifactCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let (dir, json) = match &self {
            Self::Pack(args) => (args.dir.clone(), args.json),
            Self::Sign { dir, json, .. } | Self::Verify { dir, json, .. } => (dir.clone(), *json),
        };
        let result = self.work();
        if let (true, Err(error)) = (json, &result) {
            let code = error
                .downcast_ref::<ArtifactError>()
                .map_or("failed", ArtifactError::code);
            // What is told is that it failed, also where nobody reads why.
            let _ = stdout::line(json!({"error": {"code": code, "message": exit::words(error)}}));
        }
        let found = result.with_context(|| dir.display().to_string())?;
        let said = if json {
            stdout::line(found.to_json())
        } else {
            stdout::line(found)
        };
        Ok(said?)
    }

    fn work(self) -> anyhow::Result<Found> {
        match self {
            Self::Pack(args) => pack(args),
            Self::Sign { dir, key, json } => sign(&dir, &key, !json),
            Self::Verify {
                dir,
                publisher,
                digest,
                json,
            } => verify(&dir, publisher, digest.as_ref(), !json),
        }
    }
}

fn pack(args: PackArgs) -> anyhow::Result<Found> {
    let key = key_file::read(&args.key)?;
    let mut options = PackOptions::new(args.model);
    options.weights = args.weights;
    options.context_tokens = args.context_tokens;
    options.licence = args.licence;
    options.base_model = args.base_model;
    options.base = args.base.as_deref().map(Base::read).transpose()?;
    let bar = Bar::new(!args.json);
    let packed = tether_artifact_store::pack(&args.dir, options, &key, &mut bar.watcher())?;
    Ok(Found::new(packed.digest, packed.publisher, packed.manifest))
}

fn sign(dir: &Path, key: &Path, show: bool) -> anyhow::Result<Found> {
    let key = key_file::read(key)?;
    // Whoever signed before: this is a check of the bytes, and the holder of the key decides.
    verify(dir, vec![claimed_signer(dir)?], None, show)?;
    let packed = tether_artifact_store::sign(dir, &key)?;
    Ok(Found::new(packed.digest, packed.publisher, packed.manifest))
}

fn claimed_signer(dir: &Path) -> anyhow::Result<NodeId> {
    use std::io::Read;
    let path = dir.join(MANIFEST_FILE);
    let mut head = [0; 33];
    std::fs::File::open(&path)
        .and_then(|mut file| file.read_exact(&mut head))
        .with_context(|| format!("cannot read {}: pack the directory first", path.display()))?;
    let [_, id @ ..] = head;
    Ok(NodeId(id))
}

fn verify(
    dir: &Path,
    publishers: Vec<NodeId>,
    digest: Option<&Digest>,
    show: bool,
) -> anyhow::Result<Found> {
    let bar = Bar::new(show);
    let trust = Trust::in_publishers(publishers);
    let artifact = tether_artifact_store::verify(dir, &trust, digest, &mut bar.watcher())?;
    for path in artifact.unlisted() {
        stderr::line(format_args!(
            "note: {path} is not part of the artifact and is never loaded"
        ));
    }
    Ok(Found::new(
        artifact.digest(),
        artifact.publisher(),
        artifact.manifest().clone(),
    ))
}

/// What is shown of an artifact.
struct Found {
    digest: Digest,
    publisher: NodeId,
    manifest: Manifest,
}

impl Found {
    fn new(digest: Digest, publisher: NodeId, manifest: Manifest) -> Self {
        Self {
            digest,
            publisher,
            manifest,
        }
    }

    fn bytes(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.size_bytes).sum()
    }

    fn to_json(&self) -> serde_json::Value {
        json!({
            "model": self.manifest.model.to_string(),
            "digest": self.digest,
            "publisher": self.publisher,
            "format": self.manifest.format,
            "context_tokens": self.manifest.context_tokens,
            "licence": self.manifest.licence,
            "base_digest": self.manifest.base_digest,
            "files": self.manifest.files.len(),
            "bytes": self.bytes(),
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "model      {}", self.manifest.model)?;
        writeln!(f, "digest     {}", self.digest)?;
        writeln!(f, "publisher  {}", self.publisher)?;
        writeln!(f, "format     {}", format_text(self.manifest.format))?;
        writeln!(f, "context    {} tokens", self.manifest.context_tokens)?;
        if let Some(base) = self.manifest.base_digest {
            writeln!(f, "base       {base}")?;
        }
        let licence = self.manifest.licence.as_deref();
        writeln!(f, "licence    {}", licence.unwrap_or("not given"))?;
        let (files, bytes) = (self.manifest.files.len(), self.bytes());
        write!(f, "files      {files}, {bytes} bytes")
    }
}

/// As the manifest and `--json` write it.
fn format_text(format: Format) -> &'static str {
    match format {
        Format::Gguf => "gguf",
        Format::Safetensors => "safetensors",
        Format::Unknown => "unknown",
    }
}

/// A progress bar on stderr; indicatif hides it where that is no terminal.
struct Bar(ProgressBar);

impl Bar {
    fn new(show: bool) -> Self {
        let bar = if show {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template(
            "{wide_msg} {bytes}/{total_bytes} {bytes_per_sec} {bar:24} {eta}",
        ) {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn watcher(&self) -> impl FnMut(Progress<'_>) {
        let bar = self.0.clone();
        move |progress| {
            bar.set_length(progress.bytes_total);
            bar.set_position(progress.bytes_done);
            bar.set_message(progress.path.to_owned());
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
