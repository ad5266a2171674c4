//! The events of an answer. [T-INF-7] to [T-INF-9], [T-INF-12]

use crate::id::{CorrelationId, Digest, ModelRef, NodeId};
use serde::{Deserialize, Serialize};

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
    /// The model ended it, and what it wrote holds calls of tools.
    ToolCalls,
}

impl Finish {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Stop, Self::Length, Self::ToolCalls];

    /// OpenAI's name for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
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
    /// The numerics class in which it is given, as in the worker's card; added by the orchestrator.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub numerics_class: String,
    /// Unix milliseconds at which the request was first taken, added by the orchestrator: whoever
    /// comes again is given the same.
    #[serde(default, skip_serializing_if = "is_never")]
    pub created_ms: u64,
    /// The model that was asked for, where a policy had this smaller one answer in its place; added
    /// by the orchestrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded_from: Option<ModelRef>,
    /// The most tokens that a policy lets the answer have, where the request left that open; added by
    /// the orchestrator, since a receipt is of the request with it. [T-RCP-3]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
fn is_never(ms: &u64) -> bool {
    *ms == 0
}

/// The engine turned to the request: until now it waited its turn. [T-INF-8]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u32,
}

/// Tokens without an id that an answer may have beyond the bytes of its text: those that ended it,
/// and those of a stop string that is not shown. [T-INF-7]
pub const MAX_UNSEEN_TOKENS: u32 = 1_024;
/// Least logarithmic probability that is told: what a token has that cannot come. [T-INF-12]
pub const MIN_LOGPROB: f32 = -9_999.0;

/// A piece of an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Position in the answer of the first of `tokens`, from 0. Positions have no gaps. [T-INF-7]
    pub position: u32,
    /// Every token drawn since the last chunk, also those whose text is held back.
    pub tokens: Vec<u32>,
    /// The text that is now certain: whole characters, no part of a stop string or of a call.
    pub text: String,
    /// One for each of `tokens`, where they were asked for. [T-INF-12]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<TokenLogprob>,
    /// What is now certain of calls of tools. [T-INF-12]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<CallDelta>,
    /// Tokens drawn since the last chunk whose ids the engine does not tell, as a server that a
    /// provider runs beside the worker. They follow `tokens` and have positions like them; an answer
    /// with such cannot be taken up again by another worker. [T-INF-7]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unnamed: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Chunk {
    /// A piece with text alone.
    #[must_use]
    pub fn new(position: u32, tokens: Vec<u32>, text: impl Into<String>) -> Self {
        Self {
            position,
            tokens,
            text: text.into(),
            ..Self::default()
        }
    }

    /// Positions that it takes; nothing where no number could say.
    #[must_use]
    pub fn positions(&self) -> Option<u32> {
        u32::try_from(self.tokens.len())
            .ok()?
            .checked_add(self.unnamed)
    }

    /// Bytes that the model wrote and the caller sees: of text, and of calls.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_call =
            |call: &CallDelta| call.arguments.len() + call.name.as_ref().map_or(0, String::len);
        self.text.len() + self.calls.iter().map(of_call).sum::<usize>()
    }
}

/// How likely a token was. [T-INF-12]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Which token.
    pub token: u32,
    /// Natural logarithm of its probability, from [`MIN_LOGPROB`] to 0.
    pub logprob: f32,
    /// The bytes that it stands for, which may be part of a character; special tokens have none.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// The most likely tokens at its place, best first; each has none itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TopLogprob>,
}

/// One of the most likely tokens at a place. [T-INF-12]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// Which token.
    pub token: u32,
    /// As in [`TokenLogprob::logprob`].
    pub logprob: f32,
    /// As in [`TokenLogprob::bytes`].
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// More of a call of a tool. [T-INF-12]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallDelta {
    /// Which call of the answer, from 0.
    pub index: u32,
    /// Its id, with the first delta of a call: [`call_id`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its tool, with the first delta of a call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More text of the arguments, which together are JSON.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub arguments: String,
}

/// Characters of a call's id. Some models' templates take no other number.
const CALL_ID_LEN: usize = 9;
const ALPHANUMERIC: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The id of a call: a function of the request and the call's place in its answer, so that whoever
/// takes the answer up again gives the same. [T-INF-12]
#[must_use]
pub fn call_id(correlation: &CorrelationId, index: u32) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("tether 2026 tool call id v1");
    hasher.update(&correlation.0);
    hasher.update(&index.to_be_bytes());
    let digest = hasher.finalize();
    let bytes = digest.as_bytes().iter().take(CALL_ID_LEN);
    bytes
        .map(|byte| char::from(ALPHANUMERIC[usize::from(*byte) % ALPHANUMERIC.len()]))
        .collect()
}

/// The end of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Why it ended.
    pub finish: Finish,
    /// Exact counts.
    pub usage: Usage,
    /// The worker's sealed [`crate::Receipt`], where it gave a right one. [T-RCP-5]
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub receipt: Option<Vec<u8>>,
}

/// What comes back for a request: one `Accepted` for each worker that took it, at most one `Begun`,
/// chunks, one `Done`.
/// A stream that ends without `Done` did not end well. [T-INF-8]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// Most bytes of one event on the wire. [T-INF-9]
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

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
                numerics_class: "x".into(),
                created_ms: 1,
                degraded_from: Some("big@1.0".parse().expect("valid")),
                max_tokens: Some(7),
            }),
            AnswerEvent::Chunk(Chunk::new(3, vec![1, 2], "é")),
            AnswerEvent::Done(Done {
                finish: Finish::Length,
                usage: Usage::default(),
                receipt: None,
            }),
        ];
        for event in events {
            let bytes = codec::encode(&event);
            assert_eq!(codec::decode("event", &bytes, MAX_EVENT_BYTES), Ok(event));
        }
    }

    /// [T-INF-12]
    #[test]
    fn the_id_of_a_call_is_the_same_for_whoever_goes_on() {
        let (one, other) = (CorrelationId([1; 16]), CorrelationId([2; 16]));
        let ids = [call_id(&one, 0), call_id(&one, 1), call_id(&other, 0)];
        assert_eq!(ids[0], call_id(&one, 0));
        assert!(ids[0] != ids[1] && ids[0] != ids[2]);
        let plain = |id: &String| id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric());
        assert!(ids.iter().all(plain), "{ids:?}");
    }
}
