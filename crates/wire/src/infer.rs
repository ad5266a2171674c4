//! Requests for inference and the events of an answer. [T-INF-1] to [T-INF-9]

use crate::codec::{CodecError, check_field, check_len};
use crate::id::{CorrelationId, Digest, ModelRef, NodeId, TenantId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most bytes of a request on the wire. [T-INF-3]
pub const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// Most messages of a chat. [T-INF-3]
pub const MAX_MESSAGES: usize = 2_048;
/// Most stop strings, as in OpenAI's API. [T-INF-3]
pub const MAX_STOPS: usize = 4;
/// Most bytes of a stop string. [T-INF-3]
pub const MAX_STOP_BYTES: usize = 512;
/// Most entries of `logit_bias`. [T-INF-3]
pub const MAX_LOGIT_BIAS: usize = 1_024;
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
}

impl Speaker {
    /// Its name in chat templates.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
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

/// How the answer is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Most tokens of the answer; nothing means as many as the context holds.
    pub max_tokens: Option<u32>,
    /// 0 is greedy.
    pub temperature: f32,
    /// Nucleus: the smallest set of tokens with this probability together.
    pub top_p: f32,
    /// Only the most likely tokens; 0 means all.
    pub top_k: u32,
    /// Only tokens at least this probable in relation to the most likely.
    pub min_p: f32,
    /// Penalty for each time that a token was drawn already.
    pub frequency_penalty: f32,
    /// Penalty for a token that was drawn at all.
    pub presence_penalty: f32,
    /// Added to the logits of tokens by id.
    pub logit_bias: BTreeMap<u32, f32>,
    /// The answer is a function of it; the orchestrator chooses one where the caller did not. [T-INF-5]
    pub seed: Option<u64>,
    /// Strings before which the answer ends.
    pub stop: Vec<String>,
}

impl Default for Sampling {
    /// OpenAI's defaults.
    fn default() -> Self {
        Self {
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: None,
            stop: Vec::new(),
        }
    }
}

impl Sampling {
    /// Checks every parameter. The field names are OpenAI's, since tenants read them. [T-INF-4]
    ///
    /// # Errors
    /// Names the parameter and its range.
    pub fn check(&self) -> Result<(), CodecError> {
        let within = |field: &'static str, value: f32, low: f32, high: f32| {
            check_field("request", field, (low..=high).contains(&value), || {
                format!("is {value}, not between {low} and {high}")
            })
        };
        check_field("request", "max_tokens", self.max_tokens != Some(0), || {
            "is 0, at least 1 is needed".to_owned()
        })?;
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        check_len(
            "request",
            "logit_bias",
            self.logit_bias.len(),
            MAX_LOGIT_BIAS,
        )?;
        for (token, bias) in &self.logit_bias {
            check_field(
                "request",
                "logit_bias",
                (-100.0..=100.0).contains(bias),
                || format!("of token {token} is {bias}, not between -100 and 100"),
            )?;
        }
        check_len("request", "stop", self.stop.len(), MAX_STOPS)?;
        for stop in &self.stop {
            check_field("request", "stop", !stop.is_empty(), || {
                "holds an empty string".to_owned()
            })?;
            check_len("request", "stop", stop.len(), MAX_STOP_BYTES)?;
        }
        Ok(())
    }
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
        match &self.input {
            Input::Chat(messages) => {
                check_field(what, "messages", !messages.is_empty(), || {
                    "is empty".to_owned()
                })?;
                check_len(what, "messages", messages.len(), MAX_MESSAGES)?;
            }
            Input::Text(text) => {
                check_field(what, "prompt", !text.is_empty(), || "is empty".to_owned())?;
            }
        }
        self.sampling.check()
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
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
}

impl Finish {
    /// OpenAI's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Exact counts of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u32,
    /// Tokens that were drawn, the ending one included.
    pub completion_tokens: u32,
}

