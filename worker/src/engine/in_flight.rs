//! The requests that an engine has. No I/O and no clock: messages and ticks in, what to tell the
//! engine out.
//!
//! A request whose reader went, or was cut off, is *leaving*: the engine was told, and may take
//! until the end of a long prompt to let go. Until it says so the request stays here, and with it
//! what it occupies.

use crate::engine::again::{self, Tries};
use crate::engine::protocol::{FromEngine, Generate, Task, brief_error};
use crate::engine::reader::{EngineDone, Occupied, Reader, Sink, Told};
use std::collections::HashMap;
use tether_wire::infer::{Chunk, PromptSize, Usage};
use tether_wire::rpc::{Code, RpcError};

/// How long a request may make no progress, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepLimits {
    pub(crate) first: u32,
    pub(crate) next: u32,
}

/// The requests that the engine has.
#[derive(Debug)]
pub(crate) struct InFlight {
    limits: StepLimits,
    /// Most tokens of prompt and answer together.
    context_tokens: u32,
    requests: HashMap<u64, Request>,
    /// Ticks since any request made progress.
    still: u32,
}

#[derive(Debug)]
struct Request {
    /// Nobody when it is leaving.
    reader: Option<Reader>,
    occupied: Occupied,
    /// What it takes to give it to another process; nothing once something of the answer was given.
    kept: Option<(Task, Tries)>,
    /// What its reader knows from another process.
    told: Told,
    /// Position of the first token that was not given before this request.
    given: u32,
    /// Most tokens that its prompt can have.
    most_prompt: u32,
    /// Most tokens that the answer may have.
    most_tokens: u32,
    /// Tokens of its prompt, when its turn came.
    prompt_tokens: Option<u32>,
    /// Signs that more of what was given was gone through; each is of one token at least.
    replayed: u32,
    /// Up to which position that was told again.
    retold: u32,
    position: u32,
    /// Ticks since it made progress; since it was told to go, when it is leaving.
    still: u32,
}

/// What follows from a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// Requests to cancel; their readers were told.
    pub(crate) cancel: Vec<u64>,
    /// The engine is stuck: no request made progress for a whole step, or it keeps what it was told
    /// to let go and has nothing else to do.
    pub(crate) is_stuck: bool,
}

impl InFlight {
    pub(crate) fn new(limits: StepLimits, context_tokens: u32) -> Self {
        Self {
            limits,
            context_tokens,
            requests: HashMap::new(),
            still: 0,
        }
    }

    /// Answers that somebody waits for.
    pub(crate) fn awaited(&self) -> usize {
        let awaited = |request: &&Request| request.reader.is_some();
        self.requests.values().filter(awaited).count()
    }

    /// Whether the engine is to be given the request: not when its reader is gone already, whose
    /// wish to cancel may have come before it.
    pub(crate) fn begin(&mut self, id: u64, task: &Task, sink: Sink) -> bool {
        if sink.is_abandoned() {
            return false;
        }
        if self.requests.is_empty() {
            self.still = 0;
        }
        let Sink {
            reader,
            occupied,
            told,
        } = sink;
        let given = task.given();
        let most_prompt = PromptSize::of(&task.input, &task.output).most_tokens();
        let request = Request {
            reader: Some(reader),
            occupied,
            kept: None,
            told,
            given,
            most_prompt: most_prompt.min(self.context_tokens),
            most_tokens: most_tokens(task, self.context_tokens),
            prompt_tokens: None,
            replayed: 0,
            retold: 0,
            position: given,
            still: 0,
        };
        self.requests.insert(id, request);
        true
    }

