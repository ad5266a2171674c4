//! Whole completions.

use super::extension::Extension;
use super::logprobs::Logprobs;
use super::response::{Choice, Completion, Head};
use crate::answer::{MAX_ANSWER_BYTES, Part, Piece};
use crate::choices::Told;
use crate::problem::Problem;
use axum::body::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use tether_wire::infer::{CallDelta, TokenLogprob, Usage};

/// What a likely token costs in memory beside its bytes, about.
const LIKELY_BYTES: usize = 64;

/// Collects the answers to one request. What they hold together is bounded by
/// [`MAX_ANSWER_BYTES`].
pub(crate) struct Whole {
    head: Head,
    answers: BTreeMap<u32, Answer>,
    bytes: usize,
}

#[derive(Default)]
struct Answer {
    text: String,
    calls: Vec<Call>,
    logprobs: Vec<TokenLogprob>,
    finish: Option<&'static str>,
    extension: Option<Extension>,
}

struct Call {
    id: String,
    name: String,
    arguments: String,
}

#[derive(Serialize)]
struct Message<'a> {
    message: Said<'a>,
}

#[derive(Serialize)]
struct Said<'a> {
    role: &'static str,
    /// Null where there are only calls.
    content: Option<&'a str>,
    refusal: Option<()>,
    annotations: [(); 0],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallJson<'a>>,
}

#[derive(Serialize)]
struct CallJson<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    function: FunctionJson<'a>,
}

#[derive(Serialize)]
struct FunctionJson<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl<'a> From<&'a Call> for CallJson<'a> {
    fn from(call: &'a Call) -> Self {
        Self {
            id: &call.id,
            kind: "function",
            function: FunctionJson {
                name: &call.name,
                arguments: &call.arguments,
            },
        }
    }
}

impl Whole {
    pub(crate) fn new(head: Head) -> Self {
        Self {
            head,
            answers: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Takes what one of the answers tells.
    pub(crate) fn take(&mut self, answer: u32, told: Told) -> Result<(), Problem> {
        let into = self.answers.entry(answer).or_default();
        match told {
            Told::Begun(accepted) => {
                into.extension = Some(Extension::new(&self.head.mesh, &accepted));
            }
            Told::Piece(Piece::Done(done)) => {
                into.finish = Some(done.finish.as_str());
                into.extension = into.extension.take().map(|it| it.with(&done));
            }
            Told::Piece(Piece::Part(part)) => {
                self.bytes = self.bytes.saturating_add(cost(&part));
                if self.bytes > MAX_ANSWER_BYTES {
                    return Err(Problem::invalid(
                        "answer_too_large",
                        "This answer is too large to be given whole: set 'stream' to true, or ask \
                         for less.",
                    )
                    .at("stream"));
                }
                into.text.push_str(&part.text);
                into.logprobs.extend(part.logprobs);
                part.calls.into_iter().for_each(|call| into.call(call));
            }
        }
        Ok(())
    }

    /// The completion.
    pub(crate) fn finish(self, usage: Usage) -> Bytes {
        let (choices, one) = (self.answers.iter())
            .map(|(index, answer)| {
                let [one, each] = self.head.place(answer.extension.clone());
                let choice = Choice {
                    index: *index,
                    message: Message {
                        message: answer.said(),
                    },
                    logprobs: (self.head.logprobs).then(|| Logprobs::new(&answer.logprobs)),
                    finish_reason: answer.finish,
                    tether: each,
                };
                (choice, one)
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let completion = Completion {
            head: &self.head,
            choices,
            usage: Some(Some(usage.into())),
            tether: one.into_iter().flatten().next(),
        };
        let bytes = serde_json::to_vec(&completion).expect("our own types serialise to JSON");
        Bytes::from(bytes)
    }
}

impl Answer {
    /// Deltas come in order, the first of a call with its id and its tool.
    fn call(&mut self, delta: CallDelta) {
        if let (Some(id), Some(name)) = (delta.id, delta.name) {
            self.calls.push(Call {
                id,
                name,
                arguments: delta.arguments,
            });
        } else if let Some(call) = self.calls.get_mut(delta.index as usize) {
            call.arguments.push_str(&delta.arguments);
        }
    }

    fn said(&self) -> Said<'_> {
        let only_calls = self.text.is_empty() && !self.calls.is_empty();
        Said {
            role: "assistant",
            content: (!only_calls).then_some(&self.text),
            refusal: None,
            annotations: [],
            tool_calls: self.calls.iter().map(CallJson::from).collect(),
        }
    }
}

/// What is held of a part, about.
fn cost(part: &Part) -> usize {
    let call = |call: &CallDelta| {
        let texts = [&call.id, &call.name].into_iter().flatten();
        LIKELY_BYTES + call.arguments.len() + texts.map(String::len).sum::<usize>()
    };
    let token = |token: &TokenLogprob| {
        let top = token.top.iter();
        let top: usize = top.map(|it| LIKELY_BYTES + it.bytes.len()).sum();
        LIKELY_BYTES + token.bytes.len() + top
    };
    part.text.len()
        + part.calls.iter().map(call).sum::<usize>()
        + part.logprobs.iter().map(token).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::chat::parse_chat;
    use tether_wire::infer::Accepted;
    use tether_wire::{CorrelationId, Digest, MeshId, NodeId};

    fn whole() -> Whole {
        let body = br#"{"model":"m","messages":[{"role":"user","content":"x"}],"logprobs":true}"#;
        let chat = parse_chat(body).expect("valid");
        let accepted = Accepted {
            worker: NodeId([1; 32]),
            model: "m@1.0".parse().expect("valid"),
            digest: Digest([2; 32]),
            seed: 1,
            numerics_class: String::new(),
            created_ms: 0,
            degraded_from: None,
            max_tokens: None,
        };
        let correlation = CorrelationId([3; 16]);
        Whole::new(Head::new(
            MeshId([4; 32]),
            &correlation,
            &accepted,
            &chat,
            0,
        ))
    }

    #[test]
    fn answers_that_are_too_large_together_are_refused_whatever_makes_them_large() {
        let logprobs = vec![
            TokenLogprob {
                token: 1,
                logprob: 0.0,
                bytes: Vec::new(),
                top: Vec::new(),
            };
            1_024
        ];
        let text = "x".repeat(LIKELY_BYTES * 1_024);
        for part in [
            Part {
                text,
                ..Part::default()
            },
            Part {
                logprobs,
                ..Part::default()
            },
        ] {
            let mut whole = whole();
            let fits = MAX_ANSWER_BYTES / (LIKELY_BYTES * 1_024);
            for index in 0..fits {
                let told = Told::Piece(Piece::Part(part.clone()));
                whole.take(index as u32 % 2, told).expect("it fits");
            }
            let told = Told::Piece(Piece::Part(part));
            let problem = whole.take(0, told).expect_err("too large");
            assert_eq!(problem.param.as_deref(), Some("stream"));
        }
    }
}
