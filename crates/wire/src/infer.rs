//! Requests for inference and the events of an answer. [T-INF-1] to [T-INF-15]
//!
//! * [`sampling`] – how each token is drawn
//! * [`output`] – what the answer must be
//! * [`events`] – what comes back
//! * [`prefix`] – what prompts have in common at their beginning
//! * [`prompt`] – how many tokens a prompt can have
//! * [`resume`] – what of an answer was given before its orchestrator was lost

pub mod events;
pub mod output;
pub mod prefix;
pub mod prompt;
pub mod resume;
pub mod sampling;

pub use events::{
    Accepted, AnswerEvent, Begun, CallDelta, Chunk, Done, Finish, MAX_EVENT_BYTES,
    MAX_UNSEEN_TOKENS, MIN_LOGPROB, TokenLogprob, TopLogprob, Usage, call_id,
};
pub use output::{
    Format, MAX_CHOICES, MAX_FORMAT_BYTES, MAX_TOOL_NAME_BYTES, MAX_TOOLS, MAX_TOOLS_BYTES, Output,
    Tool, ToolChoice, is_tool_name,
};
pub use prefix::{MAX_PREFIX_BLOCKS, PREFIX_BLOCK_BYTES, Prefix};
pub use prompt::PromptSize;
pub use resume::{MAX_LOST, Resume, Started};
pub use sampling::{
    MAX_LOGIT_BIAS, MAX_REPETITION_PENALTY, MAX_STOP_BYTES, MAX_STOPS, MAX_TOP_LOGPROBS, Sampling,
};

use crate::codec::{CodecError, check_field, check_len};
use crate::id::{CorrelationId, Digest, ModelRef, TenantId};
use serde::{Deserialize, Serialize};

/// Most bytes of a request on the wire, without what was given of its answer. [T-INF-3]
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Most messages of a chat. [T-INF-3]
pub const MAX_MESSAGES: usize = 2_048;
/// Most calls of tools in one message. [T-INF-3]
pub const MAX_TOOL_CALLS: usize = 128;
/// Most bytes of a call's id, and of a message's name. [T-INF-3]
pub const MAX_CALL_ID_BYTES: usize = 128;
/// Most tokens of a transcript; more than that fits no request. [T-INF-11]
pub const MAX_TRANSCRIPT_TOKENS: usize = 262_144;
/// Most bytes on the wire of a request with what was given of its answer ([`Resume`]), and of a work
/// order with its transcript: an id has at most five, and the rest says who gave it, or whose order it
/// is. [T-INF-3]
pub const MAX_CONTINUED_BYTES: usize = MAX_REQUEST_BYTES + MAX_TRANSCRIPT_TOKENS * 5 + 4_096;
// It goes as one item of a call. [T-RPC-2]
const _: () = assert!(MAX_CONTINUED_BYTES < crate::rpc::MAX_FRAME_BYTES);
/// Longest retry token. [T-INF-2]
pub const MAX_RETRY_TOKEN_BYTES: usize = 255;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Speaker {
    /// Instructions.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called.
    Tool,
}

impl Speaker {
    /// Its name in chat templates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Speaker,
    /// What is said.
    pub content: String,
    /// The calls of tools that an answer held.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool's message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of who speaks: of a tool, its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A call of a tool, as an answer held it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// By which its result names it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, as JSON.
    pub arguments: String,
}

impl Message {
    /// A message of text alone.
    #[must_use]
    pub fn new(role: Speaker, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }

    /// Checks limits, and that each part stands where it means something. [T-INF-3]
    fn check(&self) -> Result<(), CodecError> {
        let (what, field) = ("request", "messages");
        check_len(what, field, self.tool_calls.len(), MAX_TOOL_CALLS)?;
        let may_call = self.role == Speaker::Assistant || self.tool_calls.is_empty();
        check_field(what, field, may_call, || {
            format!(
                "has tool_calls of {}, who calls no tools",
                self.role.as_str()
            )
        })?;
        for call in &self.tool_calls {
            check_field(what, field, is_tool_name(&call.name), || {
                "has a tool call whose name no tool can have".to_owned()
            })?;
            check_len(what, field, call.id.len(), MAX_CALL_ID_BYTES)?;
        }
        let answers = self.tool_call_id.is_some() == (self.role == Speaker::Tool);
        check_field(what, field, answers, || {
            format!(
                "has a tool_call_id where none belongs, or none where one does: it says which call \
                 a message of the role tool answers, and this is of {}",
                self.role.as_str()
            )
        })?;
        for id in [&self.tool_call_id, &self.name].into_iter().flatten() {
            check_len(what, field, id.len(), MAX_CALL_ID_BYTES)?;
        }
        Ok(())
    }
}

