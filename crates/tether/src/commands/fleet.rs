//! `tether fleet`: the workers as the orchestrator sees them. (FLT-3)

use super::http;
use super::run_file::{RunFile, default_data_dir};
use crate::exit::NotReady;
use crate::stdout;
use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the orchestrator may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two pictures of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// See [`crate::cli`].
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  tether fleet                                 of the `tether up` on this machine
  tether fleet --json --data-dir /srv/tether
  tether fleet --watch
  tether fleet --admin http://127.0.0.1:9090 --token-file orchestrator/admin.token")]
pub(crate) struct FleetArgs {
    /// One JSON array instead of a table
    #[arg(long)]
    json: bool,
    /// Show it again each second until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Where the orchestrator's admin endpoint is.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Data folder of a running `tether up`
    #[arg(long, value_name = "DIR", conflicts_with_all = ["admin", "token_file"])]
    data_dir: Option<PathBuf>,
    /// URL of an orchestrator's admin endpoint
    #[arg(long, value_name = "URL", value_parser = http::parse_url, requires = "token_file")]
    admin: Option<String>,
    /// File with the token of the admin endpoint
    #[arg(long, value_name = "FILE", requires = "admin")]
    token_file: Option<PathBuf>,
}

/// A worker, as far as the table shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    state: String,
    region: String,
    #[serde(default)]
    models: Vec<String>,
    #[serde(default)]
    in_flight: u64,
    #[serde(default)]
    queue_depth: u64,
    #[serde(default)]
    slots: u64,
    #[serde(default)]
    heartbeat_age_ms: u64,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    faults: Vec<serde_json::Value>,
}

impl FleetArgs {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        super::runtime()?.block_on(async {
            let admin = self.admin.open()?;
            loop {
                let text = admin.fleet().await?;
                let picture = if self.json {
                    text.trim_end().to_owned() + "\n"
                } else {
                    table(&serde_json::from_str::<Vec<Row>>(&text).context("not a fleet")?)
                };
                if self.watch && !self.json && std::io::stdout().is_terminal() {
                    // Home and clear: the picture stays in one place.
                    stdout::write("\x1b[H\x1b[2J")?;
                }
                stdout::write(picture)?;
                if !self.watch {
                    return Ok(());
                }
                tokio::time::sleep(WATCH_INTERVAL).await;
            }
        })
    }
}

impl AdminArgs {
    /// In a data folder it is found in `run.json`.
    fn open(&self) -> anyhow::Result<Admin> {
        if let (Some(admin), Some(token_file)) = (&self.admin, &self.token_file) {
            return Admin::open(admin, token_file);
        }
        let dir = self.data_dir.clone().map_or_else(default_data_dir, Ok)?;
        let run = RunFile::read(&dir)?;
        Admin::open(&run.admin, &run.admin_token_file)
    }
}

/// An orchestrator's admin endpoint.
pub(crate) struct Admin {
    client: reqwest::Client,
    base: String,
    token: String,
    token_file: PathBuf,
}

impl Admin {
    /// Reads the token.
    pub(crate) fn open(base: &str, token_file: &Path) -> anyhow::Result<Self> {
        let token = std::fs::read_to_string(token_file)
            .with_context(|| format!("cannot read the token file {}", token_file.display()))?;
        Ok(Self {
            client: http::client()?,
            base: base.trim_end_matches('/').to_owned(),
            token: token.trim().to_owned(),
            token_file: token_file.to_owned(),
        })
    }

    /// Gives a control message to the orchestrator; says whether it was news there.
    pub(crate) async fn control(&self, control: &[u8]) -> anyhow::Result<bool> {
        #[derive(Deserialize)]
        struct Taken {
            news: bool,
        }
        let url = format!("{}/control", self.base);
        let response = self
            .client
            .post(&url)
            .bearer_auth(&self.token)
            .body(control.to_vec())
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        let text = self.text(&url, response).await?;
        let taken: Taken = serde_json::from_str(&text)
            .with_context(|| format!("{url} answers what is not expected"))?;
        Ok(taken.news)
    }

    /// The fleet, as JSON.
    pub(crate) async fn fleet(&self) -> anyhow::Result<String> {
        let url = format!("{}/fleet", self.base);
        let response = self
            .client
            .get(&url)
            .bearer_auth(&self.token)
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        self.text(&url, response).await
    }

