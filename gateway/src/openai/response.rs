//! Completions and their chunks.

use super::error::error_json;
use super::extension::Extension;
use crate::answer::Piece;
use crate::problem::Problem;
use crate::sse::{self, Dialect};
use axum::body::Bytes;
use serde::Serialize;
use tether_wire::infer::{Accepted, Done, Usage};
use tether_wire::{CorrelationId, MeshId};

/// What all chunks of a completion have in common.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    #[serde(skip)]
    tether: Extension,
}

impl Head {
    /// `asked` is the model as the tenant named it: it is named the same in the answer, unless
    /// another one gave it.
    pub(crate) fn new(
        mesh: &MeshId,
        correlation: &CorrelationId,
        accepted: &Accepted,
        asked: &str,
        created_s: u64,
    ) -> Self {
        let answered = accepted.model.to_string();
        let same = asked == answered || asked == accepted.model.name.as_str();
        Self {
            id: format!("chatcmpl-{correlation}"),
            object: "chat.completion",
            created: created_s,
            model: if same { asked.to_owned() } else { answered },
            system_fingerprint: format!("fp_{}", accepted.digest.short()),
            tether: Extension::new(mesh, accepted),
        }
    }
}

#[derive(Serialize)]
struct UsageJson {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u64,
}

impl From<Usage> for UsageJson {
    fn from(usage: Usage) -> Self {
        Self {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            total_tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        }
    }
}

#[derive(Serialize)]
struct Choice<M> {
    index: u32,
    #[serde(flatten)]
    message: M,
    /// Always null: asking for them is refused.
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    Message {
        role: &'static str,
        content: &'a str,
        refusal: Option<()>,
        annotations: [(); 0],
    },
    Delta {
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<&'a str>,
    },
}

#[derive(Serialize)]
struct Completion<'a> {
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<Choice<Content<'a>>>,
    /// Absent, null or given: each means something to clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageJson>>,
    /// Where the answer ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    tether: Option<Extension>,
}

/// A whole completion.
pub(crate) fn completion(head: &Head, text: &str, done: &Done) -> Bytes {
    let content = Content::Message {
        role: "assistant",
        content: text,
        refusal: None,
        annotations: [],
    };
    let completion = Completion {
        head,
        choices: vec![Choice {
            index: 0,
            message: content,
            logprobs: None,
            finish_reason: Some(done.finish.as_str()),
        }],
        usage: Some(Some(done.usage.into())),
        tether: Some(head.tether.with(done)),
    };
    let bytes = serde_json::to_vec(&completion).expect("our own types serialise to JSON");
    Bytes::from(bytes)
}

/// Writes a completion in chunks.
pub(crate) struct ChunkWriter {
    head: Head,
    include_usage: bool,
}

impl ChunkWriter {
    pub(crate) fn new(head: Head, include_usage: bool) -> Self {
        let head = Head {
            object: "chat.completion.chunk",
            ..head
        };
        Self {
            head,
            include_usage,
        }
    }

    fn chunk(
        &self,
        role: Option<&'static str>,
        content: Option<&str>,
        done: Option<&Done>,
    ) -> Bytes {
        sse::event(&Completion {
            head: &self.head,
            choices: vec![Choice {
                index: 0,
                message: Content::Delta { role, content },
                logprobs: None,
                finish_reason: done.map(|done| done.finish.as_str()),
            }],
            usage: self.include_usage.then_some(None),
            tether: done.map(|done| self.head.tether.with(done)),
        })
    }

    fn usage(&self, usage: Usage) -> Bytes {
        sse::event(&Completion {
            head: &self.head,
            choices: Vec::new(),
            usage: Some(Some(usage.into())),
            tether: None,
        })
    }
}

impl Dialect for ChunkWriter {
    fn open(&self) -> Vec<Bytes> {
        vec![self.chunk(Some("assistant"), Some(""), None)]
    }

    fn piece(&self, piece: &Piece) -> Vec<Bytes> {
        match piece {
            Piece::Text(text) => vec![self.chunk(None, Some(text), None)],
            Piece::Done(done) => {
                let mut events = vec![self.chunk(None, None, Some(done))];
                if self.include_usage {
                    events.push(self.usage(done.usage));
                }
                events.push(Bytes::from_static(b"data: [DONE]\n\n"));
                events
            }
        }
    }

    fn problem(&self, problem: &Problem) -> Bytes {
        sse::event(&error_json(problem))
    }
}
