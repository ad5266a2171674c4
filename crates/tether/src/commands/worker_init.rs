//! `tether worker init`: asks a provider a few questions, or takes the answers as options, and writes
//! a configuration that was read by the very code that starts the worker. (WRK-7)
//!
//! Questions are asked on a terminal alone, with a default where there is one; nothing is guessed
//! where nobody can be asked. What it writes is what `tether worker --join` would write, and more.

//!
//! # Layout
//!
//! * `questions` – questions on a terminal, and `hidden` for a secret
//! * `models` – models that can be served
//! * `next` – what is left to do

mod hidden;
mod models;
mod next;
mod questions;

use crate::authority::key_file;
use crate::config;
use crate::exit::Usage;
use crate::roles::worker::home::{Fresh, FreshModel, FreshNode, FreshWorker, Home};
use crate::roles::worker::join;
use crate::stdout;
use anyhow::Context;
use clap::Args;
use models::Chosen;
use questions::Questions;
use serde_json::json;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tether_wire::invite::Token;
use tether_wire::{MeshId, NodeId, Region};
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
command that starts the worker, after what it needs before: a grant where there is no token, and a
model where none was named. A token that is in no file is kept in join.token beside it. Nothing is
overwritten without --force. Where standard input is no terminal, --yes is needed: then what is not
given has its default, and what has none is an error.")]
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

/// Which mesh a worker is of.
enum Mesh {
    /// That of a token, and the file that the token is in, if it is in one.
    Invited(Box<Token>, Option<PathBuf>),
    /// Named by options; its operator has yet to make a grant.
    Named(Region),
}

impl InitArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if !self.yes && !std::io::stdin().is_terminal() {
            return Err(Usage(
                "standard input is no terminal, so nothing can be asked: give --yes, and every answer as an option",
            )
            .into());
        }
        // Before anything is asked: whoever gave a wrong option need not answer first.
        config::check_worker_settings(&self.given(), "the options")?;
        let mut ask = Questions::new(!self.yes);
        let home = Home::new(self.data_dir.clone());
        if home.config().exists() && !self.force {
            anyhow::bail!(
                "{} is there already: edit it, give another --data-dir, or --force",
                home.config().display()
            );
        }
        let (node, mesh) = self.node(&mut ask)?;
        let mut publishers = Vec::new();
        for publisher in &self.publisher {
            if !publishers.contains(publisher) {
                publishers.push(*publisher);
            }
        }
        let chosen = models::choose(&mut ask, &self.model, &mut publishers)?;
        let worker = self.worker(&mut ask, &chosen, publishers)?;
        let _lock = home.open()?;
        home.replace_config(&Fresh { node, worker }, |text, path| {
            config::joining_worker_of(text, path).map(|_| ())
        })?;
        let mut needs = Vec::new();
        let token = match &mesh {
            Mesh::Invited(_, Some(file)) => Some(file.clone()),
            Mesh::Invited(token, None) => Some(home.keep_token(&token.to_text())?),
            Mesh::Named(region) => {
                let id = key_file::read_or_create(&home.key())?.id();
                if !home.grant().exists() {
                    needs.push(next::grant(id, region, &home.grant()));
                }
                None
            }
        };
        if chosen.is_empty() {
            needs.push(next::model(&home.config()));
        }
        let next = next::command(&self.data_dir, token.as_deref());
        self.tell(&home, &chosen, &needs, &next)
    }

    fn tell(
        &self,
        home: &Home,
        chosen: &[Chosen],
        needs: &[String],
        next: &str,
    ) -> anyhow::Result<()> {
        let config = home.config();
        if self.json {
            let models: Vec<_> = (chosen.iter())
                .map(|it| {
                    json!({
                        "path": it.path, "model": it.model.to_string(),
                        "digest": it.digest, "publisher": it.publisher,
                    })
                })
                .collect();
            return stdout::line(
                json!({"config": config, "models": models, "needs": needs, "next": next}),
            )
            .map_err(Into::into);
        }
        stdout::line(format!("Written: {}", config.display()))?;
        for need in needs {
            stdout::line(format!("Needs:   {need}"))?;
        }
        stdout::line(format!("Next:    {next}"))?;
        Ok(())
    }

    /// What the options say of the worker.
    fn given(&self) -> WorkerConfig {
        let plain = WorkerConfig::default();
        WorkerConfig {
            slots: self.slots.unwrap_or(plain.slots),
            memory_budget_mib: self.memory_budget_mib.unwrap_or(plain.memory_budget_mib),
            gpu_class: self.gpu_class.clone().unwrap_or(plain.gpu_class),
            accelerators: self.accelerators.unwrap_or(plain.accelerators),
            price_per_1k_micro: self.price.unwrap_or(plain.price_per_1k_micro),
            ..WorkerConfig::default()
        }
    }

    /// Which mesh, from a token or from options.
    fn node(&self, ask: &mut Questions) -> anyhow::Result<(FreshNode, Mesh)> {
        if let (Some(mesh), Some(region)) = (self.mesh, &self.region) {
            let node = FreshNode::new(mesh, self.recovery, region.clone(), self.bootstrap.clone());
            return Ok((node, Mesh::Named(region.clone())));
        }
        let asked;
        let mut text = self.join.as_deref();
        if text.is_none_or(str::is_empty) && self.join_file.is_none() {
            let what = "Token of the invite (tether-join-1-…, not shown)";
            asked = ask.secret(what)?.ok_or(Usage(
                "give a token by --join-file or TETHER_JOIN, or --mesh, --region and --bootstrap",
            ))?;
            text = Some(asked.as_str());
        }
        let token = join::token(text, self.join_file.as_deref())?
            .context("there is no token: ask the operator of the mesh for one")?;
        let node = join::fresh_node(&token)?;
        let file = (self.join_file.clone()).filter(|file| file != Path::new("-"));
        Ok((node, Mesh::Invited(Box::new(token), file)))
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
            slots: Some(ask.setting(
                "Requests that run at once",
                self.slots,
                plain.slots,
                |config, it| config.slots = *it,
            )?),
            memory_budget_mib: Some(ask.setting(
                "Memory for loaded models in MiB (0: three quarters of the machine's)",
                self.memory_budget_mib,
                plain.memory_budget_mib,
                |config, it| config.memory_budget_mib = *it,
            )?),
            gpu_class: Some(ask.setting(
                "Class of the accelerator",
                self.gpu_class.clone(),
                class,
                |config, it| config.gpu_class.clone_from(it),
            )?),
            accelerators: Some(ask.setting(
                "Accelerators",
                self.accelerators,
                found,
                |config, it| config.accelerators = *it,
            )?),
            price_per_1k_micro: Some(ask.setting(
                "Price in micro-credits for a thousand tokens",
                self.price,
                plain.price_per_1k_micro,
                |config, it| config.price_per_1k_micro = *it,
            )?),
            models: models.collect(),
        })
    }
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
