//! Engine processes: this test binary runs itself again with one of these as its only test.
//!
//! They are ignored, and do nothing when they are run by hand.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::exit;
use tether_wire::infer::{Finish, Usage};
use tether_worker::engine::protocol::{FromEngine, Load, ToEngine, read_message, write_message};
use tether_worker::engine::{ENGINE_ENV, EngineCommand, child};

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
    say(
        &mut socket,
        &FromEngine::Loaded {
            context_tokens: load.context_tokens,
            engine: name(&load),
            numerics_class: "fake/1".to_owned(),
            sequences,
            max_token_bytes: Some(MAX_TOKEN_BYTES),
            load_ms: 1,
        },
    );
    socket
}

fn chunk(id: u64, position: u32) -> FromEngine {
    FromEngine::Chunk {
        id,
        position,
        tokens: vec![position],
        text: "x".to_owned(),
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

/// Answers one request at once, and only for its caller to go.
#[test]
#[ignore = "no test: other tests start it as the process of an engine"]
fn one_at_a_time() {
    if is_engine() {
        let mut socket = loaded_as(|_| "fake".to_owned(), 1);
        let mut answering = None;
        loop {
            match hear(&mut socket) {
                // More than it said that it can.
                ToEngine::Generate(_) if answering.is_some() => exit(4),
                ToEngine::Generate(generate) => {
                    let id = generate.id;
                    answering = Some(id);
                    let prompt_tokens = 5;
                    say(&mut socket, &FromEngine::Started { id, prompt_tokens });
                    say(&mut socket, &chunk(id, 0));
                }
                ToEngine::Cancel { id } if answering == Some(id) => answering = None,
                ToEngine::Ping { n } => say(&mut socket, &FromEngine::Pong { n }),
                _ => {}
            }
        }
    }
}

/// Says that it lives, and answers nothing.
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
        use std::io::Write;
        let mut socket = loaded();
        while !matches!(hear(&mut socket), ToEngine::Generate(_)) {}
        let _ = socket.write_all(&[0xff; 64]);
        loop {
            hear(&mut socket);
        }
    }
}

/// The first answer has more chunks than any reader is allowed to leave unread, and no end. Every
/// later one ends at once, and its usage tells how often the engine was told to cancel.
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
                    say(
                        &mut socket,
                        &FromEngine::Done {
                            id: generate.id,
                            finish: Finish::Stop,
                            usage: Usage {
                                prompt_tokens: 0,
                                completion_tokens: cancels,
                            },
                            prefill_ms: 0,
                            decode_ms: 0,
                        },
                    );
                }
                ToEngine::Cancel { .. } => cancels += 1,
                ToEngine::Ping { n } => say(&mut socket, &FromEngine::Pong { n }),
                ToEngine::Load(_) => exit(3),
            }
        }
    }
}
