//! An orchestrator's admin endpoint.

use crate::commands::http;
use crate::commands::run_file::{RunFile, default_data_dir};
use crate::exit::NotReady;
use anyhow::{Context, bail};
use clap::Args;
use reqwest::StatusCode;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tether_orchestrator::admin::MAX_LIMIT;
use tether_wire::NodeId;

/// How long the orchestrator may take to answer.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The header that says how many rows were left out.
const LEFT_OUT: &str = "tether-fleet-left-out";
/// The header that says which orchestrator took a control message.
const TAKEN_BY: &str = "tether-orchestrator";

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

impl AdminArgs {
    /// In a data folder it is found in `run.json`.
    pub(crate) fn open(&self) -> anyhow::Result<Admin> {
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

    /// The whole fleet, as JSON.
    pub(crate) async fn fleet(&self) -> anyhow::Result<String> {
        self.get("/fleet", &[("limit", MAX_LIMIT.to_string())])
            .await
    }

    /// The rows that are asked for, as JSON, and how many were left out.
    pub(crate) async fn rows(
        &self,
        query: &[(&'static str, String)],
    ) -> anyhow::Result<(String, u64)> {
        let (response, url) = self.ask("/fleet", query).await?;
        let left_out = response.headers().get(LEFT_OUT);
        let left_out = left_out.and_then(|it| it.to_str().ok()?.parse().ok());
        Ok((text(response, &url).await?, left_out.unwrap_or(0)))
    }

    /// A page.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> anyhow::Result<String> {
        let (response, url) = self.ask(path, query).await?;
        text(response, &url).await
    }

    /// What is answered to a question, whether it is yes or no. Who is no operator is an error.
    pub(crate) async fn ask(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> anyhow::Result<(reqwest::Response, String)> {
        let url = format!("{}{path}", self.base);
        let mut whole = reqwest::Url::parse(&url).with_context(|| format!("{url} is no URL"))?;
        if !query.is_empty() {
            whole.query_pairs_mut().extend_pairs(query);
        }
        let response = self
            .client
            .get(whole)
            .bearer_auth(&self.token)
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        self.check_token(&response, &url)?;
        Ok((response, url))
    }

    /// Gives a control message to the orchestrator, which takes it; its key, where it tells it.
    pub(crate) async fn control(&self, control: &[u8]) -> anyhow::Result<Option<NodeId>> {
        #[derive(Deserialize)]
        struct Taken {
            #[serde(rename = "news")]
            _news: bool,
        }
        let url = format!("{}/control", self.base);
        let response = (self.client.post(&url))
            .bearer_auth(&self.token)
            .body(control.to_vec())
            .timeout(TIMEOUT)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        self.check_token(&response, &url)?;
        let by = response.headers().get(TAKEN_BY);
        let by = by.and_then(|by| by.to_str().ok()?.parse().ok());
        let text = text(response, &url).await?;
        let _: Taken = serde_json::from_str(&text)
            .with_context(|| format!("{url} answers what is not expected"))?;
        Ok(by)
    }

    /// Has the orchestrator do something, which may take so long; its words about it.
    pub(crate) async fn order(
        &self,
        method: reqwest::Method,
        path: &str,
        patience: Duration,
    ) -> anyhow::Result<String> {
        let url = format!("{}{path}", self.base);
        let response = (self.client.request(method, &url))
            .bearer_auth(&self.token)
            .timeout(patience)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        self.check_token(&response, &url)?;
        text(response, &url).await
    }

    fn check_token(&self, response: &reqwest::Response, url: &str) -> anyhow::Result<()> {
        if response.status() == StatusCode::UNAUTHORIZED {
            bail!(
                "{url} does not take the token in {}: it belongs to another orchestrator",
                self.token_file.display()
            );
        }
        Ok(())
    }
}

/// The text of an answer that is yes.
async fn text(response: reqwest::Response, url: &str) -> anyhow::Result<String> {
    let status = response.status();
    let text = response.text().await;
    if status.is_client_error() {
        bail!(
            "{url} refuses what was asked ({status}): {}",
            text.unwrap_or_default().trim()
        );
    }
    if !status.is_success() {
        let why = text.unwrap_or_default();
        return Err(NotReady(format!("{url} answers {status}: {}", why.trim())).into());
    }
    text.map_err(|error| http::unreachable(url, &error).into())
}