/// The worker took the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Which worker.
    pub worker: NodeId,
    /// Which model.
    pub model: ModelRef,
    /// Its digest.
    pub digest: Digest,
    /// The seed that the answer is a function of.
    pub seed: u64,
}

/// The engine turned to the request: until now it waited its turn. [T-INF-8]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u32,
}

/// A piece of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Position in the answer of the first of `tokens`, from 0. Positions have no gaps. [T-INF-7]
    pub position: u32,
    /// Every token drawn since the last chunk, also those whose text is held back.
    pub tokens: Vec<u32>,
    /// The text that is now certain: whole characters, no part of a stop string.
    pub text: String,
    /// Tokens drawn since the last chunk whose ids the engine does not tell, as a server that a
    /// provider runs beside the worker. They follow `tokens` and have positions like them; an answer
    /// with such cannot be taken up again by another worker. [T-INF-7]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unnamed: u32,
}

impl Chunk {
    /// Positions that it takes; nothing where no number could say.
    #[must_use]
    pub fn positions(&self) -> Option<u32> {
        u32::try_from(self.tokens.len())
            .ok()?
            .checked_add(self.unnamed)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Why it ended.
    pub finish: Finish,
    /// Exact counts.
    pub usage: Usage,
}

/// What comes back for a request: one `Accepted` for each worker that took it, at most one `Begun`,
/// chunks, one `Done`.
/// A stream that ends without `Done` did not end well. [T-INF-8]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum AnswerEvent {
    /// A worker took the order.
    Accepted(Accepted),
    /// The request's turn came.
    Begun(Begun),
    /// A piece.
    Chunk(Chunk),
    /// The end.
    Done(Done),
    /// An event that this version does not know; ignored.
    #[serde(other)]
    Unknown,
}

/// Tokens without an id that an answer may have beyond the bytes of its text: those that ended it,
/// and those of a stop string that is not shown. [T-INF-7]
pub const MAX_UNSEEN_TOKENS: u32 = 1_024;
/// Most bytes of one event on the wire. [T-INF-9]
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn each_parameter_outside_its_range_is_named() {
        let wrong = |field: &str, change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            let error = sampling.check().expect_err(field).to_string();
            assert!(error.contains(field), "{error}");
        };
        wrong("temperature", |s| s.temperature = -1.0);
        wrong("temperature", |s| s.temperature = f32::NAN);
        wrong("top_p", |s| s.top_p = 7.0);
        wrong("min_p", |s| s.min_p = -0.1);
        wrong("max_tokens", |s| s.max_tokens = Some(0));
        wrong("presence_penalty", |s| s.presence_penalty = 2.1);
        wrong("stop", |s| s.stop = vec![String::new()]);
        wrong("stop", |s| s.stop = vec!["x".into(); 5]);
        wrong("logit_bias", |s| s.logit_bias = [(1, 101.0)].into());
    }

    #[test]
    fn an_event_of_a_later_version_is_ignored_not_fatal() {
        #[derive(Serialize)]
        struct Later {
            event: &'static str,
            anything: u32,
        }
        let bytes = codec::encode(&Later {
            event: "hand-over",
            anything: 1,
        });
        assert_eq!(
            codec::decode::<AnswerEvent>("event", &bytes, 64),
            Ok(AnswerEvent::Unknown)
        );
    }

    #[test]
    fn events_survive_the_wire() {
        let events = [
            AnswerEvent::Accepted(Accepted {
                worker: NodeId([1; 32]),
                model: "tiny@1.0".parse().expect("valid"),
                digest: Digest([2; 32]),
                seed: u64::MAX,
            }),
            AnswerEvent::Chunk(Chunk {
                position: 3,
                tokens: vec![1, 2],
                text: "é".into(),
                unnamed: 0,
            }),
            AnswerEvent::Done(Done {
                finish: Finish::Length,
                usage: Usage::default(),
            }),
        ];
        for event in events {
            let bytes = codec::encode(&event);
            assert_eq!(codec::decode("event", &bytes, MAX_EVENT_BYTES), Ok(event));
        }
    }
}
