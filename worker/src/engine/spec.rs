//! What an engine is started with, and what may keep it from being started.

use crate::config::EngineConfig;
use crate::engine::layout::Layout;
use crate::engine::process::EngineCommand;
use crate::engine::protocol::Load;
use futures_util::future::BoxFuture;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything about an engine that does not change over its restarts.
#[derive(Clone, Debug)]
pub struct EngineSpec {
    /// How its process is started.
    pub command: EngineCommand,
    /// The model.
    pub load: Load,
    /// Its deadlines.
    pub config: EngineConfig,
    /// What comes before each start of its process.
    pub prepare: Prepare,
    /// How many processes of it give answers beside each other; at least 1.
    pub processes: u32,
    /// On which processors they run.
    pub layout: Layout,
}

/// What comes before each start of an engine's process: told which one of them, it gives the folder
/// that this may read, which takes the place of [`Load::root`], or says why it must not start. Files
/// that were right once may have changed since, so it is asked every time.
#[derive(Clone)]
pub struct Prepare(Arc<PrepareFn>);

type PrepareFn = dyn Fn(u32) -> BoxFuture<'static, Result<PathBuf, Refused>> + Send + Sync;

/// Why an engine must not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// A stable code.
    pub code: &'static str,
    /// For people.
    pub reason: String,
    /// Whether it may be otherwise at the next try: the disk's fault, not the artifact's.
    pub passing: bool,
}

impl Prepare {
    /// `step` must not block: the process is started on the thread that asks.
    pub fn new(
        step: impl Fn(u32) -> BoxFuture<'static, Result<PathBuf, Refused>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(step))
    }

    /// What comes before a start of that process.
    pub fn ask(&self, process: u32) -> BoxFuture<'static, Result<PathBuf, Refused>> {
        (self.0)(process)
    }
}

impl fmt::Debug for Prepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepare")
    }
}
