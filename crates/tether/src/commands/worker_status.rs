//! `tether worker status`: what a running worker tells its provider. (WRK-7)

mod shown;

use crate::commands;
use crate::config::{self, ConfigError};
use crate::exit::NotReady;
use crate::roles::worker::status_socket::short;
use crate::{stderr, stdout};
use anyhow::Context;
use clap::Args;
use serde_json::Value;
use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tether_worker::status::SOCKET;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// Most bytes of an answer: 64 models with their reasons have far less.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often `--watch` asks.
const INTERVAL: Duration = Duration::from_secs(1);

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether worker status --data-dir ./tether-worker
  tether worker status --config worker.toml --watch
  tether worker status --data-dir ./tether-worker --json

It asks the worker that runs here as the same user, through a socket in its data folder. What only
orchestrators know of a worker says `tether fleet explain`. A configuration that cannot be read, as
while it is edited, keeps nobody from asking a worker that runs.

Exit codes: 0 if the worker runs and can be sent work, 4 if it does not run, 5 if it runs and gets no
work; the reasons are said.")]
pub(crate) struct StatusArgs {
    /// The worker's configuration file
    #[arg(long, value_name = "FILE", required_unless_present = "data_dir")]
    config: Option<PathBuf>,
    /// Folder of a worker that joined, with its worker.toml
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    data_dir: Option<PathBuf>,
    /// One JSON object; with --watch one a second
    #[arg(long)]
    json: bool,
    /// Again each second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// The worker runs and gets no work: its exit code.
pub(crate) const NO_WORK: u8 = 5;

impl StatusArgs {
    pub(crate) fn run(self) -> anyhow::Result<std::process::ExitCode> {
        let (folder, unread) = self.folder()?;
        commands::runtime()?.block_on(async {
            if let Some(error) = unread {
                if ask(&folder).await.is_err() {
                    return Err(error.into());
                }
                stderr::line(format_args!(
                    "note: {error}\nnote: the worker that runs in {} was started before that, and says:",
                    folder.display()
                ));
            }
            loop {
                let report = ask(&folder).await?;
                if self.json {
                    stdout::line(&report)?;
                } else if self.watch && std::io::stdout().is_terminal() {
                    // Home, clear, and the report.
                    stdout::write(format!("\x1b[H\x1b[2J{}", shown::report(&report)))?;
                } else {
                    stdout::write(shown::report(&report))?;
                }
                if !self.watch {
                    let routable = report["is_routable"].as_bool().unwrap_or(false);
                    return Ok(if routable {
                        std::process::ExitCode::SUCCESS
                    } else {
                        std::process::ExitCode::from(NO_WORK)
                    });
                }
                tokio::time::sleep(INTERVAL).await;
            }
        })
    }

    /// The worker's own data folder, as its configuration says; and what is wrong with that, if it is:
    /// a worker that runs is asked also while its file is edited.
    fn folder(&self) -> anyhow::Result<(PathBuf, Option<ConfigError>)> {
        let config = match (&self.config, &self.data_dir) {
            (Some(config), _) => config.clone(),
            (None, Some(dir)) => dir.join("worker.toml"),
            (None, None) => anyhow::bail!("give --config or --data-dir"),
        };
        Ok(match config::joining_worker(&config) {
            Ok(file) => (file.node.data_dir, None),
            Err(error) => (config::data_dir_of(&config), Some(error)),
        })
    }
}

/// Asks the worker of this data folder.
pub(crate) async fn ask(folder: &Path) -> anyhow::Result<Value> {
    let path = folder.join(SOCKET);
    let not_running = || {
        NotReady(format!(
            "no worker runs in {}: start it with `tether worker`, or give the --config or --data-dir that it was started with",
            folder.display()
        ))
    };
    let opened = File::open(folder).map_err(|_| not_running())?;
    let asked = async {
        let stream = UnixStream::connect(short(&opened, &path)).await;
        let stream = stream.map_err(|_| not_running())?;
        let mut bytes = Vec::new();
        (stream.take(MAX_BYTES).read_to_end(&mut bytes).await)
            .context("the worker broke off its answer")?;
        if bytes.is_empty() {
            anyhow::bail!("the worker does not answer this user: ask as the one who runs it");
        }
        serde_json::from_slice(&bytes).context("the worker's answer is not whole")
    };
    (tokio::time::timeout(PATIENCE, asked).await).map_err(|_| {
        NotReady("the worker does not answer: it may be starved or stopped".to_owned())
    })?
}
