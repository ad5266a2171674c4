//! What this machine can enforce: found out by a confined engine that tries to escape. (WRK-3)
//!
//! Each attempt is made by a process of its own, started and confined as an engine for a model is.
//! What the process cannot say any more, because it was ended, is seen from here.

mod answers;
mod bait;

pub use answers::Answer;

use super::{Confine, SandboxConfig, Shield};
use crate::device::{Compute, Device};
use crate::engine::EngineCommand;
use crate::engine::cgroup::{self, Group};
use crate::engine::escape::attempts::ATTEMPTS;
use crate::engine::escape::{Outcome, Trial};
use crate::engine::memory;
use crate::engine::process::{Exit, Process};
use crate::engine::protocol::{
    Continuation, EngineKind, FromEngine, Generate, Load, Task, ToEngine,
};
use bait::Bait;
use serde::Serialize;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
use tether_wire::infer::{Input, Sampling};
use tether_wire::manifest::Format;

/// The limit of the engine that tries: above what it needs to start, and soon reached.
const MEMORY_BYTES: u64 = 192 << 20;
/// Where it stops filling memory by itself.
const MOST_BYTES: u64 = 1_536 << 20;
/// How often its use of memory is looked at: as a worker does.
const TICK: Duration = Duration::from_millis(500);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Findings {
    /// The protections, as the engine's process reported them.
    pub shields: Vec<Shield>,
    /// Each attempt to escape, and what stopped it.
    pub attempts: Vec<Tried>,
    /// Milliseconds from the start of an engine's process to its being confined, the median.
    pub start_ms: f64,
    /// Milliseconds of these that the confinement took, the median.
    pub confine_ms: f64,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Its name.
    pub attempt: &'static str,
    /// For people.
    pub what: &'static str,
    /// What is to stop it.
    pub protection: super::Protection,
    /// Whether it was.
    pub stopped: bool,
    /// What the attempt met.
    pub answer: String,
    /// Whose answer that is.
    pub by: String,
}

/// The findings cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// Something on this machine that is needed for it.
    #[error("cannot prepare the attempts: {0}")]
    Prepare(#[source] io::Error),
    /// No engine's process comes up.
    #[error("the engine's process {0}")]
    Engine(String),
}

/// Starts confined engines that try to escape. To be called within a runtime whose threads live as
/// long as this takes. `dir` is where files are made for it, and should be the worker's own.
///
/// # Errors
/// When there is nothing to find out with.
pub async fn examine(
    command: &EngineCommand,
    config: &SandboxConfig,
    dir: &Path,
) -> Result<Findings, DoctorError> {
    let bait = Bait::lay(dir).map_err(DoctorError::Prepare)?;
    let mut findings = Findings {
        shields: Vec::new(),
        attempts: Vec::new(),
        start_ms: 0.0,
        confine_ms: 0.0,
    };
    let (mut starts, mut confines) = (Vec::new(), Vec::new());
    for attempt in ATTEMPTS {
        let mut trial = bait.trial();
        attempt.name.clone_into(&mut trial.attempt);
        trial.most_bytes = MOST_BYTES;
        let life = live(command, config, bait.view(), &trial).await?;
        let answer = Answer::of(&life.end);
        findings.attempts.push(Tried {
            attempt: attempt.name,
            what: attempt.what,
            protection: attempt.protection,
            stopped: answer.stopped,
            answer: answer.words,
            by: answer.by,
        });
        starts.push(life.start_ms);
        confines.push(life.confine_ms);
        findings.shields = life.shields;
    }
    findings.start_ms = median(starts);
    findings.confine_ms = median(confines);
    Ok(findings)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// How an attempt ended.
#[derive(Debug)]
enum End {
    /// The process lived to say so.
    Said(Outcome),
    /// It was over its limits, and ended from here.
    TooMuch(String),
    /// It ended.
    Gone(Exit),
}

/// One process and its attempt.
struct Life {
    shields: Vec<Shield>,
    start_ms: f64,
    confine_ms: f64,
    end: End,
}

fn load(config: &SandboxConfig, view: &Path, group: &Result<Group, String>) -> Load {
    Load {
        kind: EngineKind::Escape,
        root: view.to_owned(),
        has_adapter: false,
        weights: bait::WEIGHTS.to_owned(),
        tokenizer: None,
        format: Format::Gguf,
        context_tokens: 1,
        threads: 0,
        slots: 1,
        model_name: "escape".to_owned(),
        continuation: Continuation::default(),
        echo_delay_ms: 0,
        compute: Compute::default(),
        confine: Confine {
            // What is missing is to be found out, and not to end it.
            require: Vec::new(),
            has_cgroup: group.is_ok(),
            no_cgroup: group.as_ref().err().cloned().unwrap_or_default(),
            ..Confine::new(config, MEMORY_BYTES)
        },
    }
}

async fn live(
    command: &EngineCommand,
    config: &SandboxConfig,
    view: &Path,
    trial: &Trial,
) -> Result<Life, DoctorError> {
    let begin = Instant::now();
    let gone = |words: String| DoctorError::Engine(words);
    let mut process = Process::spawn(command, "escape", 0, Device::Cpu)
        .map_err(|error| gone(format!("cannot be started: {error}")))?;
    let pid = process.id();
    let mut life = Life {
        shields: Vec::new(),
        start_ms: 0.0,
        confine_ms: 0.0,
        end: End::TooMuch(format!("it took longer than {} s", PATIENCE.as_secs())),
    };
    // What cannot be sent to a process that is gone is seen by what it says no more.
    let group = match pid {
        Some(pid) => cgroup::own().and_then(|own| own.engine(pid, MEMORY_BYTES)),
        None => Err(String::new()),
    };
    let _ = process.send(&ToEngine::Load(load(config, view, &group)));
    let late = tokio::time::sleep(PATIENCE);
    tokio::pin!(late);
    let mut ticker = tokio::time::interval(TICK);
    let mut is_loaded = false;
    loop {
        tokio::select! {
            () = &mut late => break,
            _ = ticker.tick() => {
                let used = pid.and_then(memory::usage);
                if let Some(why) = used.and_then(|used| memory::excess(used, MEMORY_BYTES)) {
                    life.end = End::TooMuch(why);
                    break;
                }
            }
            message = process.recv() => match message {
                Some(Ok(FromEngine::Confined { shields, took_us })) => {
                    life.shields = shields;
                    life.confine_ms = took_us as f64 / 1e3;
                    life.start_ms = begin.elapsed().as_secs_f64() * 1e3;
                }
                Some(Ok(FromEngine::Loaded { .. })) => {
                    is_loaded = true;
                    let trial = serde_json::to_string(trial).unwrap_or_default();
                    let task = Task::new(Input::Text(trial), Sampling::default());
                    let _ = process.send(&ToEngine::Generate(Generate { id: 1, task }));
                }
                Some(Ok(FromEngine::LoadFailed { reason })) => {
                    return Err(gone(format!("refuses: {reason}")));
                }
                Some(Ok(FromEngine::Chunk { chunk, .. })) => {
                    let outcome = serde_json::from_str(&chunk.text)
                        .map_err(|error| gone(format!("cannot be understood: {error}")))?;
                    life.end = End::Said(outcome);
                    break;
                }
                Some(Ok(FromEngine::Failed { error, .. })) => {
                    return Err(gone(format!("failed: {error}")));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None if is_loaded => {
                    let exit = process.end(false).await;
                    life.end = End::Gone(exit);
                    return Ok(life);
                }
                Some(Err(_)) | None => return Err(gone(process.end(false).await.to_string())),
            }
        }
    }
    process.end(true).await;
    Ok(life)
}
