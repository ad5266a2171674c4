//! Ready means: every worker announced, loaded and routable, and a prompt answered.

use super::core::Core;
use super::worker_files::Plan;
use crate::commands::chat::checked;
use crate::commands::fleet::{Admin, Row};
use crate::commands::http;
use crate::commands::sse::Events;
use crate::exit::NotReady;
use crate::stderr;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};
use tether_wire::{NodeId, Topic};

/// How long workers may take to become routable: loading with unoptimised code on a slow machine.
const READY_TIMEOUT: Duration = Duration::from_secs(170);
/// Between two looks at the fleet.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long the first answer may take.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(60);
/// What is asked first.
pub(crate) const PROMPT: &str = "What is the capital of France?";

/// The first prompt's answer.
#[derive(Debug)]
pub(crate) struct FirstAnswer {
    pub(crate) text: String,
    pub(crate) worker: String,
    /// From the start of this process to the first piece of the answer.
    pub(crate) first_token_ms: u64,
}

/// Fails at once, and in plain words, where the gateway could not listen later.
pub(crate) fn check_port(addr: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(addr) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "the gateway's address {addr} is taken by another process: give a free one, such as `--gateway {}:0` for any",
            addr.ip()
        ),
        Err(error) => bail!("the gateway cannot listen on {addr}: {error}"),
    }
}

/// Waits until the orchestrator routes to every worker.
pub(crate) async fn all_routable(plan: &Plan, core: &Core) -> anyhow::Result<()> {
    let admin = Admin::open(&core.admin_url(), core.orchestrator.admin_token_file())?;
    let begin = Instant::now();
    let presence = Topic::Presence(plan.region.clone());
    let mut seen = 0;
    loop {
        let rows: Vec<Row> = serde_json::from_str(&admin.fleet().await?).context("not a fleet")?;
        let row_of = |id: NodeId| rows.iter().find(|row| row.id == id.to_hex());
        let mut missing = missing(plan, |id| match row_of(id) {
            None => Some("not heard of yet".to_owned()),
            Some(row) => row.why_not_routable().or_else(|| {
                (row.settled() < plan.model_dirs.len()).then(|| "still loading".to_owned())
            }),
        });
        let refused_all =
            |row: &Row| row.serves_nothing() && row.settled() >= plan.model_dirs.len();
        if !missing.is_empty() && rows.iter().any(refused_all) {
            // Waiting would not change it: every model was looked at and refused.
            return Err(NotReady(missing.join("; ")).into());
        }
        if missing.is_empty() {
            let announced = core.orchestrator.node().lookup(&presence).await?;
            missing = self::missing(plan, |id| {
                (!announced.contains(&id)).then(|| "not announced on the DHT yet".to_owned())
            });
        }
        let routable = plan.workers.len() - missing.len();
        if routable > seen {
            seen = routable;
            stderr::line(format_args!(
                "  {routable} of {} workers routable",
                plan.workers.len()
            ));
        }
        if missing.is_empty() {
            // Each once, though every worker has it.
            let faults: BTreeSet<String> = rows.iter().flat_map(Row::fault_texts).collect();
            for fault in faults {
                stderr::line(format_args!("  model {fault}"));
            }
            return Ok(());
        }
        if begin.elapsed() > READY_TIMEOUT {
            return Err(NotReady(format!(
                "not ready after {} s: {}",
                READY_TIMEOUT.as_secs(),
                missing.join("; ")
            ))
            .into());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The workers for which there is a reason to wait, with it and their log.
fn missing(plan: &Plan, why: impl Fn(NodeId) -> Option<String>) -> Vec<String> {
    plan.workers
        .iter()
        .filter_map(|worker| {
            let id = worker.node.identity.key.id();
            let log = worker.dir.join("worker.log");
            Some(format!(
                "worker {}: {} ({})",
                id.short(),
                why(id)?,
                log.display()
            ))
        })
        .collect()
}

/// Asks the small model through the mesh's own gateway, as any tenant would.
pub(crate) async fn first_prompt(
    plan: &Plan,
    core: &Core,
    begin: Instant,
) -> anyhow::Result<FirstAnswer> {
    let base = core.gateway_url();
    let client = http::client()?;
    gateway_ready(&client, &base).await?;
    let url = format!("{base}/v1/chat/completions");
    let response = client
        .post(&url)
        .bearer_auth(&plan.api_key)
        .json(&json!({
            "model": plan.model.name.as_str(),
            "messages": [{"role": "user", "content": PROMPT}],
            "temperature": 0,
            "max_tokens": 32,
            "stream": true,
        }))
        .timeout(PROMPT_TIMEOUT)
        .send()
        .await
        .map_err(|error| http::unreachable(&url, &error))?;
    let mut response = checked(response).await.context("the first prompt")?;
    let worker = response
        .headers()
        .get("x-tether-worker")
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let (mut events, mut text, mut first_token_ms) = (Events::default(), String::new(), None);
    while let Some(bytes) = response.chunk().await.context("the first answer")? {
        for data in events.push(&bytes).map_err(anyhow::Error::msg)? {
            if data == "[DONE]" {
                continue;
            }
            let event: Value = serde_json::from_str(&data).context("the first answer")?;
            if let Some(message) = event["error"]["message"].as_str() {
                bail!("the first prompt failed: {message}");
            }
            let piece = event["choices"][0]["delta"]["content"].as_str();
            if let Some(piece) = piece.filter(|piece| !piece.is_empty()) {
                first_token_ms.get_or_insert_with(|| begin.elapsed().as_millis());
                text.push_str(piece);
            }
        }
    }
    let first_token_ms = first_token_ms.context("the first prompt got an empty answer")?;
    model_listed(&client, &base, plan).await?;
    Ok(FirstAnswer {
        text: text.trim().to_owned(),
        worker,
        first_token_ms: u64::try_from(first_token_ms).unwrap_or(u64::MAX),
    })
}

/// What serves a model is told to gateways a moment after it does: a program that begins with the
/// list of models must not find it empty.
async fn model_listed(client: &reqwest::Client, base: &str, plan: &Plan) -> anyhow::Result<()> {
    let url = format!("{base}/v1/models");
    let model = plan.model.name.as_str();
    let begin = Instant::now();
    loop {
        let response = client
            .get(&url)
            .bearer_auth(&plan.api_key)
            .timeout(PROMPT_TIMEOUT)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        let models: Value = checked(response).await?.json().await?;
        let is_listed = models["data"]
            .as_array()
            .is_some_and(|all| all.iter().any(|it| it["id"] == model));
        if is_listed {
            return Ok(());
        }
        if begin.elapsed() > READY_TIMEOUT {
            return Err(NotReady(format!("{url} does not list {model}")).into());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The gateway learns of tenants and models over its link to the orchestrator.
async fn gateway_ready(client: &reqwest::Client, base: &str) -> anyhow::Result<()> {
    let url = format!("{base}/readyz");
    let begin = Instant::now();
    loop {
        let response = client
            .get(&url)
            .timeout(PROMPT_TIMEOUT)
            .send()
            .await
            .map_err(|error| http::unreachable(&url, &error))?;
        if response.status().is_success() {
            return Ok(());
        }
        if begin.elapsed() > READY_TIMEOUT {
            let why = response.text().await.unwrap_or_default();
            return Err(NotReady(format!("the gateway is not ready: {why}")).into());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
