//! `tether worker init`: asks a provider a few questions, or takes the answers as options, and writes
//! a configuration that was read by the very code that starts the worker. (WRK-7)
//!
//! Questions are asked on a terminal alone, with a default where there is one; nothing is guessed
//! where nobody can be asked. What it writes is what `tether worker --join` would write, and more.

mod questions;

use crate::commands::worker_init::questions::Questions;
use crate::config;
use crate::exit::Usage;
use crate::roles::worker::home::{Fresh, FreshModel, FreshNode, FreshWorker, Home};
use crate::roles::worker::join;
use crate::stdout;
use anyhow::Context;
use clap::Args;
use serde_json::json;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tether_artifact_store::{MANIFEST_FILE, Trust, read_manifest};
use tether_wire::envelope::HEADER_LEN;
use tether_wire::{Digest, Manifest, MeshId, ModelRef, NodeId, Region, Signed};
use tether_worker::WorkerConfig;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether worker init                                  asks, on a terminal
  tether worker init --join-file token --model ./tiny --publisher ID --yes
  tether worker init --mesh ID --region eu --bootstrap 192.0.2.10:49737 --model ./tiny --publisher ID \\
    --slots 8 --price 250 --data-dir ./w --yes --json

It writes worker.toml into the data folder, after reading it as the worker will, and prints the
command that starts the worker. Nothing is overwritten without --force. Where standard input is no
terminal, --yes is needed: then what is not given has its default, and what has none is an error.")]
pub(crate) struct InitArgs {
    /// Folder of the worker: its configuration, key, grant and data
    #[arg(long, value_name = "DIR", default_value = "tether-worker")]
    data_dir: PathBuf,
    /// The token of an invite, for the mesh, its region and its bootstrap nodes; better given as the
    /// variable or by --join-file, which other users of the machine cannot read
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TETHER_JOIN",
        hide_env_values = true,
        conflicts_with_all = ["mesh", "region", "bootstrap"]
    )]
    join: Option<String>,
    /// The same, with the token in a file; `-` reads it from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mesh", "region", "bootstrap"])]
    join_file: Option<PathBuf>,
    /// The mesh, where there is no token
    #[arg(long, value_name = "ID", requires = "region", requires = "bootstrap")]
    mesh: Option<MeshId>,
    /// The recovery key of the mesh, where it has one
    #[arg(long, value_name = "ID", requires = "mesh")]
    recovery: Option<NodeId>,
    /// The region, where there is no token
    #[arg(long, requires = "mesh")]
    region: Option<Region>,
    /// Address of a bootstrap node, where there is no token; may be given several times
    #[arg(long, value_name = "IP:PORT", requires = "mesh")]
    bootstrap: Vec<SocketAddr>,
    /// A packed model; may be given several times
    #[arg(long, value_name = "DIR")]
    model: Vec<PathBuf>,
    /// A publisher whose signed models are trusted; may be given several times
    #[arg(long, value_name = "ID")]
    publisher: Vec<NodeId>,
    /// Requests that run at once
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Memory that loaded models may take together, in MiB; 0 is three quarters of the machine's
    #[arg(long, value_name = "MIB")]
    memory_budget_mib: Option<u64>,
    /// Class of the accelerator, as orchestrators know it
    #[arg(long, value_name = "CLASS")]
    gpu_class: Option<String>,
    /// Number of accelerators
    #[arg(long, value_name = "N")]
    accelerators: Option<u32>,
    /// Price in micro-credits for a thousand tokens
    #[arg(long, value_name = "MICRO")]
    price: Option<u64>,
    /// Ask nothing: defaults for what is not given
    #[arg(long)]
    yes: bool,
    /// Overwrite a configuration that is there
    #[arg(long)]
    force: bool,
    /// One JSON object; asks nothing, so that it needs --yes
    #[arg(long, requires = "yes")]
    json: bool,
}

/// A model that is to be served.
struct Chosen {
    path: PathBuf,
    model: ModelRef,
    digest: Digest,
    publisher: NodeId,
}

