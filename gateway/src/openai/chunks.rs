//! Completions in chunks.

use super::error::error_json;
use super::extension::Extension;
use super::logprobs::Logprobs;
use super::response::{Choice, Completion, Head};
use crate::answer::{Part, Piece};
use crate::choices::Told;
use crate::problem::Problem;
use crate::sse::{self, Dialect};
use axum::body::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;
use tether_wire::infer::{CallDelta, Done, Usage};

/// Writes a completion in chunks.
pub(crate) struct ChunkWriter {
    head: Head,
    include_usage: bool,
    /// Those that have begun.
    answers: BTreeMap<u32, Answer>,
}

struct Answer {
    extension: Extension,
    /// Whether its role was told, which comes first.
    opened: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    delta: Delta<'a>,
}

/// Absent, null or given: each means something to clients.
#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusal: Option<Option<()>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<CallJson<'a>>,
}

#[derive(Serialize)]
struct CallJson<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: FunctionJson<'a>,
}

#[derive(Serialize)]
struct FunctionJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> From<&'a CallDelta> for CallJson<'a> {
    fn from(call: &'a CallDelta) -> Self {
        Self {
            index: call.index,
            id: call.id.as_deref(),
            kind: call.id.is_some().then_some("function"),
            function: FunctionJson {
                name: call.name.as_deref(),
                arguments: &call.arguments,
            },
        }
    }
}

impl ChunkWriter {
    pub(crate) fn new(mut head: Head, include_usage: bool) -> Self {
        head.object = "chat.completion.chunk";
        Self {
            head,
            include_usage,
            answers: BTreeMap::new(),
        }
    }

    fn chunk(
        &self,
        index: u32,
        delta: Delta<'_>,
        logprobs: Option<Logprobs<'_>>,
        end: Option<(&Done, Option<Extension>)>,
    ) -> Bytes {
        let (done, extension) = end.unzip();
        let [one, each] = self.head.place(extension.flatten());
        sse::event(&Completion {
            head: &self.head,
            choices: vec![Choice {
                index,
                message: Message { delta },
                logprobs,
                finish_reason: done.map(|done| done.finish.as_str()),
                tether: each,
            }],
            usage: self.include_usage.then_some(None),
            tether: one,
        })
    }

    /// The first chunk of an answer, once: who speaks.
    fn open(&mut self, index: u32, only_calls: bool) -> Option<Bytes> {
        let answer = self.answers.get_mut(&index)?;
        if std::mem::replace(&mut answer.opened, true) {
            return None;
        }
        let delta = Delta {
            role: Some("assistant"),
            content: Some((!only_calls).then_some("")),
            refusal: Some(None),
            ..Delta::default()
        };
        Some(self.chunk(index, delta, None, None))
    }

    fn part(&self, index: u32, part: &Part) -> Bytes {
        let delta = Delta {
            content: (!part.only_calls()).then_some(Some(part.text.as_str())),
            tool_calls: part.calls.iter().map(CallJson::from).collect(),
            ..Delta::default()
        };
        let logprobs = self.head.logprobs.then(|| Logprobs::new(&part.logprobs));
        self.chunk(index, delta, logprobs, None)
    }
}

impl Dialect for ChunkWriter {
    fn told(&mut self, answer: u32, told: &Told) -> Vec<Bytes> {
        match told {
            Told::Begun(accepted) => {
                let extension = Extension::new(&self.head.mesh, accepted);
                let begun = Answer {
                    extension,
                    opened: false,
                };
                self.answers.insert(answer, begun);
                Vec::new()
            }
            Told::Piece(Piece::Part(part)) => {
                let mut events = Vec::from_iter(self.open(answer, part.only_calls()));
                events.push(self.part(answer, part));
                events
            }
            Told::Piece(Piece::Done(done)) => {
                let mut events = Vec::from_iter(self.open(answer, false));
                let begun = self.answers.get(&answer);
                let extension = begun.map(|begun| begun.extension.with(done));
                let end = Some((done, extension));
                events.push(self.chunk(answer, Delta::default(), None, end));
                events
            }
        }
    }

    fn end(&mut self, usage: Usage) -> Vec<Bytes> {
        let usage = self.include_usage.then(|| {
            sse::event(&Completion::<Message<'_>> {
                head: &self.head,
                choices: Vec::new(),
                usage: Some(Some(usage.into())),
                tether: None,
            })
        });
        let done = Bytes::from_static(b"data: [DONE]\n\n");
        usage.into_iter().chain([done]).collect()
    }

    fn problem(&self, problem: &Problem) -> Bytes {
        sse::event(&error_json(problem))
    }
}
