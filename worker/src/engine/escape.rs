//! An engine that tries to escape, one attempt for each answer, and says what came of it. (WRK-3)
//!
//! It is confined as any other, and run by `tether worker doctor` and by tests only: a worker's
//! configuration cannot name it. Each attempt is bounded, so that it does no harm where nothing
//! stops it, and undoes what it did.
//!
//! * `attempts` – the attempts

pub(crate) mod attempts;

use crate::engine::child::answer::{Answer, Times};
use crate::engine::kind::{Engine, Facts};
use crate::engine::protocol::{Load, Task};
use attempts::attempt;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tether_wire::infer::{Chunk, Finish, Input, Usage};
use tether_wire::rpc::{Code, RpcError};

/// What is to be tried, and on what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Trial {
    /// Name of the attempt.
    pub(crate) attempt: String,
    /// A TCP listener on loopback.
    pub(crate) tcp: String,
    /// A UDP socket on loopback.
    pub(crate) udp: String,
    /// A listener at an abstract address.
    pub(crate) abstract_socket: String,
    /// A listener at a path.
    pub(crate) socket: PathBuf,
    /// A secret of the worker.
    pub(crate) key: PathBuf,
    /// A file in the folder of the model that is none of the model's.
    pub(crate) beside: PathBuf,
    /// A block device, where there is one.
    pub(crate) block: PathBuf,
    /// A device.
    pub(crate) device: PathBuf,
    /// Where to stop filling memory if nothing else does.
    pub(crate) most_bytes: u64,
}

/// What came of an attempt, as its process saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// It worked.
    Succeeded(String),
    /// The system refused.
    Refused {
        /// Its number, where it gave one.
        errno: Option<i32>,
        /// Its words.
        words: String,
    },
}

/// The engine.
#[derive(Debug)]
pub(crate) struct EscapeEngine {
    context_tokens: u32,
    root: PathBuf,
}

impl EscapeEngine {
    pub(crate) fn new(load: &Load) -> Self {
        Self {
            context_tokens: load.context_tokens,
            root: load.root.clone(),
        }
    }
}

impl Engine for EscapeEngine {
    fn facts(&self) -> Facts {
        Facts {
            context_tokens: self.context_tokens,
            engine: "escape".to_owned(),
            numerics_class: "escape/1".to_owned(),
            sequences: 1,
            max_token_bytes: None,
        }
    }

    fn generate(&self, task: Task, answer: Answer) -> BoxFuture<'static, ()> {
        let root = self.root.clone();
        Box::pin(async move {
            let Some(trial) = trial(&task.input) else {
                let message = "the escape engine is given trials, not prompts";
                return answer.failed(RpcError::new(Code::Invalid, message));
            };
            answer.started(0);
            let tried = tokio::task::spawn_blocking(move || attempt(&trial, &root));
            let outcome = match tried.await {
                Ok(outcome) => outcome,
                Err(error) => {
                    return answer.failed(RpcError::new(Code::Internal, error.to_string()));
                }
            };
            answer.chunk(Chunk {
                position: 0,
                tokens: vec![0],
                text: serde_json::to_string(&outcome).unwrap_or_default(),
                ..Chunk::default()
            });
            let usage = Usage {
                prompt_tokens: 0,
                completion_tokens: 1,
            };
            answer.done(Finish::Stop, usage, Times::first_token());
        })
    }
}

fn trial(input: &Input) -> Option<Trial> {
    match input {
        Input::Text(text) => serde_json::from_str(text).ok(),
        Input::Chat(_) => None,
    }
}
