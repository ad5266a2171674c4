//! The engine alone: its process, driven over its private socket without a worker.

use super::overhead::{Question, Sample};
use crate::engine_program;
use anyhow::{Context, bail};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;
use tether_artifact_store::MANIFEST_FILE;
use tether_wire::infer::{Input, Message, Sampling, Speaker};
use tether_wire::{Manifest, MeshId, Signed};
use tether_worker::device::Compute;
use tether_worker::engine::child::environment;
use tether_worker::engine::protocol::{
    Continuation, EngineKind, FromEngine, Generate, Load, Task, ToEngine, receive_message,
    send_message,
};
use tether_worker::sandbox::Confine;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// Answers at once, as a worker has them by default.
const SLOTS: u32 = 4;

/// An engine's process; ended when dropped.
pub(super) struct Engine {
    _child: Child,
    socket: UnixStream,
    next: u64,
}

/// An answer, as it was given.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) tokens: Vec<u32>,
    /// How likely each was, where that was asked for: the last bits of it show every difference.
    pub(super) logprob_bits: Vec<u32>,
    /// Milliseconds to the first piece.
    pub(super) first_ms: Option<f64>,
}

impl Engine {
    /// Starts one and loads an artifact.
    pub(super) async fn start(artifact: &Path) -> anyhow::Result<Self> {
        Self::load(&load(artifact)?).await
    }

    /// Starts one and loads what it is told to.
    pub(super) async fn load(load: &Load) -> anyhow::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        // The one that a worker starts.
        let program = engine_program::command()?;
        let child = Command::new(program.program)
            .args(program.args)
            .envs(environment(load.threads, load.compute.device))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the engine")?;
        ours.set_nonblocking(true)?;
        let mut engine = Self {
            _child: child,
            socket: UnixStream::from_std(ours)?,
            next: 0,
        };
        engine.send(&ToEngine::Load(load.clone())).await?;
        loop {
            match engine.receive().await? {
                FromEngine::Confined { .. } => {}
                FromEngine::Loaded { .. } => return Ok(engine),
                other => bail!("the engine did not load its model: {other:?}"),
            }
        }
    }

    /// One answer.
    pub(super) async fn ask(&mut self, question: &Question) -> anyhow::Result<Sample> {
        self.next += 1;
        let begin = Instant::now();
        self.send(&ToEngine::Generate(Generate {
            id: self.next,
            task: Task::new(
                Input::Chat(vec![Message::new(Speaker::User, question.text)]),
                Sampling {
                    temperature: 0.0,
                    max_tokens: Some(question.max_tokens),
                    seed: Some(0),
                    ..Sampling::default()
                },
            ),
        }))
        .await?;
        let mut first = None;
        loop {
            match self.receive().await? {
                FromEngine::Chunk { chunk, .. } if !chunk.text.is_empty() => {
                    first.get_or_insert_with(|| begin.elapsed());
                }
                FromEngine::Done { usage, .. } => {
                    let first = first.context("an answer without text")?;
                    let tokens = u64::from(usage.completion_tokens);
                    return Ok(Sample::new(first, begin.elapsed(), tokens));
                }
                FromEngine::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }

    /// All of one answer.
    pub(super) async fn perform(&mut self, task: Task) -> anyhow::Result<Whole> {
        self.next += 1;
        let begin = Instant::now();
        let id = self.next;
        self.send(&ToEngine::Generate(Generate { id, task }))
            .await?;
        let mut whole = Whole::default();
        loop {
            match self.receive().await? {
                FromEngine::Chunk { chunk, .. } => {
                    whole
                        .first_ms
                        .get_or_insert(begin.elapsed().as_secs_f64() * 1e3);
                    whole.tokens.extend(chunk.tokens);
                    let bits = chunk.logprobs.iter().map(|it| it.logprob.to_bits());
                    whole.logprob_bits.extend(bits);
                }
                FromEngine::Done { .. } => return Ok(whole),
                FromEngine::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }

    async fn send(&mut self, message: &ToEngine) -> anyhow::Result<()> {
        Ok(send_message(&mut self.socket, message).await?)
    }

    async fn receive(&mut self) -> anyhow::Result<FromEngine> {
        receive_message(&mut self.socket)
            .await?
            .context("the engine ended")
    }
}

/// What a worker would tell the engine about the artifact.
fn load(artifact: &Path) -> anyhow::Result<Load> {
    let sealed = std::fs::read(artifact.join(MANIFEST_FILE))?;
    // A manifest belongs to no mesh; whose signature it is does not matter to a benchmark.
    let manifest = Signed::<Manifest>::from_bytes(sealed).verify(&MeshId([0; 32]))?;
    Ok(Load {
        kind: EngineKind::Mistralrs,
        root: artifact.canonicalize()?,
        has_adapter: false,
        weights: manifest.weights.clone(),
        tokenizer: manifest.tokenizer.clone(),
        format: manifest.format,
        context_tokens: manifest.context_tokens,
        threads: 0,
        slots: SLOTS,
        model_name: manifest.model.to_string(),
        continuation: Continuation::default(),
        echo_delay_ms: 0,
        compute: Compute::default(),
        confine: Confine::default(),
    })
}
