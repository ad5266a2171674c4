//! What `up` says: progress on stderr, the ready line or a summary on stdout, `run.json`.

use super::core::Core;
use super::layout::Layout;
use super::ready::{FirstAnswer, PROMPT};
use super::worker_files::Plan;
use crate::commands::run_file::{RunFile, RunTopic, RunWorker};
use crate::files;
use crate::logging::LoggingArgs;
use crate::roles;
use crate::stderr;
use crate::stdout;
use anyhow::Context;
use std::time::Duration;
use tether_telemetry::TelemetryConfig;
use tether_wire::Topic;
use tokio::sync::watch;
use tracing::{info, warn};

/// Between two attempts to write `run.json`.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Log lines of this process are warnings only, unless somebody asked: progress is told in words.
/// The workers' logs are in their files.
pub(crate) fn quiet(mut telemetry: TelemetryConfig, logging: &LoggingArgs) -> TelemetryConfig {
    if logging.log_level.is_none() && logging.verbose == 0 {
        "warn".clone_into(&mut telemetry.log_filter);
    }
    "up".clone_into(&mut telemetry.service_instance);
    telemetry
}

pub(crate) fn prepared(layout: &Layout, plan: &Plan) {
    stderr::line(format_args!(
        "tether {}, data in {}",
        env!("CARGO_PKG_VERSION"),
        layout.root().display()
    ));
    for model in &plan.models {
        stderr::line(format_args!("  model {model}"));
    }
}

pub(crate) fn core_started(core: &Core) {
    stderr::line(format_args!(
        "  {} bootstrap nodes, orchestrator, gateway on {}",
        core.bootstrap_addresses().len(),
        core.gateway_url()
    ));
}

pub(crate) fn draining(signal: &str) {
    stderr::line(format_args!("{signal}: draining; once more stops at once"));
}

/// The ready object.
pub(crate) fn run_file(
    layout: &Layout,
    plan: &Plan,
    core: &Core,
    first: &FirstAnswer,
    pids: &[u32],
) -> RunFile {
    let mesh = plan.mesh;
    let region = plan.region.clone();
    let mut topics = vec![
        Topic::Presence(region.clone()),
        Topic::Control(region.clone()),
    ];
    let model = |model: &tether_wire::ModelRef| Topic::Model(model.clone(), region.clone());
    topics.extend(plan.models.iter().map(model));
    RunFile {
        event: "ready".to_owned(),
        gateway: core.gateway_url(),
        metrics: format!("{}/metrics", core.gateway_url()),
        admin: core.admin_url(),
        admin_token_file: core.orchestrator.admin_token_file().to_owned(),
        api_key: plan.api_key.clone(),
        model: plan.model.name.to_string(),
        models: plan.models.iter().map(ToString::to_string).collect(),
        mesh: mesh.id.to_hex(),
        region: plan.region.to_string(),
        topics: topics
            .iter()
            .map(|topic| RunTopic {
                name: topic.to_string(),
                key: mesh.topic_key(topic).to_hex(),
            })
            .collect(),
        bootstrap: core.bootstrap_addresses(),
        workers: plan
            .workers
            .iter()
            .zip(pids)
            .map(|(worker, pid)| RunWorker {
                id: worker.node.identity.key.id().to_hex(),
                pid: *pid,
                log: worker.dir.join("worker.log"),
            })
            .collect(),
        pid: std::process::id(),
        data_dir: layout.root().to_owned(),
        first_token_ms: first.first_token_ms,
    }
}

/// Replaces `run.json` at once: who reads it sees the old one or the new one.
pub(crate) fn write(layout: &Layout, run: &RunFile) -> anyhow::Result<()> {
    let path = layout.run_file();
    let text = serde_json::to_vec(run).context("cannot encode the ready object")?;
    files::replace_private(&path, &text).with_context(|| format!("cannot write {}", path.display()))
}

/// Keeps `run.json` true for as long as process ids change.
pub(crate) async fn keep(layout: &Layout, mut run: RunFile, pids: watch::Receiver<Vec<u32>>) {
    let write = |pids: &[u32]| {
        for (worker, pid) in run.workers.iter_mut().zip(pids) {
            worker.pid = *pid;
        }
        write(layout, &run)
    };
    keep_with(pids, write).await;
}

/// A mesh that serves does not end over a file that cannot be written now, as on a full disk: it
/// is told once, and tried again until it can be.
async fn keep_with(
    mut pids: watch::Receiver<Vec<u32>>,
    mut write: impl FnMut(&[u32]) -> anyhow::Result<()>,
) {
    while pids.changed().await.is_ok() {
        let mut was_told = false;
        loop {
            // The newest each time: what changed meanwhile is written with it.
            let now = pids.borrow_and_update().clone();
            match write(&now) {
                Ok(()) => break,
                Err(error) if !was_told => {
                    was_told = true;
                    warn!(
                        "run.json is out of date, and is written as soon as it can be: {error:#}"
                    );
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
        if was_told {
            info!("run.json is up to date again");
        }
    }
}

/// The ready line, or for a person the answer and what to do next.
pub(crate) fn ready(json: bool, run: &RunFile, first: &FirstAnswer) -> anyhow::Result<()> {
    if json {
        return roles::announce_ready(true, serde_json::to_string(run)?);
    }
    let RunFile {
        gateway,
        api_key,
        model,
        ..
    } = run;
    let text = format!(
        "
  {PROMPT}
  {answer}        (worker {worker})

  gateway   {gateway}
  API key   {api_key}
  model     {model}

Try it:
  curl {gateway}/v1/chat/completions \\
    -H 'authorization: Bearer {api_key}' -H 'content-type: application/json' \\
    -d '{{\"model\":\"{model}\",\"temperature\":0,\"messages\":[{{\"role\":\"user\",\"content\":\"{PROMPT}\"}}]}}'

Ready: {workers}, first token {seconds:.1} s after the start. Ctrl-C stops it.",
        answer = first.text,
        worker = first.worker.get(..8).unwrap_or_default(),
        workers = match run.workers.len() {
            1 => "one worker".to_owned(),
            count => format!("{count} workers"),
        },
        seconds = f64::from(u32::try_from(first.first_token_ms).unwrap_or(u32::MAX)) / 1e3,
    );
    // As for the ready line: a mesh that should run does not end as if all were well.
    stdout::line(text).map_err(|error| anyhow::anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_be_written_is_tried_again_until_it_can_be() {
        let (sender, pids) = watch::channel(vec![1]);
        let (mut attempts, mut written) = (0, Vec::new());
        sender.send_replace(vec![2]);
        let mut sender = Some(sender);
        keep_with(pids, |pids| {
            attempts += 1;
            match attempts {
                // A worker is started again meanwhile; then none is any more.
                1 => drop(sender.as_ref().expect("not yet").send_replace(vec![3])),
                2 => drop(sender.take()),
                _ => {
                    written.push(pids.to_vec());
                    return Ok(());
                }
            }
            anyhow::bail!("no space left on device")
        })
        .await;
        assert_eq!(attempts, 3);
        assert_eq!(written, [[3]], "the newest, once");
    }
}
