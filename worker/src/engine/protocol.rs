//! What a worker and its engine process say to each other.
//!
//! Both ends are the same binary, started from one another, so there is no version to agree on.
//! A message is CBOR in a frame of `length (u32, big endian) ‖ payload` over a private socket pair.
//! The child reads and writes with blocking calls, the parent with tokio; the bounds are the same,
//! because a child that went mad must not be able to hurt its parent.

use crate::device::Compute;
use crate::sandbox::{Confine, Shield};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use tether_artifact_store::{ADAPTER_FOLDER, BASE_FOLDER};
use tether_wire::CorrelationId;
use tether_wire::codec;
use tether_wire::infer::{Chunk, Finish, Input, Output, Sampling, Usage, WorkOrder};
use tether_wire::manifest::Format;
use tether_wire::rpc::RpcError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of one message to an engine, which may hold a whole request.
pub const MAX_TO_ENGINE_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of one message from an engine: a piece of an answer is far smaller.
pub const MAX_FROM_ENGINE_BYTES: usize = 1024 * 1024;
/// Most bytes of what an engine says for people.
pub const MAX_WORDS_BYTES: usize = 512;

/// What goes one way between a worker and its engine.
pub trait Message: Serialize + DeserializeOwned {
    /// Most bytes of one.
    const MAX_BYTES: usize;
}

impl Message for ToEngine {
    const MAX_BYTES: usize = MAX_TO_ENGINE_BYTES;
}

impl Message for FromEngine {
    const MAX_BYTES: usize = MAX_FROM_ENGINE_BYTES;
}

/// Words of an engine, cut between characters at [`MAX_WORDS_BYTES`].
#[must_use]
pub fn brief(mut words: String) -> String {
    let mut end = words.len().min(MAX_WORDS_BYTES);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    words.truncate(end);
    words
}

/// An error whose words are cut likewise.
#[must_use]
pub fn brief_error(error: RpcError) -> RpcError {
    RpcError {
        message: brief(error.message),
        param: error.param.map(brief),
        ..error
    }
}

/// Which engine a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// mistral.rs on the CPU.
    #[default]
    Mistralrs,
    /// Says the words of the last user message; for load tests, which need answers without a model.
    Echo,
    /// Tries to escape; for `tether worker doctor`, which says what stopped it.
    Escape,
}

/// How an answer is taken up again behind its transcript.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Continuation {
    /// The prompt is read as it was for the original, then the transcript token by token, as it was
    /// drawn: the same kernels with the same shapes, so that what follows is bit equal to what would
    /// have followed.
    #[default]
    Replay,
    /// Prompt and transcript are read at once, which is quicker and computes other shapes: the last
    /// bits may differ, and now and then a token.
    Prefill,
}

/// From the worker to its engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToEngine {
    /// The first message, once: the model of this process.
    Load(Load),
    /// One answer.
    Generate(Generate),
    /// Stop that answer, if it has not ended. The engine gives no more of it, and says when nothing
    /// of it is left: [`FromEngine::Cancelled`], or whatever end crossed this.
    Cancel {
        /// Which answer.
        id: u64,
    },
    /// Are you there?
    Ping {
        /// Comes back in [`FromEngine::Pong`].
        n: u64,
    },
}

