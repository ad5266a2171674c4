//! The worker's end of a conversation, for tests: blocking, on one thread.

use super::{first, hold};
use crate::device::Compute;
use crate::engine::protocol::{
    Continuation, EngineKind, FromEngine, Generate, Load, Task, ToEngine, read_message,
    write_message,
};
use crate::sandbox::Confine;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;
use tether_wire::infer::{
    CallDelta, Finish, Input, Message, Sampling, Speaker, TokenLogprob, Usage,
};
use tether_wire::manifest::Format;
use tether_wire::rpc::RpcError;

/// A guard against hanging, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    socket: Option<UnixStream>,
    engine: Option<JoinHandle<ExitCode>>,
    next: u64,
}

/// What came of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Got {
    pub(crate) prompt_tokens: Option<u32>,
    /// Position of the first token that came.
    pub(crate) start: Option<u32>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) chunks: usize,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) calls: Vec<CallDelta>,
    /// What was given before, as the engine tells it again.
    pub(crate) retold: Vec<u32>,
    pub(crate) retold_text: String,
    pub(crate) retold_calls: Vec<CallDelta>,
    pub(crate) done: Option<(Finish, Usage)>,
    pub(crate) decode_ms: u64,
    pub(crate) error: Option<RpcError>,
    pub(crate) cancelled: bool,
}

impl Got {
    pub(crate) fn ended(&self) -> bool {
        self.done.is_some() || self.error.is_some() || self.cancelled
    }
}

pub(crate) fn chat(text: &str) -> Input {
    Input::Chat(vec![Message::new(Speaker::User, text)])
}

pub(crate) fn greedy() -> Sampling {
    Sampling {
        temperature: 0.0,
        seed: Some(1),
        ..Sampling::default()
    }
}

pub(crate) fn echo_load(delay_ms: u64) -> Load {
    Load {
        kind: EngineKind::Echo,
        root: std::env::temp_dir(),
        has_adapter: false,
        weights: "none".to_owned(),
        tokenizer: None,
        format: Format::Gguf,
        context_tokens: 64,
        threads: 1,
        slots: 4,
        model_name: "echo".to_owned(),
        continuation: Continuation::default(),
        echo_delay_ms: delay_ms,
        compute: Compute::default(),
        confine: Confine::default(),
    }
}

#[cfg_attr(
    not(feature = "mistralrs"),
    expect(dead_code, reason = "needs the engine")
)]
pub(crate) fn model_load(root: &Path, weights: &str, format: Format) -> Load {
    Load {
        kind: EngineKind::Mistralrs,
        root: root.to_owned(),
        weights: weights.to_owned(),
        format,
        context_tokens: 2_048,
        threads: 2,
        ..echo_load(0)
    }
}

impl Client {
    /// Starts an engine on a thread of this process.
    pub(crate) fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let engine = std::thread::spawn(move || match first(&theirs) {
            Ok(load) => hold(theirs, load, || {}),
            Err(status) => status,
        });
        Self {
            socket: Some(ours),
            engine: Some(engine),
            next: 1,
        }
    }

    pub(crate) fn loaded(load: &Load) -> Self {
        let mut client = Self::start();
        client.send(&ToEngine::Load(load.clone()));
        match client.receive() {
            Some(FromEngine::Loaded { .. }) => client,
            other => panic!("not loaded: {other:?}"),
        }
    }

    fn socket(&mut self) -> &mut UnixStream {
        self.socket.as_mut().expect("open")
    }

    pub(crate) fn send(&mut self, message: &ToEngine) {
        write_message(self.socket(), message).expect("sent");
    }

    pub(crate) fn receive(&mut self) -> Option<FromEngine> {
        read_message(self.socket()).expect("an engine message within a minute")
    }

    /// Sends a request, without waiting for its answer.
    pub(crate) fn begin(&mut self, input: Input, sampling: &Sampling) -> u64 {
        self.begin_task(Task::new(input, sampling.clone()))
    }

    /// The same for a whole task.
    pub(crate) fn begin_task(&mut self, task: Task) -> u64 {
        let id = self.next;
        self.next += 1;
        self.send(&ToEngine::Generate(Generate { id, task }));
        id
    }

    /// Takes one message into what came so far.
    pub(crate) fn take(&mut self, all: &mut BTreeMap<u64, Got>) {
        match self.receive().expect("the engine is there") {
            FromEngine::Started { id, prompt_tokens } => {
                all.entry(id).or_default().prompt_tokens = Some(prompt_tokens);
            }
            FromEngine::Chunk { id, chunk } => {
                let got = all.entry(id).or_default();
                let start = *got.start.get_or_insert(chunk.position);
                assert_eq!(
                    chunk.position as usize,
                    start as usize + got.tokens.len(),
                    "positions have no gaps"
                );
                assert!(got.prompt_tokens.is_some() && !got.ended());
                got.tokens.extend(chunk.tokens);
                got.text += &chunk.text;
                got.logprobs.extend(chunk.logprobs);
                got.calls.extend(chunk.calls);
                got.chunks += 1;
            }
            FromEngine::Retold { id, chunk } => {
                let got = all.entry(id).or_default();
                assert!(got.start.is_none() && got.prompt_tokens.is_some() && !got.ended());
                assert_eq!(chunk.position as usize, got.retold.len());
                got.retold.extend(chunk.tokens);
                got.retold_text += &chunk.text;
                got.retold_calls.extend(chunk.calls);
            }
            FromEngine::Replayed { .. } => {}
            FromEngine::Done {
                id,
                finish,
                usage,
                decode_ms,
                ..
            } => {
                let got = all.entry(id).or_default();
                assert!(!got.ended());
                if let Some(start) = got.start {
                    let all = start as usize + got.tokens.len();
                    assert_eq!(usage.completion_tokens as usize, all);
                }
                assert_eq!(Some(usage.prompt_tokens), got.prompt_tokens);
                got.done = Some((finish, usage));
                got.decode_ms = decode_ms;
            }
            FromEngine::Failed { id, error } => {
                let got = all.entry(id).or_default();
                assert!(!got.ended());
                got.error = Some(error);
            }
            FromEngine::Cancelled { id } => {
                let got = all.entry(id).or_default();
                assert!(!got.ended());
                got.cancelled = true;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// The answers to several requests given at once, in their order.
    pub(crate) fn ask_all(&mut self, requests: Vec<(Input, Sampling)>) -> Vec<Got> {
        let tasks = requests.into_iter();
        self.do_all(tasks.map(|(input, sampling)| Task::new(input, sampling)))
    }

    /// The same for whole tasks.
    pub(crate) fn do_all(&mut self, tasks: impl IntoIterator<Item = Task>) -> Vec<Got> {
        let ids: Vec<u64> = tasks
            .into_iter()
            .map(|task| self.begin_task(task))
            .collect();
        let mut all = BTreeMap::new();
        while !ids.iter().all(|id| all.get(id).is_some_and(Got::ended)) {
            self.take(&mut all);
        }
        ids.iter().filter_map(|id| all.remove(id)).collect()
    }

    pub(crate) fn ask(&mut self, input: Input, sampling: &Sampling) -> Got {
        self.ask_all(vec![(input, sampling.clone())])
            .pop()
            .expect("one answer")
    }

    /// The answer to a whole task.
    pub(crate) fn perform(&mut self, task: Task) -> Got {
        self.do_all([task]).pop().expect("one answer")
    }

    /// Hangs up, and waits until the engine is gone.
    pub(crate) fn end(mut self) -> ExitCode {
        self.socket = None;
        let engine = self.engine.take().expect("running");
        engine.join().expect("the engine ends without a panic")
    }
}
