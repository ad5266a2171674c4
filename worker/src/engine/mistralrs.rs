//! mistral.rs as an engine: the only module that knows it. (WRK-2)
//!
//! It computes logits; everything else about an answer is ours. A request goes in as tokens with a
//! logits processor that chooses each token and folds it into text at once; what mistral.rs streams
//! back is drained and ignored. So most of its habits have no effect, and the others are met:
//!
//! | mistral.rs 0.8.1 | here | shown by |
//! |---|---|---|
//! | grows its cache by 512 tokens, and fails over the model's context | a whole number of 512 | `the_cache_never_grows_over_the_models_context` |
//! | panics when the caller of a non-streaming request is gone | always streams | `a_cancelled_answer_stops_and_its_neighbours_and_successors_do_not` |
//! | every sequence stalls behind one stream that is not read | drained at once; the outbox never waits | `a_reader_that_pauses_loses_nothing_and_stalls_nobody` |
//! | mixes the sequences of a batch when decoding on the CPU, and batches equal lengths only | one sequence at a time | `answers_given_at_once_are_those_given_alone`, `a_turn_begins_when_the_one_before_has_ended` |
//! | a forward pass over the context fails the whole batch | `max_tokens` is clamped to the context | `the_context_is_never_overrun` |
//! | no last chunk when the last token is part of a character | the fold ended the answer before | `every_chunk_is_whole_characters_whatever_the_model_draws` |
//! | `max_len` 0 and 1 give two tokens; stop tokens may be refused | the fold cuts, and the logits processor fails | `max_tokens_and_stop_strings_end_an_answer_exactly` |
//! | ignores `logits_bias` | [`crate::text::sampler`] | `bias_and_parameters_reach_the_model` |
//! | no seed of a request | noise by (seed, position) | `one_seed_gives_one_answer_a_hundred_times_alone_and_beside_others` |
//! | accepts any temperature, NaN, empty prompts | checked before | `parameters_that_cannot_be_never_reach_the_model` |
//! | a schema may loop on white space | our own grammar, with fixed white space | `an_answer_has_its_form_whatever_the_model_would_have_said` |
//! | a grammar and penalties begin afresh at a seam | ours, fed with the transcript | `an_answer_goes_on_from_every_position_as_it_would_have` |
//! | a prompt of a single embedding panics | prompts of one token work | `the_context_is_never_overrun` |
//! | cached prefixes change shapes, and with them the last bits | the prefix cache is off | `an_answer_goes_on_from_every_position_as_it_would_have` |
//! | asks the hub for files that are missing | files and absolute paths are checked before | `what_is_missing_is_named_and_never_asked_for_elsewhere` |
//! | chooses from rows that are no token, and panics decoding them | the sampler sees the vocabulary only | `rows_beyond_the_vocabulary_are_never_drawn` |
//! | aborts on flipped bits of a GGUF file | the digest comes first; a process each | `each_damaged_artifact_is_a_fault_of_its_own_and_the_good_one_is_served` |
//! | panics on a malformed `tokenizer.json`, leaves the engine half alive | a panic ends the process | `an_engine_that_aborts_takes_only_its_own_answers_with_it` |
//! | unloading panics, poisons the engine or keeps memory | the process ends | `no_process_outlives_its_engine` |
//! | a base that is loaded after an adapter has parts of it | one process for each (base, adapter) | `a_base_is_never_touched_by_its_adapters` |
//! | reads adapters from a hub's cache only, and leaves out what it cannot add | [`adapter`] | `an_adapters_answers_are_those_of_merged_weights`, `an_adapter_that_does_not_fit_is_refused_by_name` |
//!
//! * [`model`] – loads it offline, from verified files
//! * [`adapter`] – a LoRA adapter over its base
//! * [`chooser`] – the logits processor
//! * [`alone`] – nothing but mistral.rs, to be held against

mod adapter;
pub mod alone;
mod chooser;
mod model;
mod numerics;