/// Which model to load. The files were verified against their manifest before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Which engine.
    pub kind: EngineKind,
    /// The folder of the artifact's files, absolute.
    pub root: PathBuf,
    /// Whether there is an adapter: then `root` holds two folders, of the base and of the adapter, and
    /// everything else here is said of the base.
    #[serde(default)]
    pub has_adapter: bool,
    /// The file of the weights, relative to the model's folder.
    pub weights: String,
    /// The tokenizer's file, relative to the model's folder; nothing means `tokenizer.json`.
    #[serde(default)]
    pub tokenizer: Option<String>,
    /// How the weights are written.
    pub format: Format,
    /// Most tokens of prompt and answer together, from the manifest.
    pub context_tokens: u32,
    /// Threads for the numeric kernels; 0 means as many as the machine has cores.
    pub threads: u32,
    /// Most answers that the worker has it give at once; an engine may take them in turn.
    pub slots: u32,
    /// Name of the model, for messages.
    pub model_name: String,
    /// How answers are taken up again.
    #[serde(default)]
    pub continuation: Continuation,
    /// Milliseconds that the echo engine waits before each token.
    #[serde(default)]
    pub echo_delay_ms: u64,
    /// Where and how it computes.
    #[serde(default)]
    pub compute: Compute,
    /// How the process confines itself before it loads anything.
    #[serde(default)]
    pub confine: Confine,
}

impl Load {
    /// The folder of the model, which is the adapter's base where there is one.
    #[must_use]
    pub fn model_folder(&self) -> PathBuf {
        if self.has_adapter {
            self.root.join(BASE_FOLDER)
        } else {
            self.root.clone()
        }
    }

    /// The folder of the adapter.
    #[must_use]
    pub fn adapter_folder(&self) -> Option<PathBuf> {
        self.has_adapter.then(|| self.root.join(ADAPTER_FOLDER))
    }
}

/// One answer. Whatever becomes of it, the engine says exactly one of [`FromEngine::Done`],
/// [`FromEngine::Failed`] and [`FromEngine::Cancelled`] of it, and nothing after that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generate {
    /// Chosen by the worker, never used twice in one process.
    pub id: u64,
    /// What is asked for.
    pub task: Task,
}

/// What an order asks of an engine. The answer is a function of it, of the model and of the engine's
/// numerics class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What the ids of tool calls are made of.
    pub correlation: CorrelationId,
    /// What the model is given.
    pub input: Input,
    /// How the answer is drawn. Without a seed the engine draws with seed 0.
    pub sampling: Sampling,
    /// What the answer must be.
    #[serde(default)]
    pub output: Output,
    /// Tokens of the answer that were given already: the engine draws none of them, tells what they
    /// stand for ([`FromEngine::Retold`]), and goes on behind them. [T-INF-11]
    #[serde(default)]
    pub transcript: Vec<u32>,
}

impl Task {
    /// An answer of free text from its beginning.
    #[must_use]
    pub fn new(input: Input, sampling: Sampling) -> Self {
        Self {
            correlation: CorrelationId([0; 16]),
            input,
            sampling,
            output: Output::default(),
            transcript: Vec::new(),
        }
    }

    /// Tokens of the answer that were given already.
    #[must_use]
    pub fn given(&self) -> u32 {
        u32::try_from(self.transcript.len()).unwrap_or(u32::MAX)
    }
}

impl From<WorkOrder> for Task {
    fn from(order: WorkOrder) -> Self {
        Self {
            correlation: order.correlation,
            input: order.input,
            sampling: order.sampling,
            output: order.output,
            transcript: order.transcript,
        }
    }
}

