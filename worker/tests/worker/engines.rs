//! Engine processes: this test binary runs itself again with one of these as its only test.
//!
//! They are ignored, and do nothing when they are run by hand.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::sync::{Arc, Mutex};
use tether_wire::infer::{Chunk, Finish, Input, Usage};
use tether_worker::engine::protocol::{FromEngine, Load, ToEngine, read_message, write_message};
use tether_worker::engine::{ENGINE_ENV, EngineCommand, child};
use tether_worker::sandbox::{Protection, Shield};

/// The command that runs an engine of this file.
pub(crate) fn command(name: &str) -> EngineCommand {
    let name = format!("engines::{name}");
    EngineCommand {
        program: std::env::current_exe().expect("this binary"),
        args: [name.as_str(), "--exact", "--ignored", "--nocapture"]
            .map(Into::into)
            .to_vec(),
    }
}

/// What the engines of this file say of their tokens.
pub(crate) const MAX_TOKEN_BYTES: u32 = 8;

fn is_engine() -> bool {
    std::env::var_os(ENGINE_ENV).is_some()
}

fn socket() -> UnixStream {
    let fd = std::io::stdin().as_fd().try_clone_to_owned();
    fd.expect("standard input").into()
}

fn say(socket: &mut UnixStream, message: &FromEngine) {
    if write_message(socket, message).is_err() {
        exit(0);
    }
}

fn hear(socket: &mut UnixStream) -> ToEngine {
    match read_message(socket) {
        Ok(Some(message)) => message,
        _ => exit(0),
    }
}

/// Loads, and returns the socket.
fn loaded() -> UnixStream {
    loaded_as(|_| "fake".to_owned(), 4)
}

/// Loads, and calls itself what `name` makes of what it was told to load.
fn loaded_as(name: impl Fn(&Load) -> String, sequences: u32) -> UnixStream {
    let mut socket = socket();
    let ToEngine::Load(load) = hear(&mut socket) else {
        exit(3)
    };
    say_loaded(&mut socket, &load, name(&load), sequences);
    socket
}

fn say_loaded(socket: &mut UnixStream, load: &Load, engine: String, sequences: u32) {
    let held = |protection| Shield {
        protection,
        enforced: true,
        by: vec!["it says so".to_owned()],
        missing: Vec::new(),
    };
    let confined = FromEngine::Confined {
        shields: Protection::ALL.map(held).to_vec(),
        took_us: 1,
    };
    say(socket, &confined);
    say(
        socket,
        &FromEngine::Loaded {
            context_tokens: load.context_tokens,
            engine,
            numerics_class: "fake/1".to_owned(),
            sequences,
            max_token_bytes: Some(MAX_TOKEN_BYTES),
            load_ms: 1,
        },
    );
}

fn chunk(id: u64, position: u32) -> FromEngine {
    FromEngine::Chunk {
        id,
        chunk: Chunk::new(position, vec![position], "x"),
    }
}

fn done(id: u64, prompt_tokens: u32, completion_tokens: u32) -> FromEngine {
    FromEngine::Done {
        id,
        finish: Finish::Stop,
        usage: Usage {
            prompt_tokens,
            completion_tokens,
        },
        prefill_ms: 0,
        decode_ms: 0,
    }
}

#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn echo() {
    if is_engine() {
        let _ = child::run();
        exit(0);
    }
}

#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn exits_at_once() {
    if is_engine() {
        exit(9);
    }
}

#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn never_loads() {
    if is_engine() {
        let mut socket = socket();
        loop {
            hear(&mut socket);
        }
    }
}

#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn fails_to_load() {
    if is_engine() {
        let mut socket = socket();
        hear(&mut socket);
        let reason = "no such architecture".to_owned();
        say(&mut socket, &FromEngine::LoadFailed { reason });
        exit(1);
    }
}

/// Aborts in the middle of an answer.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn aborts() {
    if is_engine() {
        let mut socket = loaded();
        loop {
            match hear(&mut socket) {
                ToEngine::Generate(generate) => {
                    say(&mut socket, &chunk(generate.id, 0));
                    std::process::abort();
                }
                ToEngine::Ping { n } => say(&mut socket, &FromEngine::Pong { n }),
                _ => {}
            }
        }
    }
}

/// Says that nothing keeps it from files, and would serve all the same.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn unprotected() {
    if is_engine() {
        let mut socket = socket();
        hear(&mut socket);
        let shields = vec![Shield::none(Protection::Files, "no such kernel")];
        let took_us = 1;
        say(&mut socket, &FromEngine::Confined { shields, took_us });
        loop {
            hear(&mut socket);
        }
    }
}

