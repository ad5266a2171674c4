//! An engine without a model, for load tests: it says the words of the last user message.
//!
//! A token is a word with the blanks around it; its id is its place in the message. Stop strings,
//! limits and counts go through the same fold as a model's, so they are exact; so do calls of tools,
//! which it makes when it is told to say one in the way of Hermes.

use crate::engine::child::answer::{Answer, Times};
use crate::engine::kind::{Engine, Facts};
use crate::engine::protocol::{Load, Task};
use crate::fit::param;
use crate::text::calls::{CallReader, Family};
use crate::text::fold::{Detokenize, Fold, Limits};
use crate::text::prompt::fit;
use crate::text::retelling::Retelling;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tether_wire::infer::{Format, Input, Output, Speaker, TokenLogprob, TopLogprob};
use tether_wire::rpc::{Code, RpcError};

/// The engine.
#[derive(Debug)]
pub(crate) struct EchoEngine {
    context_tokens: u32,
    delay: Duration,
    slots: u32,
}

impl EchoEngine {
    pub(crate) fn new(load: &Load) -> Self {
        Self {
            context_tokens: load.context_tokens,
            delay: Duration::from_millis(load.echo_delay_ms),
            slots: load.slots,
        }
    }
}

struct Words(Vec<String>);

impl Detokenize for Words {
    fn detokenize(&self, tokens: &[u32]) -> String {
        tokens
            .iter()
            .filter_map(|token| self.0.get(*token as usize))
            .map(String::as_str)
            .collect()
    }
}

impl Words {
    /// What is said was certain.
    fn certain(&self, token: u32, top: u8) -> TokenLogprob {
        let word = self.0.get(token as usize);
        let bytes = word.map_or_else(Vec::new, |word| word.clone().into_bytes());
        let only = TopLogprob {
            token,
            logprob: 0.0,
            bytes: bytes.clone(),
        };
        TokenLogprob {
            token,
            logprob: 0.0,
            bytes,
            top: if top > 0 { vec![only] } else { Vec::new() },
        }
    }
}

/// Words with the blanks that follow them.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for piece in text.split_inclusive(char::is_whitespace) {
        match words.last_mut() {
            Some(last) if piece.trim().is_empty() => last.push_str(piece),
            _ => words.push(piece.to_owned()),
        }
    }
    words
}

/// What is said, and how many tokens the prompt has.
fn script(input: &Input) -> (Vec<String>, usize) {
    match input {
        Input::Text(text) => {
            let words = words(text);
            let len = words.len();
            (words, len)
        }
        Input::Chat(messages) => {
            let said = messages
                .iter()
                .rfind(|message| message.role == Speaker::User)
                .map(|message| words(&message.content))
                .unwrap_or_default();
            let len = messages
                .iter()
                .map(|message| words(&message.content).len())
                .sum();
            (said, len)
        }
    }
}

impl Engine for EchoEngine {
    fn facts(&self) -> Facts {
        Facts {
            context_tokens: self.context_tokens,
            engine: "echo".to_owned(),
            numerics_class: "echo/1".to_owned(),
            sequences: self.slots,
            // A token is a word, however long.
            max_token_bytes: None,
        }
    }

    fn generate(&self, task: Task, answer: Answer) -> BoxFuture<'static, ()> {
        let (context_tokens, delay) = (self.context_tokens, self.delay);
        Box::pin(async move {
            let cancelled = answer.cancellation().clone();
            tokio::select! {
                () = cancelled.cancelled() => {}
                result = echo(task, &answer, context_tokens, delay) => {
                    if let Err(error) = result {
                        answer.failed(error);
                    }
                }
            }
        })
    }
}

async fn echo(
    task: Task,
    answer: &Answer,
    context_tokens: u32,
    delay: Duration,
) -> Result<(), RpcError> {
    check(&task.output)?;
    let (words, prompt_len) = script(&task.input);
    let end = u32::try_from(words.len()).unwrap_or(u32::MAX);
    let prompt = fit(
        vec![0; prompt_len],
        task.sampling.max_tokens,
        context_tokens,
        param(&task.input),
    )?;
    let limits = Limits {
        eos: BTreeSet::from([end]),
        max_tokens: prompt.max_tokens,
        stop: task.sampling.stop.clone(),
        spelled: BTreeMap::new(),
    };
    let words = Arc::new(Words(words));
    let calls = CallReader::new(Some(Family::Hermes), &task.output, task.correlation);
    let mut fold = Fold::new(Arc::clone(&words), limits).with_calls(calls);
    let mut retelling = Retelling::default();
    for (at, token) in task.transcript.iter().enumerate() {
        let step = (*token as usize == at).then(|| fold.push(*token)).flatten();
        let Some(step) = step else {
            let why = "the transcript is not of an answer to this";
            return Err(invalid("transcript", why));
        };
        retelling.take(step.chunk);
    }
    answer.started(prompt.len());
    answer.retold(retelling.into_pieces());
    if !task.transcript.is_empty() {
        answer.replayed();
    }
    if let Some(finish) = fold.finish() {
        answer.done(finish, fold.usage(prompt.len()), Times::first_token());
        return Ok(());
    }
    let mut times: Option<Times> = None;
    for token in fold.drawn()..=end {
        if delay.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(delay).await;
        }
        times.get_or_insert_with(Times::first_token).token();
        let Some(mut step) = fold.push(token) else {
            break;
        };
        if let Some(top) = task.sampling.top_logprobs {
            step.chunk.logprobs = vec![words.certain(token, top)];
        }
        answer.chunk(step.chunk);
        if let (Some(finish), Some(times)) = (step.finish, times) {
            answer.done(finish, fold.usage(prompt.len()), times);
            break;
        }
    }
    Ok(())
}

/// It says what it is told, calls of tools too, and cannot be made to say anything else.
fn check(output: &Output) -> Result<(), RpcError> {
    let checked = output.check();
    checked.map_err(|error| RpcError::invalid(&error))?;
    if output.format != Format::Text {
        let why = "response_format: the echo engine repeats what it is told, in no other form";
        return Err(invalid("response_format", why));
    }
    if output.must_call() {
        let why =
            "tool_choice: the echo engine calls a tool when it is told to, and cannot be forced";
        return Err(invalid("tool_choice", why));
    }
    Ok(())
}

fn invalid(param: &str, why: &str) -> RpcError {
    RpcError::new(Code::Invalid, why).with_param(param)
}
