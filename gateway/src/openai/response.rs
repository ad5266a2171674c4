//! What completions and their chunks have in common.

use super::chat::ChatRequest;
use super::extension::Extension;
use super::logprobs::Logprobs;
use super::saved::{completion_id, fingerprint};
use serde::Serialize;
use tether_wire::infer::{Accepted, Usage};
use tether_wire::{CorrelationId, MeshId};

/// What all chunks of a completion have in common.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Head {
    id: String,
    pub(super) object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    #[serde(skip)]
    pub(super) mesh: MeshId,
    /// How many answers are given.
    #[serde(skip)]
    pub(super) answers: u32,
    /// Whether logarithmic probabilities are told.
    #[serde(skip)]
    pub(super) logprobs: bool,
}

impl Head {
    /// The model is named in the answer as the tenant named it, unless another one gave it.
    pub(crate) fn new(
        mesh: MeshId,
        correlation: &CorrelationId,
        accepted: &Accepted,
        chat: &ChatRequest,
        created_s: u64,
    ) -> Self {
        let (asked, answered) = (&chat.model, accepted.model.to_string());
        let same = *asked == answered || asked == accepted.model.name.as_str();
        Self {
            id: completion_id(correlation),
            object: "chat.completion",
            created: created_s,
            model: if same { asked.clone() } else { answered },
            system_fingerprint: fingerprint(&accepted.digest, &accepted.numerics_class),
            mesh,
            answers: chat.answers,
            logprobs: chat.sampling.top_logprobs.is_some(),
        }
    }

    /// Where the extension of an answer stands: beside the choices where there is but one, else in
    /// its choice.
    pub(super) fn place(&self, extension: Option<Extension>) -> [Option<Extension>; 2] {
        if self.answers == 1 {
            [extension, None]
        } else {
            [None, extension]
        }
    }
}

#[derive(Serialize)]
pub(super) struct UsageJson {
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

/// One of the answers: `M` is its whole message, or what comes to it.
#[derive(Serialize)]
pub(super) struct Choice<'a, M> {
    pub(super) index: u32,
    #[serde(flatten)]
    pub(super) message: M,
    /// Null where they were not asked for.
    pub(super) logprobs: Option<Logprobs<'a>>,
    pub(super) finish_reason: Option<&'static str>,
    /// Where the answer ends, and there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tether: Option<Extension>,
}

/// A completion or a chunk of one.
#[derive(Serialize)]
pub(super) struct Completion<'a, M> {
    #[serde(flatten)]
    pub(super) head: &'a Head,
    pub(super) choices: Vec<Choice<'a, M>>,
    /// Absent, null or given: each means something to clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<UsageJson>>,
    /// Where the answer ends, and there is but one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tether: Option<Extension>,
}