    /// The text of an answer that is a good one.
    async fn text(&self, url: &str, response: reqwest::Response) -> anyhow::Result<String> {
        let status = response.status();
        let text = response.text().await.unwrap_or_default();
        if status == reqwest::StatusCode::UNAUTHORIZED {
            bail!(
                "{url} does not take the token in {}: it belongs to another orchestrator",
                self.token_file.display()
            );
        }
        if status.is_client_error() {
            bail!("{url} refuses it ({status}): {}", text.trim());
        }
        if !status.is_success() {
            return Err(NotReady(format!("{url} answers {status}: {}", text.trim())).into());
        }
        Ok(text)
    }
}

impl Row {
    /// Why it gets no work, if it gets none.
    pub(crate) fn why_not_routable(&self) -> Option<String> {
        if let Some(reason) = &self.reason {
            return Some(reason.clone());
        }
        if self.models.is_empty() {
            let faults: Vec<String> = self.fault_texts().collect();
            return Some(if faults.is_empty() {
                "serves no model yet".to_owned()
            } else {
                faults.join(", ")
            });
        }
        (self.state != "serving").then(|| self.state.clone())
    }

    /// How many of its models are either served or refused.
    pub(crate) fn settled(&self) -> usize {
        self.models.len() + self.faults.len()
    }

    /// Whether it offers no model.
    pub(crate) fn serves_nothing(&self) -> bool {
        self.models.is_empty()
    }

    /// What it was told to serve and does not.
    pub(crate) fn fault_texts(&self) -> impl Iterator<Item = String> {
        self.faults.iter().map(fault_text)
    }
}

fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{:<8}  {:<11}  {:<10}  {:>9}  {:>5}  {:>6}  MODELS",
        "WORKER", "STATE", "REGION", "IN FLIGHT", "QUEUE", "SEEN"
    );
    for row in rows {
        let _ = writeln!(
            out,
            "{:<8}  {:<11}  {:<10}  {:>9}  {:>5}  {:>5.1}s  {}",
            row.id.get(..8).unwrap_or(&row.id),
            row.state,
            row.region,
            format!("{}/{}", row.in_flight, row.slots),
            row.queue_depth,
            Duration::from_millis(row.heartbeat_age_ms).as_secs_f32(),
            if row.models.is_empty() {
                "none".to_owned()
            } else {
                row.models.join(", ")
            },
        );
        if let Some(reason) = &row.reason {
            let _ = writeln!(out, "          not routable: {reason}");
        }
        // The reason may quote one of them.
        let reason = row.reason.as_deref().unwrap_or_default();
        for fault in row.fault_texts().filter(|fault| !reason.contains(fault)) {
            let _ = writeln!(out, "          {fault}");
        }
    }
    if rows.is_empty() {
        out.push_str("no workers\n");
    }
    out
}

fn fault_text(fault: &serde_json::Value) -> String {
    match (fault.get("model"), fault.get("reason")) {
        (Some(model), Some(reason)) => format!(
            "{} is not served: {}",
            model.as_str().unwrap_or("a model"),
            reason.as_str().unwrap_or("no reason given")
        ),
        _ => fault
            .as_str()
            .map_or_else(|| fault.to_string(), str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_gets_no_work_shows_why() {
        let rows: Vec<Row> = serde_json::from_str(
            r#"[{"id":"0123456789abcdef","state":"serving","region":"local","models":[],
                "in_flight":1,"queue_depth":0,"heartbeat_age_ms":1500,"slots":4,
                "reason":"serves no model","faults":[{"model":"x@1.0","reason":"bad-signature"}]}]"#,
        )
        .expect("valid");
        let text = table(&rows);
        for part in [
            "01234567 ",
            "1/4",
            "1.5s",
            "not routable: serves no model",
            "x@1.0 is not served: bad-signature",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert!(table(&[]).contains("no workers"));
    }

    #[test]
    fn a_fault_that_is_the_reason_is_shown_once() {
        let rows: Vec<Row> = serde_json::from_str(
            r#"[{"id":"0123456789abcdef","state":"serving","region":"local",
                "reason":"it offers no model; x is not served: missing-file: y",
                "faults":[{"model":"x","reason":"missing-file: y"},{"model":"z","reason":"w"}]}]"#,
        )
        .expect("valid");
        let text = table(&rows);
        assert_eq!(text.matches("x is not served").count(), 1, "{text}");
        assert_eq!(text.matches("z is not served").count(), 1, "{text}");
    }
}
