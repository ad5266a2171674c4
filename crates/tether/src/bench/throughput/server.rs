//! Servers with OpenAI's API: a gateway of ours, and llama.cpp's own, started for the measurement.

use super::models::Measured;
use crate::bench::round::{Answered, Round};
use crate::commands::http;
use anyhow::{Context, bail};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How long llama.cpp's server may take to load a model.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks whether a server is ready.
const LOOK: Duration = Duration::from_millis(100);
/// Answers that llama.cpp's server gives at once, and tokens for each.
const SLOTS: u32 = super::MAX_STREAMS as u32;
const SLOT_TOKENS: u32 = 1_024;

/// A server.
pub(super) struct Server {
    pub(super) name: String,
    base: String,
    model: String,
    key: String,
    client: reqwest::Client,
}

impl Server {
    pub(super) fn new(name: &str, base: &str, model: &str, key: &str) -> anyhow::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            base: base.to_owned(),
            model: model.to_owned(),
            key: key.to_owned(),
            client: http::client()?,
        })
    }

    /// All questions at once.
    pub(super) async fn ask(&self, round: &Round) -> anyhow::Result<Answered> {
        let begin = Instant::now();
        let answers = (round.questions.iter()).map(|it| self.answer(it, round.tokens));
        let answers = try_join_all(answers).await?;
        Ok(Answered {
            seconds: begin.elapsed().as_secs_f64(),
            answers,
        })
    }

    async fn answer(&self, question: &str, tokens: u32) -> anyhow::Result<(String, u64)> {
        let request = self
            .client
            .post(format!("{}/chat/completions", self.base))
            .bearer_auth(&self.key)
            .json(&json!({
                "model": self.model,
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "max_tokens": tokens,
            }));
        let answer = request.timeout(TIMEOUT).send().await?.error_for_status()?;
        let answer: Value = answer.json().await?;
        let text = answer["choices"][0]["message"]["content"].as_str();
        let tokens = answer["usage"]["completion_tokens"].as_u64();
        Ok((
            text.context("an answer without text")?.to_owned(),
            tokens.context("an answer without usage")?,
        ))
    }

    /// Waits until it answers for its model.
    pub(super) async fn wait_until_warm(&self, patience: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            match self.answer("Hello.", 1).await {
                Ok(_) => return Ok(()),
                Err(error) if begin.elapsed() > patience => {
                    return Err(error.context(format!("{} has no {}", self.name, self.model)));
                }
                Err(_) => tokio::time::sleep(LOOK).await,
            }
        }
    }
}

/// llama.cpp's server, until it is dropped.
pub(super) struct Llama {
    pub(super) server: Server,
    _child: Child,
}

impl Llama {
    /// With as many threads as there are cores, as mistral.rs takes by itself. Where it ends with its
    /// weights laid out for the processor, without that: some virtual machines show AMX, and end who
    /// uses it.
    pub(super) async fn start(program: &Path, model: &Measured) -> anyhow::Result<Self> {
        let name = format!("llama.cpp, {SLOTS} slots");
        match Self::with(program, model, &name, &[]).await {
            Ok(llama) => Ok(llama),
            Err(_) => {
                let name = format!("{name}, `--no-repack`");
                Self::with(program, model, &name, &["--no-repack"]).await
            }
        }
    }

    async fn with(
        program: &Path,
        model: &Measured,
        name: &str,
        more: &[&str],
    ) -> anyhow::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let mut child = Command::new(program)
            .arg("--model")
            .arg(model.folder.join(model.weights))
            .args(["--alias", model.name, "--host", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .args(["--parallel", &SLOTS.to_string()])
            .args(["--ctx-size", &(SLOTS * SLOT_TOKENS).to_string()])
            .args(["--threads", &threads.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let server = Server::new(name, &format!("http://127.0.0.1:{port}/v1"), model.name, "")?;
        tokio::select! {
            ready = server.wait_until_warm(START_TIMEOUT) => ready?,
            ended = child.wait() => bail!("{} ended: {}", program.display(), ended?),
        }
        Ok(Self {
            server,
            _child: child,
        })
    }
}