/// Says what keeps it in a second time, otherwise, and why it does not load at length.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn talks_on() {
    if is_engine() {
        let mut socket = socket();
        hear(&mut socket);
        let first = Shield {
            protection: Protection::Memory,
            enforced: true,
            by: vec!["it says so".to_owned()],
            missing: Vec::new(),
        };
        let second = Shield::none(Protection::Memory, "no such kernel");
        for shield in [first, second] {
            let (shields, took_us) = (vec![shield], 1);
            say(&mut socket, &FromEngine::Confined { shields, took_us });
        }
        let reason = "é".repeat(100_000);
        say(&mut socket, &FromEngine::LoadFailed { reason });
        exit(1);
    }
}

/// Loads, and then neither reads nor writes.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn hangs() {
    if is_engine() {
        let _socket = loaded();
        loop {
            std::thread::park();
        }
    }
}

/// Calls itself the files that it sees, and lives.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn lists_its_files() {
    if is_engine() {
        let files = |load: &Load| {
            let entries = std::fs::read_dir(&load.root).expect("a folder");
            let mut names: Vec<String> = entries
                .map(|entry| entry.expect("readable").file_name())
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            names.sort();
            names.join(" ")
        };
        let mut socket = loaded_as(files, 4);
        loop {
            if let ToEngine::Ping { n } = hear(&mut socket) {
                say(&mut socket, &FromEngine::Pong { n });
            }
        }
    }
}

/// A prompt at which [`grows`] takes [`GROWTH_BYTES`] of memory and keeps them.
pub(crate) const GROW: &str = "grow";
pub(crate) const GROWTH_BYTES: usize = 400 * 1024 * 1024;

/// Answers, and grows when it is asked to.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn grows() {
    if is_engine() {
        let mut socket = loaded();
        let mut kept = Vec::new();
        loop {
            match hear(&mut socket) {
                ToEngine::Generate(generate) => {
                    if matches!(&generate.task.input, Input::Text(prompt) if prompt == GROW) {
                        kept.resize(GROWTH_BYTES, 1_u8);
                    }
                    let id = generate.id;
                    let prompt_tokens = 5;
                    say(&mut socket, &FromEngine::Started { id, prompt_tokens });
                    say(&mut socket, &chunk(id, 0));
                    say(&mut socket, &done(id, prompt_tokens, 1));
                }
                ToEngine::Ping { n } => say(&mut socket, &FromEngine::Pong { n }),
                _ => {}
            }
        }
    }
}

/// A prompt that [`one_at_a_time`] answers to its end.
pub(crate) const SHORT: &str = "short";

/// Answers one request at once: to its end where the prompt is [`SHORT`], and otherwise until it is
/// cancelled. A prompt that is the path of a socket is one that it does not let go of when it is
/// cancelled: it connects there, and holds on until it is told one byte.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn one_at_a_time() {
    if is_engine() {
        let mut socket = loaded_as(|_| "fake".to_owned(), 1);
        let answering: Arc<Mutex<Option<(u64, String)>>> = Arc::default();
        loop {
            let message = hear(&mut socket);
            let mut held = answering.lock().expect("no panic");
            match message {
                // More than it said that it can.
                ToEngine::Generate(_) if held.is_some() => exit(4),
                ToEngine::Generate(generate) => {
                    let id = generate.id;
                    let Input::Text(prompt) = generate.task.input else {
                        exit(5)
                    };
                    let prompt_tokens = 5;
                    say(&mut socket, &FromEngine::Started { id, prompt_tokens });
                    say(&mut socket, &chunk(id, 0));
                    if prompt == SHORT {
                        say(&mut socket, &done(id, prompt_tokens, 1));
                    } else {
                        *held = Some((id, prompt));
                    }
                }
                ToEngine::Cancel { id } => {
                    let Some((_, prompt)) = held.clone().filter(|(held, _)| *held == id) else {
                        continue;
                    };
                    let (answering, mut socket) = (
                        Arc::clone(&answering),
                        socket.try_clone().expect("a socket"),
                    );
                    std::thread::spawn(move || {
                        if let Ok(mut told) = UnixStream::connect(prompt) {
                            let _ = told.read(&mut [0]);
                        }
                        // With the lock, so that messages do not mix.
                        let mut held = answering.lock().expect("no panic");
                        *held = None;
                        say(&mut socket, &FromEngine::Cancelled { id });
                    });
                }
                ToEngine::Ping { n } => say(&mut socket, &FromEngine::Pong { n }),
                ToEngine::Load(_) => exit(3),
            }
        }
    }
}