impl InitArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if !self.yes && !std::io::stdin().is_terminal() {
            return Err(Usage(
                "standard input is no terminal, so nothing can be asked: give --yes, and every answer as an option",
            )
            .into());
        }
        let mut ask = Questions::new(!self.yes);
        let home = Home::new(self.data_dir.clone());
        if home.config().exists() && !self.force {
            anyhow::bail!(
                "{} is there already: edit it, give another --data-dir, or --force",
                home.config().display()
            );
        }
        let (node, has_token) = self.node(&mut ask)?;
        let mut publishers = self.publisher.clone();
        let chosen = self.models(&mut ask, &mut publishers)?;
        let worker = self.worker(&mut ask, &chosen, publishers)?;
        let _lock = home.open()?;
        home.replace_config(&Fresh { node, worker }, |path| {
            config::joining_worker(path).map(|_| ())
        })?;
        let next = self.next(has_token);
        if self.json {
            let models: Vec<_> = (chosen.iter())
                .map(|it| {
                    json!({
                        "path": it.path, "model": it.model.to_string(),
                        "digest": it.digest, "publisher": it.publisher,
                    })
                })
                .collect();
            stdout::line(json!({"config": home.config(), "models": models, "next": next}))?;
        } else {
            stdout::line(format!("Written: {}", home.config().display()))?;
            stdout::line(format!("Next:    {next}"))?;
        }
        Ok(())
    }

    /// Which mesh, from a token or from options; and whether there is a token.
    fn node(&self, ask: &mut Questions) -> anyhow::Result<(FreshNode, bool)> {
        if let (Some(mesh), Some(region)) = (self.mesh, &self.region) {
            let node = FreshNode::new(mesh, self.recovery, region.clone(), self.bootstrap.clone());
            return Ok((node, false));
        }
        let asked;
        let mut text = self.join.as_deref();
        if text.is_none_or(str::is_empty) && self.join_file.is_none() {
            asked = ask.text("Token of the invite (tether-join-1-…)")?.ok_or(Usage(
                "give a token by --join-file or TETHER_JOIN, or --mesh, --region and --bootstrap",
            ))?;
            text = Some(asked.as_str());
        }
        let token = join::token(text, self.join_file.as_deref())?
            .context("there is no token: ask the operator of the mesh for one")?;
        Ok((join::fresh_node(&token)?, true))
    }

    /// Models that exist, are rightly signed, and by somebody who is trusted.
    fn models(
        &self,
        ask: &mut Questions,
        publishers: &mut Vec<NodeId>,
    ) -> anyhow::Result<Vec<Chosen>> {
        let mut chosen = Vec::new();
        for path in &self.model {
            chosen.push(choose(ask, path, publishers)?);
        }
        while self.model.is_empty() && ask.can() {
            let what = "Folder of a packed model (empty: no more)";
            let Some(path) = ask.text(what)?.map(PathBuf::from) else {
                break;
            };
            match choose(ask, &path, publishers) {
                Ok(one) => chosen.push(one),
                Err(error) => ask.say(&format!("  not taken: {error:#}"))?,
            }
        }
        Ok(chosen)
    }

    fn worker(
        &self,
        ask: &mut Questions,
        chosen: &[Chosen],
        publishers: Vec<NodeId>,
    ) -> anyhow::Result<FreshWorker> {
        let plain = WorkerConfig::default();
        let gpus = nvidia_gpus();
        let class = gpus.first().cloned().unwrap_or(plain.gpu_class.clone());
        let found = u32::try_from(gpus.len()).unwrap_or(plain.accelerators);
        let models = chosen.iter().map(|it| FreshModel {
            path: it.path.clone(),
        });
        Ok(FreshWorker {
            trusted_publishers: publishers,
            slots: Some(ask.number("Requests that run at once", self.slots, plain.slots)?),
            memory_budget_mib: Some(ask.number(
                "Memory for loaded models in MiB (0: three quarters of the machine's)",
                self.memory_budget_mib,
                plain.memory_budget_mib,
            )?),
            gpu_class: Some(ask.number(
                "Class of the accelerator",
                self.gpu_class.clone(),
                class,
            )?),
            accelerators: Some(ask.number("Accelerators", self.accelerators, found)?),
            price_per_1k_micro: Some(ask.number(
                "Price in micro-credits for a thousand tokens",
                self.price,
                plain.price_per_1k_micro,
            )?),
            models: models.collect(),
        })
    }

    fn next(&self, has_token: bool) -> String {
        let dir = self.data_dir.display();
        match (&self.join_file, has_token) {
            (Some(file), true) if file != Path::new("-") => {
                format!(
                    "tether worker --join-file {} --data-dir {dir}",
                    file.display()
                )
            }
            (_, true) => format!("tether worker --join-file TOKENFILE --data-dir {dir}"),
            (_, false) => format!("tether worker --data-dir {dir}"),
        }
    }
}

/// Reads a model's manifest and makes sure that its publisher is trusted.
fn choose(
    ask: &mut Questions,
    path: &Path,
    publishers: &mut Vec<NodeId>,
) -> anyhow::Result<Chosen> {
    let shown = path.display();
    let path = std::fs::canonicalize(path).with_context(|| format!("the model {shown}"))?;
    let mut bytes = Vec::new();
    (File::open(path.join(MANIFEST_FILE)))
        .and_then(|file| file.take(HEADER_LEN as u64).read_to_end(&mut bytes))
        .with_context(|| format!("{shown} is no packed model: see `tether artifact pack`"))?;
    let publisher = Signed::<Manifest>::from_bytes(bytes)
        .claimed_signer()
        .with_context(|| format!("the manifest of {shown} is not signed"))?;
    // Its signature is checked before anything of it is shown.
    let (digest, manifest) = read_manifest(&path, &Trust::in_publishers([publisher]))
        .with_context(|| format!("the model {shown}"))?;
    let model = manifest.model.clone();
    if !publishers.contains(&publisher) {
        ask.say(&format!(
            "  {model}, digest {digest}\n  signed by {publisher}"
        ))?;
        if !ask.agrees("Trust this publisher's models?")? {
            anyhow::bail!(
                "{model} is signed by {publisher}, who is not trusted: give --publisher {publisher} if you know this key"
            );
        }
        publishers.push(publisher);
    }
    Ok(Chosen {
        path,
        model,
        digest,
        publisher,
    })
}

/// Names of NVIDIA's accelerators, in the form of a class; none where the driver is not there.
fn nvidia_gpus() -> Vec<String> {
    let folder = std::fs::read_dir("/proc/driver/nvidia/gpus");
    let cards = folder.into_iter().flatten().flatten();
    cards
        .filter_map(|card| std::fs::read_to_string(card.path().join("information")).ok())
        .filter_map(|text| questions::gpu_class(&text))
        .collect()
}
