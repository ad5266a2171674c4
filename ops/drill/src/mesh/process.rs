//! A running `tether`. It is killed when this is dropped, and when this program ends however it does.

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How long a process may take to be ready, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process.
pub(crate) struct Process {
    child: Child,
    pid: u32,
    ready: Value,
    /// Kept open: who writes to a closed pipe fails.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a command that prints a line of JSON when it is ready; what it logs is added to `log`.
    pub(super) async fn start(
        tether: &Path,
        arguments: &[&str],
        log: &Path,
    ) -> anyhow::Result<Self> {
        let log_file = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["guard", "--parent", &std::process::id().to_string(), "--"])
            .arg(tether)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start")?;
        let pid = child.id().context("it has no id")?;
        let mut stdout = BufReader::new(child.stdout.take().context("piped")?).lines();
        let line = tokio::time::timeout(PATIENCE, stdout.next_line()).await;
        let said = || std::fs::read_to_string(log).unwrap_or_default();
        let Ok(Ok(Some(line))) = line else {
            bail!("it did not say that it is ready; it logged:\n{}", said());
        };
        let ready: Value = serde_json::from_str(&line).context("not a line of JSON")?;
        ensure!(ready["event"] == "ready", "it said {line}");
        Ok(Self {
            child,
            pid,
            ready,
            _stdout: stdout,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// A text of its ready line.
    pub(crate) fn said(&self, field: &str) -> anyhow::Result<String> {
        let text = self.ready[field].as_str();
        Ok(text
            .with_context(|| format!("it did not say `{field}`"))?
            .to_owned())
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        send(self.pid, signal)
    }

    /// SIGKILL; returns when it is gone.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        // One that has ended already cannot be killed, which is as well.
        let _ = self.child.start_kill();
        self.ended().await
    }

    /// Waits until it has ended by itself, or by a signal.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .context("it does not end")??;
        Ok(())
    }
}

/// Sends a signal to a process of ours.
pub(crate) fn send(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
    kill_process(pid, signal).context("cannot be sent a signal")
}