/// What the model is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A chat, rendered by the model's own template.
    Chat(Vec<Message>),
    /// Text as it is.
    Text(String),
}

/// What a gateway submits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InferRequest {
    /// The tenant, from its key.
    pub tenant: TenantId,
    /// The correlation id, derived from tenant and retry token. [T-INF-2]
    pub correlation: CorrelationId,
    /// The tenant's `Idempotency-Key`, or a fresh random one.
    pub retry_token: String,
    /// The model as the tenant named it: `NAME` or `NAME@MAJOR.MINOR`.
    pub model: String,
    /// What the model is given.
    pub input: Input,
    /// How the answer is drawn.
    #[serde(default)]
    pub sampling: Sampling,
    /// What the answer must be.
    #[serde(default, skip_serializing_if = "Output::is_plain")]
    pub output: Output,
    /// Whether the caller gave the retry token, and may come again with it for as long as answers
    /// are kept. [T-INF-2]
    #[serde(default, skip_serializing_if = "is_false")]
    pub keyed: bool,
    /// How many answers were asked for, of which this is one. [T-INF-2]
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub answers: u32,
    /// The beginnings of the prompt, by which a worker is found that read them before. [T-INF-14]
    #[serde(default, skip_serializing_if = "Prefix::is_empty")]
    pub prefix: Prefix,
    /// What of the answer was given already, by an orchestrator that is lost. [T-INF-13]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
fn is_false(it: &bool) -> bool {
    !*it
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
fn is_one(it: &u32) -> bool {
    *it == 1
}

impl InferRequest {
    /// Checks limits and the derivation of the correlation id.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn check(&self) -> Result<(), CodecError> {
        let what = "request";
        check_len(
            what,
            "retry_token",
            self.retry_token.len(),
            MAX_RETRY_TOKEN_BYTES,
        )?;
        let derived = CorrelationId::derive(&self.tenant, &self.retry_token);
        check_field(what, "correlation", self.correlation == derived, || {
            "does not follow from tenant and retry token".to_owned()
        })?;
        check_len(what, "model", self.model.len(), 128)?;
        self.prefix.check()?;
        self.resume.as_ref().map_or(Ok(()), Resume::check)?;
        check_task(&self.input, &self.sampling, &self.output)
    }
}

/// What an orchestrator gives to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkOrder {
    /// The job: its correlation id.
    pub correlation: CorrelationId,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Fencing number of the job's owner; a worker refuses a lower one than it saw. [T-INF-6]
    pub fence: u64,
    /// The tenant, for the worker's own quota.
    pub tenant: TenantId,
    /// The model by name.
    pub model: ModelRef,
    /// The model by content: what the worker must have loaded.
    pub digest: Digest,
    /// What the model is given.
    pub input: Input,
    /// How the answer is drawn; the seed is always there.
    pub sampling: Sampling,
    /// What the answer must be.
    #[serde(default, skip_serializing_if = "Output::is_plain")]
    pub output: Output,
    /// Tokens of the answer that were given already; it goes on behind them. [T-INF-11]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transcript: Vec<u32>,
}

impl WorkOrder {
    /// Checks what could hurt an engine: what an orchestrator checked of the request, again.
    ///
    /// # Errors
    /// Names the field that is wrong.
    pub fn check(&self) -> Result<(), CodecError> {
        check_field("order", "seed", self.sampling.seed.is_some(), || {
            "is missing".to_owned()
        })?;
        check_transcript("order", &self.transcript)?;
        check_task(&self.input, &self.sampling, &self.output)
    }
}

/// What an answer is a function of: checked at each seat that it passes.
fn check_task(input: &Input, sampling: &Sampling, output: &Output) -> Result<(), CodecError> {
    let what = "request";
    match input {
        Input::Chat(messages) => {
            check_field(what, "messages", !messages.is_empty(), || {
                "is empty".to_owned()
            })?;
            check_len(what, "messages", messages.len(), MAX_MESSAGES)?;
            messages.iter().try_for_each(Message::check)?;
        }
        Input::Text(text) => {
            check_field(what, "prompt", !text.is_empty(), || "is empty".to_owned())?;
            check_field(what, "tools", output.tools.is_empty(), || {
                "need messages, not a prompt".to_owned()
            })?;
        }
    }
    output.check()?;
    sampling.check()
}

fn check_transcript(what: &'static str, transcript: &[u32]) -> Result<(), CodecError> {
    check_len(what, "transcript", transcript.len(), MAX_TRANSCRIPT_TOKENS)
}