    /// Keeps what it takes to give a request to another process, until something of the answer is
    /// given.
    pub(super) fn keep(&mut self, id: u64, task: Task, tries: Tries) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.kept = Some((task, tries));
        }
    }

    /// The engine could not be given the request, and never heard of it.
    pub(crate) fn refuse(&mut self, id: u64, error: RpcError) {
        self.end(id, Err(error));
    }

    /// The reader is gone. Whether the engine has to be told.
    pub(crate) fn leave(&mut self, id: u64) -> bool {
        let request = self.requests.get_mut(&id);
        request.and_then(Request::leave).is_some()
    }

    /// The engine said something. Returns a request to cancel.
    pub(crate) fn on_message(&mut self, message: FromEngine) -> Option<u64> {
        match message {
            FromEngine::Started { id, prompt_tokens } => {
                let request = self.requests.get_mut(&id)?;
                if request.prompt_tokens.is_some() {
                    return None;
                }
                let believed = request.believe(prompt_tokens);
                if believed.is_ok()
                    && let Some(begun) = request.begun()
                {
                    // Who is gone needs no news.
                    let _ = begun.send(prompt_tokens);
                }
                let cut_off = request.cut_off(id, believed);
                self.progress(id);
                cut_off
            }
            FromEngine::Replayed { id } => {
                let request = self.requests.get_mut(&id)?;
                if request.replayed < request.given {
                    request.replayed += 1;
                    self.progress(id);
                }
                None
            }
            FromEngine::Retold { id, chunk } => self.piece(id, chunk, Request::retell),
            FromEngine::Chunk { id, chunk } => self.piece(id, chunk, Request::deliver),
            FromEngine::Done {
                id,
                finish,
                usage,
                prefill_ms,
                decode_ms,
            } => {
                let done = EngineDone {
                    finish,
                    usage,
                    prefill_ms,
                    decode_ms,
                };
                let settled = self.requests.get_mut(&id)?.settle(usage);
                self.end(id, settled.map(|()| done));
                None
            }
            FromEngine::Failed { id, error } => {
                self.end(id, Err(brief_error(error)));
                None
            }
            FromEngine::Cancelled { id } => {
                // Who was told to go has no reader any more that could hear this.
                let unasked = "the engine gave the answer up, and nobody asked it to";
                self.end(id, Err(RpcError::new(Code::Internal, unasked)));
                None
            }
            FromEngine::Confined { .. }
            | FromEngine::Loaded { .. }
            | FromEngine::LoadFailed { .. }
            | FromEngine::AdapterUnfit { .. }
            | FromEngine::Pong { .. } => None,
        }
    }

    /// A piece came. Only new positions are progress: there are only so many of them.
    fn piece(
        &mut self,
        id: u64,
        chunk: Chunk,
        pass: impl FnOnce(&mut Request, Chunk) -> Result<(), RpcError>,
    ) -> Option<u64> {
        let request = self.requests.get_mut(&id)?;
        // Whoever waits for the turn must read now.
        request.begun();
        let is_new = chunk.positions() != Some(0);
        let passed = pass(request, chunk);
        let is_progress = is_new && passed.is_ok();
        let cut_off = request.cut_off(id, passed);
        if is_progress {
            self.progress(id);
        } else if cut_off.is_some() {
            // It has time to let go.
            self.still = 0;
        }
        cut_off
    }

    fn progress(&mut self, id: u64) {
        self.still = 0;
        // A piece that crossed the order to go is no sign that it is obeyed.
        if let Some(request) = self.requests.get_mut(&id)
            && request.reader.is_some()
        {
            request.still = 0;
        }
    }

    /// The engine let go of it.
    fn end(&mut self, id: u64, end: Result<EngineDone, RpcError>) {
        if let Some(request) = self.requests.remove(&id) {
            let Request {
                reader, occupied, ..
            } = request;
            self.still = 0;
            // First, so that who learns of the end finds the place free.
            drop(occupied);
            if let Some(reader) = reader {
                reader.end(end);
            }
        }
    }

    /// Time goes by.
    pub(crate) fn tick(&mut self) -> Overdue {
        if self.requests.is_empty() {
            self.still = 0;
            return Overdue::default();
        }
        self.still += 1;
        let is_awaited = self.awaited() > 0;
        let mut overdue = Overdue::default();
        for (id, request) in &mut self.requests {
            request.still += 1;
            let limit = self.limits.of(request.position == request.given);
            let is_late = request.still > limit;
            let is_leaving = request.reader.is_none();
            let is_still = self.still > limit;
            overdue.is_stuck |= if is_leaving {
                // Nobody loses anything when an engine ends that only keeps what it should not.
                is_still || (is_late && !is_awaited)
            } else {
                is_late && is_still
            };
            if is_late && let Some(reader) = request.leave() {
                overdue.cancel.push(*id);
                reader.end(Err(RpcError::new(
                    Code::Unavailable,
                    "the engine made no progress with this answer in time",
                )));
            }
        }
        overdue
    }

    /// The engine is gone, and with it every request; another may have those that come back.
    pub(super) fn over(self, error: &RpcError) -> Vec<again::Request> {
        let requests = self.requests.into_iter();
        requests
            .filter_map(|(id, request)| request.over(id, error))
            .collect()
    }

    /// The engine is gone, and with it every request.
    pub(crate) fn fail_all(self, error: &RpcError) {
        for request in self.over(error) {
            request.sink.fail(error.clone());
        }
    }
}

impl Request {
    /// Its process is gone: what another may have of it, or its end.
    fn over(self, id: u64, error: &RpcError) -> Option<again::Request> {
        let reader = self.reader?;
        let Some((task, tries)) = self.kept else {
            drop(self.occupied);
            reader.end(Err(error.clone()));
            return None;
        };
        let told = Told {
            prompt_tokens: self.prompt_tokens.or(self.told.prompt_tokens),
            retold: self.retold.max(self.told.retold),
        };
        let sink = Sink {
            reader,
            occupied: self.occupied,
            told,
        };
        Some(again::Request {
            generate: Generate { id, task },
            sink,
            tries,
        })
    }