/// From the engine to its worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromEngine {
    /// The process has confined itself, and has not looked at its model yet.
    Confined {
        /// What holds, and what does not.
        shields: Vec<Shield>,
        /// Microseconds that it took.
        took_us: u64,
    },
    /// The model is ready.
    Loaded {
        /// Most tokens of prompt and answer together: the least of what manifest and model allow.
        context_tokens: u32,
        /// Engine and version.
        engine: String,
        /// Answers are bit equal only between engines of the same class.
        numerics_class: String,
        /// Most answers that it gives at once; more would wait their turn in the engine.
        sequences: u32,
        /// Most bytes of text that one token stands for, so that a prompt that cannot fit is known
        /// without counting its tokens; nothing where there is no such number.
        #[serde(default)]
        max_token_bytes: Option<u32>,
        /// Milliseconds that loading took.
        load_ms: u64,
    },
    /// The model cannot be loaded; the process ends.
    LoadFailed {
        /// For people.
        reason: String,
    },
    /// The adapter asks for what is not applied here, or does not fit its base, and never will; the
    /// process ends.
    AdapterUnfit {
        /// For people.
        reason: String,
    },
    /// The answer's turn has come: its prompt, rendered and counted, is given to the model.
    Started {
        /// Which answer.
        id: u64,
        /// Tokens of the rendered prompt.
        prompt_tokens: u32,
    },
    /// More of an answer's transcript was gone through. Nobody waits for that but the watch over
    /// the engine's progress.
    Replayed {
        /// Which answer.
        id: u64,
    },
    /// A piece of an answer's transcript: what its tokens stand for, which only the engine knows.
    /// All of it comes behind [`FromEngine::Started`], in its order, before the first
    /// [`FromEngine::Chunk`].
    Retold {
        /// Which answer.
        id: u64,
        /// The piece.
        chunk: Chunk,
    },
    /// A piece of an answer.
    Chunk {
        /// Which answer.
        id: u64,
        /// The piece.
        chunk: Chunk,
    },
    /// The end of an answer.
    Done {
        /// Which answer.
        id: u64,
        /// Why it ended.
        finish: Finish,
        /// Exact counts.
        usage: Usage,
        /// Milliseconds from its turn, when [`FromEngine::Started`] was said, to its first token.
        prefill_ms: u64,
        /// Milliseconds from the first token to the last.
        decode_ms: u64,
    },
    /// The answer failed; other answers go on.
    Failed {
        /// Which answer.
        id: u64,
        /// Why.
        error: RpcError,
    },
    /// A cancelled answer is gone: what it occupied in the engine is free.
    Cancelled {
        /// Which answer.
        id: u64,
    },
    /// I am here.
    Pong {
        /// From [`ToEngine::Ping`].
        n: u64,
    },
}

fn too_large<T: Message>(len: usize) -> io::Error {
    let limit = T::MAX_BYTES;
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("an engine message has {len} bytes, more than the limit of {limit}"),
    )
}