/// Begins an answer, connects to the socket that is its prompt, says its process number there, and does
/// what it is told: `c` gives a piece, `d` ends the answer, `x` ends the process. It gives as many
/// answers at once as its worker has slots.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn does_as_told() {
    if is_engine() {
        let mut first = socket();
        let ToEngine::Load(load) = hear(&mut first) else {
            exit(3)
        };
        say_loaded(&mut first, &load, "fake".to_owned(), load.slots);
        let said = Arc::new(Mutex::new(first.try_clone().expect("a socket")));
        loop {
            match hear(&mut first) {
                ToEngine::Generate(generate) => {
                    let (id, said) = (generate.id, said.clone());
                    let Input::Text(gate) = generate.task.input else {
                        exit(5)
                    };
                    std::thread::spawn(move || obey(id, &gate, &said));
                }
                ToEngine::Ping { n } => {
                    say(&mut said.lock().expect("no panic"), &FromEngine::Pong { n });
                }
                ToEngine::Cancel { id } => {
                    let cancelled = FromEngine::Cancelled { id };
                    say(&mut said.lock().expect("no panic"), &cancelled);
                }
                ToEngine::Load(_) => exit(3),
            }
        }
    }
}

fn obey(id: u64, gate: &str, said: &Mutex<UnixStream>) {
    let say = |message| say(&mut said.lock().expect("no panic"), &message);
    let prompt_tokens = 5;
    say(FromEngine::Started { id, prompt_tokens });
    let Ok(mut gate) = UnixStream::connect(gate) else {
        return;
    };
    let _ = gate.write_all(&std::process::id().to_le_bytes());
    let (mut word, mut position) = ([0], 0);
    while gate.read_exact(&mut word).is_ok() {
        match &word {
            b"c" => {
                say(chunk(id, position));
                position += 1;
            }
            b"d" => return say(done(id, prompt_tokens, position)),
            _ => exit(7),
        }
    }
}

/// The first process of a model loads and lives; the others never load.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn loads_alone() {
    if is_engine() {
        let mut socket = socket();
        let ToEngine::Load(load) = hear(&mut socket) else {
            exit(3)
        };
        // The view of a further process is named by its number.
        if load.root.extension().is_none() {
            say_loaded(&mut socket, &load, "fake".to_owned(), 1);
        }
        loop {
            if let ToEngine::Ping { n } = hear(&mut socket) {
                say(&mut socket, &FromEngine::Pong { n });
            }
        }
    }
}

/// Says that it lives, begins answers and neither goes on with them nor lets go of them.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn gets_stuck() {
    if is_engine() {
        let mut socket = loaded();
        loop {
            match hear(&mut socket) {
                ToEngine::Generate(generate) => say(&mut socket, &chunk(generate.id, 0)),
                ToEngine::Ping { n } => say(&mut socket, &FromEngine::Pong { n }),
                _ => {}
            }
        }
    }
}

/// Answers with bytes that are no message.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn babbles() {
    if is_engine() {
        let mut socket = loaded();
        while !matches!(hear(&mut socket), ToEngine::Generate(_)) {}
        let _ = socket.write_all(&[0xff; 64]);
        loop {
            hear(&mut socket);
        }
    }
}

/// The first answer has more chunks than any reader is allowed to leave unread, and no end. Every
/// later one ends at once, and the tokens of its prompt tell how often the engine was told to cancel.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn floods() {
    if is_engine() {
        let mut socket = loaded();
        let mut cancels = 0;
        let mut answers = 0;
        loop {
            match hear(&mut socket) {
                ToEngine::Generate(generate) => {
                    answers += 1;
                    if answers == 1 {
                        for position in 0..5_000 {
                            say(&mut socket, &chunk(generate.id, position));
                        }
                        continue;
                    }
                    say(&mut socket, &done(generate.id, cancels, 0));
                }
                ToEngine::Cancel { id } => {
                    cancels += 1;
                    say(&mut socket, &FromEngine::Cancelled { id });
                }
                ToEngine::Ping { n } => say(&mut socket, &FromEngine::Pong { n }),
                ToEngine::Load(_) => exit(3),
            }
        }
    }
}
