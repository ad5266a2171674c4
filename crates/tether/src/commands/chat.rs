//! `tether chat`: a conversation in a terminal, through a gateway like any tenant's.

use super::http;
use super::run_file::{RunFile, default_data_dir};
use super::sse::Events;
use crate::exit::NotReady;
use crate::stderr;
use crate::stdout;
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether chat \"What is the capital of France?\"
  tether chat                                        a conversation; ends with Ctrl-D
  echo \"Count to 20.\" | tether chat
  TETHER_API_KEY=tk-… tether chat --gateway http://gateway:8080 --model tether-tiny \"Hello\"")]
pub(crate) struct ChatArgs {
    /// What to ask; a conversation if it is not given
    prompt: Option<String>,
    /// URL of a gateway; if not given, that of the `tether up` in the data folder
    #[arg(
        long,
        value_name = "URL",
        value_parser = http::parse_url,
        requires = "api_key",
        conflicts_with = "data_dir"
    )]
    gateway: Option<String>,
    /// API key; better given as the variable, which other users of the machine cannot read
    #[arg(
        long,
        value_name = "KEY",
        env = "TETHER_API_KEY",
        hide_env_values = true
    )]
    api_key: Option<String>,
    /// Data folder of a running `tether up`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The model; if not given, that of the data folder or the first that the gateway lists
    #[arg(long)]
    model: Option<String>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// 0 gives the likeliest answer, 1 and more a more varied one, at which a small model guesses
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    temperature: f32,
}

struct Session {
    client: reqwest::Client,
    base: String,
    api_key: String,
    model: String,
    options: Value,
    messages: Vec<Value>,
}

impl ChatArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        super::runtime()?.block_on(async {
            let prompt = self.prompt.clone();
            let mut session = self.session().await?;
            if let Some(prompt) = prompt {
                return session.ask(&prompt).await;
            }
            let interactive = std::io::stdin().is_terminal();
            if interactive {
                stderr::line(format_args!("{}; Ctrl-D ends", session.model));
            }
            loop {
                if interactive {
                    stderr::write("> ");
                }
                let mut line = String::new();
                if std::io::stdin().lock().read_line(&mut line)? == 0 {
                    return Ok(());
                }
                if !line.trim().is_empty() {
                    session.ask(line.trim()).await?;
                }
            }
        })
    }

    async fn session(self) -> anyhow::Result<Session> {
        let client = http::client()?;
        let (base, api_key, model) = match (self.gateway, self.api_key) {
            (Some(base), Some(key)) => (base, key, self.model),
            (_, key) => {
                let dir = self.data_dir.map_or_else(default_data_dir, Ok)?;
                let run = RunFile::read(&dir)?;
                let key = key.unwrap_or(run.api_key);
                (run.gateway, key, self.model.or(Some(run.model)))
            }
        };
        let base = base.trim_end_matches('/').to_owned();
        let model = match model {
            Some(model) => model,
            None => first_model(&client, &base, &api_key).await?,
        };
        let mut options = json!({"temperature": self.temperature});
        if let Some(max_tokens) = self.max_tokens {
            options["max_tokens"] = max_tokens.into();
        }
        Ok(Session {
            client,
            base,
            api_key,
            model,
            options,
            messages: Vec::new(),
        })
    }
}

async fn first_model(client: &reqwest::Client, base: &str, key: &str) -> anyhow::Result<String> {
    let url = format!("{base}/v1/models");
    let response = client
        .get(&url)
        .bearer_auth(key)
        .send()
        .await
        .map_err(|error| http::unreachable(&url, &error))?;
    let body = checked(response).await?.text().await?;
    let body: Value = serde_json::from_str(&body).context("the gateway's list of models")?;
    body["data"][0]["id"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| NotReady(format!("{base} offers no model")).into())
}

/// The response, or the error that the gateway gives in words.
pub(crate) async fn checked(response: reqwest::Response) -> anyhow::Result<reqwest::Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.text().await.unwrap_or_default();
    let message = serde_json::from_str::<Value>(&body)
        .ok()
        .and_then(|body| body["error"]["message"].as_str().map(str::to_owned))
        .unwrap_or(body);
    let text = format!("the gateway answers {status}: {message}");
    if status == reqwest::StatusCode::SERVICE_UNAVAILABLE {
        return Err(NotReady(text).into());
    }
    bail!(text)
}

impl Session {
    /// Asks, shows the answer as it comes and keeps it for the next question.
    async fn ask(&mut self, prompt: &str) -> anyhow::Result<()> {
        self.messages
            .push(json!({"role": "user", "content": prompt}));
        let mut body = self.options.clone();
        body["model"] = self.model.clone().into();
        body["messages"] = self.messages.clone().into();
        body["stream"] = true.into();
        let url = format!("{}/v1/chat/completions", self.base);
        let response = self
            .client
            .post(&url)
            .bearer_auth(&self.api_key)
            .json(&body)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        let mut response = checked(response).await?;
        let mut events = Events::default();
        let mut answer = String::new();
        let mut done = false;
        while let Some(bytes) = response.chunk().await.context("the answer was cut off")? {
            for data in events.push(&bytes).map_err(anyhow::Error::msg)? {
                if data == "[DONE]" {
                    done = true;
                    continue;
                }
                let event: Value = serde_json::from_str(&data).context("not an event of chat")?;
                if let Some(message) = event["error"]["message"].as_str() {
                    // What is told is that it failed, also where nobody reads the rest.
                    let _ = stdout::write("\n");
                    bail!("the answer was broken off: {message}");
                }
                if let Some(text) = event["choices"][0]["delta"]["content"].as_str() {
                    stdout::write(text)?;
                    answer.push_str(text);
                }
            }
        }
        let said = stdout::write("\n");
        if !done {
            bail!("the answer was cut off before its end");
        }
        said?;
        self.messages
            .push(json!({"role": "assistant", "content": answer}));
        Ok(())
    }
}
