//! A mesh of its own for a benchmark: `tether up` as a child, in an empty data folder.

use super::overhead::{Question, Sample};
use crate::commands::http;
use crate::commands::sse::Events;
use crate::commands::worker_status;
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a mesh may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(300);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// A running mesh; killed when dropped.
pub(super) struct Mesh {
    child: Child,
    dir: tempfile::TempDir,
    ready: Value,
    client: reqwest::Client,
}

impl Mesh {
    /// Starts one and waits for its ready line.
    pub(super) async fn start() -> anyhow::Result<Self> {
        Self::of(&std::env::current_exe()?, &[]).await
    }

    /// The same by another program, and with more to say.
    pub(super) async fn of(program: &Path, more: &[&OsStr]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut child = Command::new(program)
            .args(["up", "--json", "--gateway", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start `tether up`")?;
        let stdout = child.stdout.take().context("piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(START_TIMEOUT, lines.next_line())
            .await
            .context("`tether up` is not ready in time")??
            .context("`tether up` ended before it was ready")?;
        Ok(Self {
            child,
            dir,
            ready: serde_json::from_str(&line).context("not a ready line")?,
            client: http::client()?,
        })
    }

    /// A field of the ready line.
    pub(super) fn ready(&self, field: &str) -> anyhow::Result<&Value> {
        self.ready
            .get(field)
            .with_context(|| format!("the ready line has no `{field}`"))
    }

    /// The folder of the small model.
    pub(super) fn model_dir(&self) -> anyhow::Result<PathBuf> {
        let models: &Path = &self.dir.path().join("models");
        let mut entries = std::fs::read_dir(models)?;
        let first = entries.next().context("no model was unpacked")??;
        Ok(first.path())
    }

    /// What its first worker tells its provider.
    pub(super) async fn worker_status(&self) -> anyhow::Result<Value> {
        let worker = self.dir.path().join("workers").join("1");
        worker_status::ask(&worker.join("data")).await
    }

    /// One streamed answer through the gateway.
    pub(super) async fn ask(&self, question: &Question) -> anyhow::Result<Sample> {
        let gateway = self.ready("gateway")?.as_str().context("a URL")?;
        let key = self.ready("api_key")?.as_str().context("a key")?;
        let begin = Instant::now();
        let mut response = self
            .client
            .post(format!("{gateway}/v1/chat/completions"))
            .bearer_auth(key)
            .json(&json!({
                "model": self.ready("model")?,
                "messages": [{"role": "user", "content": question.text}],
                "temperature": 0,
                "max_tokens": question.max_tokens,
                "stream": true,
                "stream_options": {"include_usage": true},
            }))
            .timeout(ANSWER_TIMEOUT)
            .send()
            .await?
            .error_for_status()?;
        let (mut events, mut first, mut tokens) = (Events::default(), None, None);
        while let Some(bytes) = response.chunk().await? {
            for data in events.push(&bytes).map_err(anyhow::Error::msg)? {
                if data == "[DONE]" {
                    let first = first.context("an answer without text")?;
                    let tokens = tokens.context("an answer without usage")?;
                    return Ok(Sample::new(first, begin.elapsed(), tokens));
                }
                let event: Value = serde_json::from_str(&data)?;
                ensure!(event["error"].is_null(), "{}", event["error"]);
                let piece = event["choices"][0]["delta"]["content"].as_str();
                if piece.is_some_and(|piece| !piece.is_empty()) {
                    first.get_or_insert_with(|| begin.elapsed());
                }
                tokens = event["usage"]["completion_tokens"].as_u64().or(tokens);
            }
        }
        bail!("the answer was cut off")
    }

    /// Ends it and waits for that.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid)?).context("a pid")?;
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        self.child.wait().await?;
        Ok(())
    }
}
