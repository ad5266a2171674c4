//! The conversation with the worker, from the first message to the end of the socket.
//!
//! The first message is read and answered on the caller's thread, before there is any other.

use super::answer::Answer;
use super::outbox::Outbox;
use crate::engine::kind::{Engine, LoadError, load};
use crate::engine::protocol::{
    FromEngine, Generate, Load, ToEngine, brief, read_message, write_message,
};
use std::collections::HashMap;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tether_wire::rpc::{Code, RpcError};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// Most answers at once, whatever the slots are: the worker counts slots, this guards the process.
pub(crate) const MAX_ANSWERS: usize = 1_024;
/// Most messages of the worker that wait, while the model is loading.
const MAX_WAITING: usize = 4 * MAX_ANSWERS;

/// Waits for the message that says what to load, and answers pings until then; otherwise how the
/// process ends.
pub(crate) fn first(mut socket: &UnixStream) -> Result<Load, ExitCode> {
    loop {
        match read_message(&mut socket) {
            Ok(Some(ToEngine::Load(load))) => return Ok(load),
            Ok(Some(ToEngine::Ping { n })) => say(socket, &FromEngine::Pong { n })?,
            Ok(None) => return Err(ExitCode::SUCCESS),
            Ok(Some(_)) => {
                let reason = "the first message must say which model to load".to_owned();
                return Err(refuse(socket, reason));
            }
            Err(error) => {
                eprintln!("tether engine: the worker's messages cannot be read: {error}");
                return Err(ExitCode::FAILURE);
            }
        }
    }
}

/// Says something before the conversation begins; otherwise how the process ends.
pub(crate) fn say(mut socket: &UnixStream, message: &FromEngine) -> Result<(), ExitCode> {
    // Whoever does not hear it is gone.
    write_message(&mut socket, message).map_err(|_| ExitCode::SUCCESS)
}

/// Says why nothing is loaded, and how the process ends.
pub(crate) fn refuse(socket: &UnixStream, reason: String) -> ExitCode {
    let reason = brief(reason);
    match say(socket, &FromEngine::LoadFailed { reason }) {
        Ok(()) => ExitCode::FAILURE,
        Err(status) => status,
    }
}

/// Loads, and talks until the socket ends. `on_end` is called then, on a thread that never waits for
/// the engine.
pub(crate) fn hold(
    socket: UnixStream,
    load: Load,
    on_end: impl FnOnce() + Send + 'static,
) -> ExitCode {
    let parts = || -> std::io::Result<_> {
        let (outbox, writer) = Outbox::start(socket.try_clone()?)?;
        let (forward, messages) = sync_channel(MAX_WAITING);
        let (pongs, reading) = (outbox.clone(), socket.try_clone()?);
        let refused = Arc::new(AtomicBool::new(false));
        let was_refused = Arc::clone(&refused);
        std::thread::Builder::new()
            .name("engine-read".to_owned())
            .spawn(move || {
                read_all(reading, &pongs, &forward);
                if !was_refused.load(Ordering::Relaxed) {
                    on_end();
                }
            })?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("engine")
            .enable_all()
            .build()?;
        Ok((outbox, writer, messages, runtime, refused))
    };
    match parts() {
        Ok((outbox, writer, messages, runtime, refused)) => {
            let status = converse(&runtime, &outbox, &messages, &load);
            runtime.shutdown_background();
            if status == ExitCode::FAILURE {
                // The reason must be written before the process ends.
                refused.store(true, Ordering::Relaxed);
                outbox.finish();
                let _ = writer.join();
                let _ = socket.shutdown(Shutdown::Both);
            }
            status
        }
        Err(error) => {
            eprintln!("tether engine: cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Answers pings, and hands everything else on. Returns when the worker is gone, or stopped reading.
fn read_all(mut socket: UnixStream, outbox: &Outbox, forward: &SyncSender<ToEngine>) {
    loop {
        match read_message(&mut socket) {
            Ok(Some(ToEngine::Ping { n })) => outbox.send(FromEngine::Pong { n }),
            Ok(Some(message)) => {
                if forward.send(message).is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => {
                eprintln!("tether engine: the worker's messages cannot be read: {error}");
                return;
            }
        }
        if outbox.has_lost() {
            eprintln!("tether engine: messages to the worker were lost");
            return;
        }
    }
}

fn converse(
    runtime: &Runtime,
    outbox: &Outbox,
    messages: &Receiver<ToEngine>,
    load: &Load,
) -> ExitCode {
    let engine = match loaded(runtime, outbox, load) {
        Ok(engine) => engine,
        Err(error) => {
            outbox.send(match error {
                LoadError::Failed(reason) => FromEngine::LoadFailed {
                    reason: brief(reason),
                },
                LoadError::AdapterUnfit(reason) => FromEngine::AdapterUnfit {
                    reason: brief(reason),
                },
            });
            return ExitCode::FAILURE;
        }
    };
    let answers = Answers::default();
    while let Ok(message) = messages.recv() {
        match message {
            ToEngine::Generate(request) => {
                begin(runtime, outbox, &engine, &answers, request);
            }
            ToEngine::Cancel { id } => answers.cancel(id),
            ToEngine::Load(_) => eprintln!("tether engine: a second model was refused"),
            ToEngine::Ping { .. } => {}
        }
    }
    ExitCode::SUCCESS
}

fn loaded(
    runtime: &Runtime,
    outbox: &Outbox,
    request: &Load,
) -> Result<Arc<dyn Engine>, LoadError> {
    let began = Instant::now();
    let engine = runtime.block_on(load(request))?;
    let facts = engine.facts();
    outbox.send(FromEngine::Loaded {
        context_tokens: facts.context_tokens,
        engine: facts.engine,
        numerics_class: facts.numerics_class,
        sequences: facts.sequences,
        max_token_bytes: facts.max_token_bytes,
        load_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    Ok(engine)
}

fn begin(
    runtime: &Runtime,
    outbox: &Outbox,
    engine: &Arc<dyn Engine>,
    answers: &Answers,
    request: Generate,
) {
    let answer = Answer::new(request.id, outbox.clone());
    if let Err(error) = answers.add(request.id, answer.cancellation().clone()) {
        answer.failed(error);
        return;
    }
    let engine = Arc::clone(engine);
    let answers = answers.clone();
    runtime.spawn(async move {
        let id = request.id;
        engine.generate(request.task, answer.clone()).await;
        answers.remove(id);
        answer.close();
    });
}

/// The answers being given, until the engine let go of them.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<HashMap<u64, CancellationToken>>>);

impl Answers {
    fn with<T>(&self, change: impl FnOnce(&mut HashMap<u64, CancellationToken>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, id: u64, token: CancellationToken) -> Result<(), RpcError> {
        self.with(|answers| {
            if answers.len() >= MAX_ANSWERS {
                let message = format!("the engine gives {MAX_ANSWERS} answers already");
                return Err(RpcError::new(Code::Overloaded, message));
            }
            if answers.contains_key(&id) {
                let message = format!("answer {id} is being given already");
                return Err(RpcError::new(Code::Internal, message));
            }
            answers.insert(id, token);
            Ok(())
        })
    }

    fn cancel(&self, id: u64) {
        // One that has ended said so itself.
        self.with(|answers| {
            if let Some(token) = answers.get(&id) {
                token.cancel();
            }
        });
    }

    fn remove(&self, id: u64) {
        self.with(|answers| answers.remove(&id));
    }
}

#[cfg(test)]
pub(crate) mod client;
#[cfg(test)]
mod tests;