use crate::device::Device;
use crate::engine::child::answer::{Answer, Times};
use crate::engine::kind::{Engine, Facts, LoadError};
use crate::engine::protocol::{Continuation, Load, Task};
use crate::engine::turns::{Turn, Turns};
use crate::text::answering::Answering;
use crate::text::calls::must_follow;
use crate::text::prompt::{Prompt, TextModel};
use crate::text::tokenizer::TextTokenizer;
use chooser::Chooser;
use futures_util::future::BoxFuture;
use mistralrs::{Constraint, NormalRequest, Request, RequestMessage, Response, SamplingParams};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tether_wire::infer::Format;
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Responses of mistral.rs that wait to be drained, which happens at once.
const RESPONSES: usize = 1_024;
/// Prompts that are rendered and counted at once, on a thread beside the engine's own: a long one
/// takes a while, of which nobody who is being answered should notice anything.
const COUNTING: usize = 1;

/// Prompts with a grammar that are rendered, counted and compiled at once, apart from the others: a
/// grammar takes longer than any prompt, and holds up only who wants one.
const COMPILING: usize = 1;

/// The engine with its model.
pub(crate) struct MistralEngine(Arc<Inner>);

/// An answer before its turn.
struct Begun {
    prompt: Prompt,
    answering: Answering<Arc<TextTokenizer>>,
    /// Tokens that were given already.
    transcript: Vec<u32>,
}

struct Inner {
    text: TextModel,
    continuation: Continuation,
    requests: Sender<Request>,
    /// Keeps the engine's thread.
    _runner: Arc<mistralrs::MistralRs>,
    turns: Turns,
    counting: Arc<Semaphore>,
    compiling: Arc<Semaphore>,
    next: AtomicUsize,
    facts: Facts,
}

/// Loads the model.
pub(crate) async fn load(load: &Load) -> Result<MistralEngine, LoadError> {
    let sequences = sequences(load)?;
    let model::Loaded { runner, text } = model::load(load).await?;
    let requests = runner.get_sender(None).map_err(|error| error.to_string())?;
    Ok(MistralEngine(Arc::new(Inner {
        facts: Facts {
            context_tokens: text.context_tokens(),
            engine: numerics::ENGINE.to_owned(),
            numerics_class: numerics::class(load),
            sequences: load.compute.sequences,
            max_token_bytes: Some(text.max_token_bytes()),
        },
        text,
        continuation: load.continuation,
        requests,
        _runner: runner,
        turns: Turns::new(sequences),
        counting: Arc::new(Semaphore::new(COUNTING)),
        compiling: Arc::new(Semaphore::new(COMPILING)),
        next: AtomicUsize::new(1),
    })))
}

/// Sequences in mistral.rs at once. Its attention kernel for decoding on the CPU
/// (`flash_attn_cpu_single_q`) keeps one scratch space for all sequences of a batch, so that each of
/// them is given the last one's attention: answers of different callers mix. Requests of equal length
/// are always batched, and nothing can be set against it, so there is only ever one.
fn sequences(load: &Load) -> Result<usize, String> {
    match (load.compute.device, load.compute.sequences) {
        (_, 0) => Err("an engine gives at least one answer at once".to_owned()),
        (Device::Cpu, 2..) => {
            Err("on the CPU this engine mixes the answers of a batch: one at once".to_owned())
        }
        (_, count) => usize::try_from(count).map_err(|error| error.to_string()),
    }
}

impl Engine for MistralEngine {
    fn facts(&self) -> Facts {
        self.0.facts.clone()
    }

    fn generate(&self, task: Task, answer: Answer) -> BoxFuture<'static, ()> {
        let inner = Arc::clone(&self.0);
        Box::pin(async move {
            if let Err(error) = inner.generate(task, &answer).await {
                answer.failed(error);
            }
        })
    }
}

