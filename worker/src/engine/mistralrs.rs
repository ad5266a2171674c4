//! mistral.rs as an engine: the only module that knows it. (WRK-2)
//!
//! It computes logits; everything else about an answer is ours. A request goes in as tokens with a
//! logits processor that chooses each token and folds it into text at once; what mistral.rs streams
//! back is drained and ignored. So its habits with text, seeds, stop strings, counts and last chunks
//! have no effect. What else it does, and what is done about it, is a list in `docs/adr/0003`.
//!
//! * [`model`] – loads it offline, from verified files
//! * [`chooser`] – the logits processor
//! * [`stream`] – its end of an answer, which is dropped to stop it

mod chooser;
mod model;
mod numerics;
mod stream;

use crate::engine::child::answer::Answer;
use crate::engine::kind::{Engine, Facts};
use crate::engine::protocol::{Generate, Load};
use crate::text::prompt::{Prompt, TextModel};
use chooser::Chooser;
use futures_util::future::BoxFuture;
use mistralrs::{Constraint, NormalRequest, Request, RequestMessage, SamplingParams};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use stream::{Outcome, Stream};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::mpsc::Sender;

/// Responses of mistral.rs that wait to be drained, which happens at once.
const RESPONSES: usize = 1_024;

/// The engine with its model.
pub(crate) struct MistralEngine {
    text: Arc<TextModel>,
    requests: Sender<Request>,
    /// Keeps the engine's thread.
    _runner: Arc<mistralrs::MistralRs>,
    next: Arc<AtomicUsize>,
    facts: Facts,
}

/// Loads the model.
pub(crate) async fn load(load: &Load) -> Result<MistralEngine, String> {
    let model::Loaded { runner, text } = model::load(load).await?;
    let requests = runner.get_sender(None).map_err(|error| error.to_string())?;
    Ok(MistralEngine {
        facts: Facts {
            context_tokens: text.context_tokens(),
            engine: numerics::ENGINE.to_owned(),
            numerics_class: numerics::class(load.format),
        },
        text: Arc::new(text),
        requests,
        _runner: runner,
        next: Arc::new(AtomicUsize::new(1)),
    })
}

impl Engine for MistralEngine {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn generate(&self, request: Generate, answer: Answer) -> BoxFuture<'static, ()> {
        let (text, requests) = (Arc::clone(&self.text), self.requests.clone());
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            if let Err(error) = generate(&text, &requests, id, request, &answer).await {
                answer.failed(error);
            }
        })
    }
}

async fn generate(
    text: &TextModel,
    requests: &Sender<Request>,
    id: usize,
    request: Generate,
    answer: &Answer,
) -> Result<(), RpcError> {
    let Generate {
        input, sampling, ..
    } = request;
    sampling
        .check()
        .map_err(|error| RpcError::new(Code::Invalid, error.to_string()))?;
    let prompt = text.prompt(&input, sampling.max_tokens)?;
    answer.started(prompt.len());
    let (responses, stream) = Stream::new(RESPONSES);
    let fold = text.answer(&prompt, &sampling);
    let chooser = Chooser::new(
        &prompt,
        text.vocabulary(),
        sampling,
        fold,
        answer.clone(),
        stream.clone(),
    );
    let request = NormalRequest {
        id,
        sampling_params: greedy(&prompt),
        messages: RequestMessage::CompletionTokens(prompt.tokens),
        response: responses,
        // A non-streaming request whose caller is gone makes the engine panic.
        is_streaming: true,
        logits_processors: Some(vec![Arc::new(chooser)]),
        return_logprobs: false,
        constraint: Constraint::None,
        suffix: None,
        tools: None,
        tool_choice: None,
        return_raw_logits: false,
        web_search_options: None,
        model_id: None,
        truncate_sequence: false,
    };
    let gone = || RpcError::new(Code::Unavailable, "the engine has stopped");
    let cancelled = answer.cancellation().clone();
    tokio::select! {
        biased;
        () = cancelled.cancelled() => return Ok(()),
        sent = requests.send(Request::Normal(Box::new(request))) => sent.map_err(|_| gone())?,
    }
    let outcome = tokio::select! {
        biased;
        () = cancelled.cancelled() => {
            stream.close();
            return Ok(());
        }
        outcome = stream.drain() => outcome,
    };
    match outcome {
        Outcome::Closed => Ok(()),
        Outcome::Failed(error) => Err(error),
        Outcome::EndedEarly => Err(RpcError::new(
            Code::Internal,
            "the engine ended the answer before its end",
        )),
    }
}

/// Parameters under which mistral.rs takes what the chooser returns as it is. Its own limit is only a
/// second one, in case the stream's end goes unnoticed.
fn greedy(prompt: &Prompt) -> SamplingParams {
    let mut params = SamplingParams::deterministic();
    params.temperature = Some(0.0);
    params.max_len = Some(prompt.max_tokens as usize);
    params
}

#[cfg(test)]
mod tests;