/// A message as it is written.
///
/// # Errors
/// When it is over its [`Message::MAX_BYTES`].
pub fn frame<T: Message>(message: &T) -> io::Result<Vec<u8>> {
    let payload = codec::encode(message);
    if payload.len() > T::MAX_BYTES {
        return Err(too_large::<T>(payload.len()));
    }
    let len = u32::try_from(payload.len()).map_err(|_| too_large::<T>(payload.len()))?;
    let mut bytes = Vec::with_capacity(4 + payload.len());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

fn payload_len<T: Message>(head: [u8; 4]) -> io::Result<usize> {
    let len = u32::from_be_bytes(head) as usize;
    if len > T::MAX_BYTES {
        return Err(too_large::<T>(len));
    }
    Ok(len)
}

fn decode<T: Message>(payload: &[u8]) -> io::Result<T> {
    codec::decode("engine message", payload, T::MAX_BYTES)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes one message with a blocking call.
///
/// # Errors
/// When the other end is gone, or the message is over its [`Message::MAX_BYTES`].
pub fn write_message<T: Message>(writer: &mut impl Write, message: &T) -> io::Result<()> {
    writer.write_all(&frame(message)?)?;
    writer.flush()
}

/// Reads one message with a blocking call; nothing when the other end closed between messages.
///
/// # Errors
/// When the other end is gone within a message, or the bytes are not a message.
pub fn read_message<T: Message>(reader: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < head.len() {
        match reader.read(&mut head[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut payload = vec![0; payload_len::<T>(head)?];
    reader.read_exact(&mut payload)?;
    decode(&payload).map(Some)
}

/// Writes one message. Not safe to cancel: a message cut in half ends the conversation.
///
/// # Errors
/// As [`write_message`].
pub async fn send_message<T: Message>(
    writer: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    writer.write_all(&frame(message)?).await?;
    writer.flush().await
}

/// Reads one message; nothing when the other end closed between messages. Not safe to cancel.
///
/// # Errors
/// As [`read_message`].
pub async fn receive_message<T: Message>(
    reader: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    let mut have = 0;
    while have < head.len() {
        match reader.read(&mut head[have..]).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    let mut payload = vec![0; payload_len::<T>(head)?];
    reader.read_exact(&mut payload).await?;
    decode(&payload).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::rpc::Code;

    fn generate() -> ToEngine {
        let mut sampling = Sampling {
            seed: Some(u64::MAX),
            stop: vec!["\n".to_owned()],
            ..Sampling::default()
        };
        sampling.logit_bias.insert(7, -100.0);
        ToEngine::Generate(Generate {
            id: 1,
            task: Task::new(Input::Text("hé".to_owned()), sampling),
        })
    }

    #[test]
    fn messages_survive_the_blocking_way() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, &generate()).expect("write");
        write_message(&mut bytes, &ToEngine::Ping { n: 3 }).expect("write");
        let mut reader = bytes.as_slice();
        assert_eq!(
            read_message::<ToEngine>(&mut reader).expect("read"),
            Some(generate())
        );
        assert_eq!(
            read_message::<ToEngine>(&mut reader).expect("read"),
            Some(ToEngine::Ping { n: 3 })
        );
        assert_eq!(read_message::<ToEngine>(&mut reader).expect("end"), None);
    }

    #[tokio::test]
    async fn messages_survive_between_a_blocking_and_an_async_end() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("pair");
        ours.set_nonblocking(true).expect("non-blocking");
        let mut ours = tokio::net::UnixStream::from_std(ours).expect("tokio");
        let failed = FromEngine::Failed {
            id: 9,
            error: RpcError::new(Code::Invalid, "too long").with_param("messages"),
        };
        let expected = failed.clone();
        let child = std::thread::spawn(move || {
            let mut theirs = theirs;
            let got = read_message::<ToEngine>(&mut theirs).expect("read");
            write_message(&mut theirs, &failed).expect("write");
            got
        });
        send_message(&mut ours, &generate()).await.expect("send");
        assert_eq!(
            receive_message::<FromEngine>(&mut ours)
                .await
                .expect("receive"),
            Some(expected)
        );
        assert_eq!(
            receive_message::<FromEngine>(&mut ours).await.expect("end"),
            None
        );
        assert_eq!(child.join().expect("thread"), Some(generate()));
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        fn refused<T: Message + std::fmt::Debug>(limit: usize) {
            let head = u32::try_from(limit + 1).expect("fits").to_be_bytes();
            let error = read_message::<T>(&mut head.as_slice()).expect_err("too large");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        refused::<ToEngine>(MAX_TO_ENGINE_BYTES);
        refused::<FromEngine>(MAX_FROM_ENGINE_BYTES);
        let message = FromEngine::LoadFailed {
            reason: "x".repeat(MAX_FROM_ENGINE_BYTES),
        };
        assert!(write_message(&mut Vec::new(), &message).is_err());
    }

    #[test]
    fn words_are_cut_between_characters() {
        assert_eq!(brief("é".to_owned()), "é");
        let long = format!("x{}", "é".repeat(MAX_WORDS_BYTES));
        assert_eq!(brief(long.clone()).len(), MAX_WORDS_BYTES - 1);
        let error = brief_error(RpcError::new(Code::Invalid, long.clone()).with_param(long));
        let lens = (error.message.len(), error.param.map(|it| it.len()));
        assert_eq!(lens, (MAX_WORDS_BYTES - 1, Some(MAX_WORDS_BYTES - 1)));
    }

    #[test]
    fn half_a_message_is_an_error_and_not_an_end() {
        let mut bytes = Vec::new();
        write_message(&mut bytes, &generate()).expect("write");
        for cut in [1, 3, 4, bytes.len() - 1] {
            assert!(
                read_message::<ToEngine>(&mut &bytes[..cut]).is_err(),
                "{cut}"
            );
        }
    }
}
