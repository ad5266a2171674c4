//! `DATA_DIR/run.json`: what a running `tether up` says about itself.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Its file name.
pub(crate) const RUN_FILE: &str = "run.json";

/// The ready object: one line of `tether up --json`, and the content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunFile {
    /// `ready`.
    pub(crate) event: String,
    /// URL of the gateway.
    pub(crate) gateway: String,
    /// URL of the metrics of everything in this process.
    pub(crate) metrics: String,
    /// URL of the orchestrator's admin endpoint.
    pub(crate) admin: String,
    /// File of the token for it.
    pub(crate) admin_token_file: PathBuf,
    /// The tenant's API key.
    pub(crate) api_key: String,
    /// The model that answered the first prompt.
    pub(crate) model: String,
    /// All models, with versions.
    pub(crate) models: Vec<String>,
    /// The mesh id.
    pub(crate) mesh: String,
    /// The region.
    pub(crate) region: String,
    /// Topics and their keys on the DHT.
    pub(crate) topics: Vec<RunTopic>,
    /// DHT bootstrap nodes.
    pub(crate) bootstrap: Vec<SocketAddr>,
    /// The workers that run now.
    pub(crate) workers: Vec<RunWorker>,
    /// Process id of `tether up` itself.
    pub(crate) pid: u32,
    /// The data folder.
    pub(crate) data_dir: PathBuf,
    /// Milliseconds from the start of the process to the first piece of the first answer.
    pub(crate) first_token_ms: u64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunTopic {
    /// Its name.
    pub(crate) name: String,
    /// Hex of its DHT key.
    pub(crate) key: String,
}

/// A worker process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunWorker {
    /// Its node id.
    pub(crate) id: String,
    /// Its process id now; 0 between its death and its restart.
    pub(crate) pid: u32,
    /// Its log.
    pub(crate) log: PathBuf,
}

impl RunFile {
    /// Reads the file of a data folder.
    pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(RUN_FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            crate::exit::NotReady(format!(
                "no mesh runs from {}: start it with `tether up` ({}: {error})",
                data_dir.display(),
                path.display()
            ))
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }
}

/// The data folder of `tether up` if none is given.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    let dirs = directories::ProjectDirs::from("", "", "tether")
        .context("this user has no home folder: give --data-dir")?;
    Ok(dirs.data_dir().to_owned())
}