impl Inner {
    async fn generate(self: &Arc<Self>, task: Task, answer: &Answer) -> Result<(), RpcError> {
        for checked in [task.sampling.check(), task.output.check()] {
            checked.map_err(|error| RpcError::invalid(&error))?;
        }
        let Some(begun) = self.begin(task, answer).await else {
            return Ok(());
        };
        let Begun {
            prompt,
            mut answering,
            mut transcript,
        } = begun?;
        // Held until the sequence is gone from the engine, also when the answer is cancelled.
        let Some(_turn) = self.turn(answer, !transcript.is_empty()).await else {
            return Ok(());
        };
        answer.started(prompt.len());
        answer.retold(answering.retelling());
        if let Some(finish) = answering.finish() {
            // Whole before it came here.
            let usage = answering.usage(prompt.len());
            answer.done(finish, usage, Times::first_token());
            return Ok(());
        }
        let mut given = prompt.tokens.clone();
        if self.continuation == Continuation::Prefill {
            given.append(&mut transcript);
        }
        let left = prompt.max_tokens - answering.drawn() + transcript.len() as u32;
        let tokenizer = self.text.tokenizer();
        let chooser = Chooser::new(&prompt, transcript, tokenizer, answering, answer.clone());
        let chooser = Arc::new(chooser);
        let (responses, receiver) = channel(RESPONSES);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = request_of(id, given, left, Arc::clone(&chooser), responses);
        if self
            .requests
            .send(Request::Normal(Box::new(request)))
            .await
            .is_err()
        {
            return Err(RpcError::new(Code::Unavailable, "the engine has stopped"));
        }
        let failure = drain(receiver).await;
        if chooser.is_over() {
            return Ok(());
        }
        Err(failure.unwrap_or_else(|| {
            RpcError::new(Code::Internal, "the engine ended the answer before its end")
        }))
    }

    /// Renders, counts, compiles a grammar and goes through what was given already; nothing when
    /// cancelled meanwhile.
    async fn begin(
        self: &Arc<Self>,
        task: Task,
        answer: &Answer,
    ) -> Option<Result<Begun, RpcError>> {
        let inner = Arc::clone(self);
        let counted = async move {
            let has_grammar = task.output.format != Format::Text || must_follow(&task.output);
            let turns = match has_grammar {
                true => &inner.compiling,
                false => &inner.counting,
            };
            let permit = Arc::clone(turns).acquire_owned().await;
            let count = tokio::task::spawn_blocking(move || {
                // Given back when it is done, also when nobody waits for it any more.
                let _permit = permit;
                let (input, output) = (&task.input, &task.output);
                let text = &inner.text;
                let prompt = text.prompt_for(input, output, task.sampling.max_tokens)?;
                Ok(Begun {
                    answering: text.answer(&prompt, &task)?,
                    prompt,
                    transcript: task.transcript,
                })
            });
            count
                .await
                .unwrap_or_else(|error| Err(RpcError::new(Code::Internal, error.to_string())))
        };
        tokio::select! {
            biased;
            () = answer.cancellation().cancelled() => None,
            begun = counted => Some(begun),
        }
    }

    /// Waits for a place in the engine; nothing when cancelled meanwhile.
    async fn turn(&self, answer: &Answer, goes_on: bool) -> Option<Turn> {
        tokio::select! {
            biased;
            () = answer.cancellation().cancelled() => None,
            turn = self.turns.next(goes_on) => Some(turn),
        }
    }
}

fn request_of(
    id: usize,
    given: Vec<u32>,
    left: u32,
    chooser: Arc<Chooser>,
    response: Sender<Response>,
) -> NormalRequest {
    NormalRequest {
        id,
        sampling_params: greedy(left),
        messages: RequestMessage::CompletionTokens(given),
        response,
        // A non-streaming request whose caller is gone makes the engine panic.
        is_streaming: true,
        logits_processors: Some(vec![chooser]),
        return_logprobs: false,
        constraint: Constraint::None,
        suffix: None,
        tools: None,
        tool_choice: None,
        return_raw_logits: false,
        web_search_options: None,
        model_id: None,
        truncate_sequence: false,
    }
}

/// Parameters under which mistral.rs takes what the chooser returns as it is. Its own limit is only a
/// second one.
fn greedy(left: u32) -> SamplingParams {
    let mut params = SamplingParams::deterministic();
    params.temperature = Some(0.0);
    params.max_len = Some(left as usize);
    params
}

/// Reads until every sender is dropped, which is when the sequence is gone; the first failure is kept.
async fn drain(mut responses: Receiver<Response>) -> Option<RpcError> {
    let mut failure = None;
    while let Some(response) = responses.recv().await {
        let failed = match response {
            Response::InternalError(error) => Some((Code::Internal, error.to_string())),
            Response::ValidationError(error) => Some((Code::Invalid, error.to_string())),
            Response::ModelError(error, _) | Response::CompletionModelError(error, _) => {
                Some((Code::Internal, error))
            }
            _ => None,
        };
        if failure.is_none() {
            failure = failed.map(|(code, why)| RpcError::new(code, why));
        }
    }
    failure
}

#[cfg(test)]
mod tests;
