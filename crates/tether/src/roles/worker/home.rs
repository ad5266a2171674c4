//! The folder of a worker that joins: its key, its grant, its configuration, and what it keeps.
//!
//! ```text
//! DIR/node.key       made before anything else, and kept: a second attempt takes no second use
//! DIR/worker.toml    the configuration, as `tether worker --config` reads it
//! DIR/node.grant     what the mesh gave; once it is there, the worker has joined
//! DIR/join.token     the token by which it joins, where `init` was given it in no file
//! DIR/data/          what the worker keeps
//! ```

use crate::files;
use anyhow::Context;
use serde::Serialize;
use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tether_wire::grant::Access;
use tether_wire::{MeshId, NodeId, Region};

/// What stands above a configuration that was made by joining.
const HEADER: &str = "\
# Made by `tether worker --join` or `init`; `tether worker --config` of this file starts the worker again.
# Yours to edit: models are added as
#
#   [[worker.models]]
#   path = \"/path/to/a/packed/model\"
#
# with the publishers whose signatures are trusted in `trusted_publishers` of [worker].
# For a collector of metrics on this machine: `metrics = \"127.0.0.1:9465\"` in [worker].

";

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    dir: PathBuf,
}

/// What a new configuration says.
#[derive(Debug, Serialize)]
pub(crate) struct Fresh {
    pub(crate) node: FreshNode,
    pub(crate) worker: FreshWorker,
}

/// Its `[node]`.
#[derive(Debug, Serialize)]
pub(crate) struct FreshNode {
    pub(crate) key: &'static str,
    pub(crate) grant: &'static str,
    pub(crate) mesh: MeshId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recovery: Option<NodeId>,
    pub(crate) access: Access,
    pub(crate) region: Region,
    pub(crate) bootstrap: Vec<SocketAddr>,
    pub(crate) data_dir: &'static str,
}

impl FreshNode {
    /// Of a worker of this mesh, whose files lie beside its configuration.
    pub(crate) fn new(
        mesh: MeshId,
        recovery: Option<NodeId>,
        region: Region,
        bootstrap: Vec<SocketAddr>,
    ) -> Self {
        Self {
            key: KEY,
            grant: GRANT,
            mesh,
            recovery,
            access: Access::Invite,
            region,
            bootstrap,
            data_dir: DATA,
        }
    }
}

/// Its `[worker]`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct FreshWorker {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) trusted_publishers: Vec<NodeId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slots: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_budget_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu_class: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) accelerators: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) price_per_1k_micro: Option<u64>,
    // Left out where there are none, so that one can be added at the end of the file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) models: Vec<FreshModel>,
}

/// A model.
#[derive(Debug, Serialize)]
pub(crate) struct FreshModel {
    pub(crate) path: PathBuf,
}

/// Names of its files, which the configuration names too.
pub(crate) const KEY: &str = "node.key";
pub(crate) const GRANT: &str = "node.grant";
pub(crate) const DATA: &str = "data";
const CONFIG: &str = "worker.toml";
/// The token of an invite, where `init` was given it in no file.
const TOKEN: &str = "join.token";

impl Home {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.dir.join(KEY)
    }
    pub(crate) fn grant(&self) -> PathBuf {
        self.dir.join(GRANT)
    }
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join(CONFIG)
    }

    /// Makes the folder, and takes it for this process until what is returned is dropped.
    pub(crate) fn open(&self) -> anyhow::Result<File> {
        let shown = self.dir.display();
        files::private_dir(&self.dir).with_context(|| format!("cannot use {shown}"))?;
        let file = File::open(&self.dir).with_context(|| format!("cannot use {shown}"))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => anyhow::bail!(
                "another process joins in {shown}: wait for it, or give another --data-dir"
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {shown}"))
            }
        }
    }

    /// Writes the configuration, over one that is there, once `check` has read its text.
    pub(crate) fn replace_config<E>(
        &self,
        fresh: &Fresh,
        check: impl FnOnce(&str, &Path) -> Result<(), E>,
    ) -> anyhow::Result<()>
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let text = toml::to_string(fresh).context("cannot encode the settings")?;
        let (path, text) = (self.config(), format!("{HEADER}{text}"));
        check(&text, &path)?;
        files::replace_private(&path, text.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Keeps the token of an invite, for the worker that is yet to join.
    pub(crate) fn keep_token(&self, token: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(TOKEN);
        files::replace_private(&path, format!("{token}\n").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Writes the configuration.
    pub(crate) fn write_config(&self, fresh: &Fresh) -> anyhow::Result<()> {
        let text = toml::to_string(fresh).context("cannot encode the settings")?;
        let path = self.config();
        files::create_private(&path, format!("{HEADER}{text}").as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