    /// Who is to be told why, unless it is leaving already.
    fn leave(&mut self) -> Option<Reader> {
        let reader = self.reader.take()?;
        self.still = 0;
        self.occupied.leaving();
        Some(reader)
    }

    fn begun(&mut self) -> Option<tokio::sync::oneshot::Sender<u32>> {
        self.reader.as_mut()?.begun.take()
    }

    /// Tells the reader that there can be no more pieces, and why. Returns what to cancel.
    fn cut_off(&mut self, id: u64, passed_on: Result<(), RpcError>) -> Option<u64> {
        let error = passed_on.err()?;
        self.leave()?.end(Err(error));
        Some(id)
    }

    /// Passes a piece of what was given already on.
    fn retell(&mut self, chunk: Chunk) -> Result<(), RpcError> {
        let next = follow(self.retold, &chunk)?;
        if next > self.given {
            let why = "the engine tells more again than was given";
            return Err(RpcError::new(Code::Internal, why));
        }
        if next == self.retold {
            let why = "the engine tells again what is none of what was given";
            return Err(RpcError::new(Code::Internal, why));
        }
        self.retold = next;
        if next <= self.told.retold {
            return Ok(());
        }
        if chunk.position < self.told.retold {
            let why = "the engine tells again in other pieces than another process of it did";
            return Err(RpcError::new(Code::Internal, why));
        }
        self.pass_on(chunk)
    }

    /// Passes a new piece on; an error is why there can be no more of them.
    fn deliver(&mut self, chunk: Chunk) -> Result<(), RpcError> {
        if chunk.positions() == Some(0) && chunk.text.is_empty() && chunk.calls.is_empty() {
            let why = "the engine made an empty piece";
            return Err(RpcError::new(Code::Internal, why));
        }
        self.position = follow(self.position, &chunk)?;
        self.kept = None;
        if self.position > self.most_tokens {
            let most = self.most_tokens;
            let why = format!("the engine gives more than the {most} tokens that there can be");
            return Err(RpcError::new(Code::Internal, why));
        }
        self.pass_on(chunk)
    }

    /// Takes what the engine says of the prompt. Tenants are billed by it.
    fn believe(&mut self, prompt_tokens: u32) -> Result<(), RpcError> {
        self.prompt_tokens = Some(prompt_tokens);
        if prompt_tokens > self.most_prompt {
            let most = self.most_prompt;
            let why = format!(
                "the engine counts {prompt_tokens} tokens of a prompt that can have {most} at most"
            );
            return Err(RpcError::new(Code::Internal, why));
        }
        if let Some(told) = self.told.prompt_tokens.filter(|it| *it != prompt_tokens) {
            let why = format!(
                "the engine counts {prompt_tokens} tokens of a prompt of which another process of it \
                 counted {told}"
            );
            return Err(RpcError::new(Code::Internal, why));
        }
        Ok(())
    }

    /// Holds the counts of a whole answer against what was seen of it.
    fn settle(&mut self, usage: Usage) -> Result<(), RpcError> {
        let said = self.prompt_tokens.unwrap_or(usage.prompt_tokens);
        self.believe(usage.prompt_tokens)?;
        let (counted, seen) = (usage.completion_tokens, self.position);
        if said != usage.prompt_tokens || counted != seen {
            let why = "the engine's counts at the end are not those that it said and gave before";
            return Err(RpcError::new(Code::Internal, why));
        }
        Ok(())
    }

    fn pass_on(&self, chunk: Chunk) -> Result<(), RpcError> {
        self.reader
            .as_ref()
            .map_or(Ok(()), |reader| reader.give(chunk))
    }
}

/// Most tokens that the answer to a task may have.
pub(super) fn most_tokens(task: &Task, context_tokens: u32) -> u32 {
    let max_tokens = task.sampling.max_tokens.unwrap_or(u32::MAX);
    max_tokens.min(context_tokens)
}

/// The position behind a piece, which must come next.
fn follow(expected: u32, chunk: &Chunk) -> Result<u32, RpcError> {
    if chunk.position != expected {
        let position = chunk.position;
        return Err(RpcError::new(
            Code::Internal,
            format!("the engine skipped from token {expected} to {position} of its answer"),
        ));
    }
    Ok(expected.saturating_add(chunk.positions().unwrap_or(u32::MAX)))
}

impl StepLimits {
    fn of(self, is_first: bool) -> u32 {
        if is_first { self.first } else { self.next }
    }
}

#[cfg(test)]
mod tests;
