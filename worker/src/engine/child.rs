//! The engine process: `tether engine`, started by a worker with one end of a socket pair as its
//! standard input.
//!
//! It reads which model it is to load, confines itself to that model's files, and only then looks at
//! them. One thread reads, and answers a ping at once whatever the engine does; one thread writes; the
//! engine has its own. The process ends when the socket does, or the worker.
//!
//! * `confine` – what a fault of this process may cost
//! * `outbox` – messages to the worker
//! * `answer` – one answer being given
//! * `conversation` – messages from the worker

pub(crate) mod answer;
pub(crate) mod confine;
pub(crate) mod conversation;
pub(crate) mod outbox;

use crate::device::Device;
use crate::engine::protocol::FromEngine;
use crate::sandbox;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Instant;

/// Exit status after a panic on any thread.
pub const EXIT_PANIC: u8 = 70;
/// Exit status when standard input is not the worker's socket.
pub const EXIT_NO_SOCKET: u8 = 64;

/// Environment in which a worker should start the process: the numeric libraries read these once.
#[must_use]
pub fn environment(threads: u32, device: Device) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        // Nothing here may ask a hub for files that are missing.
        ("HF_HUB_OFFLINE", "1".to_owned()),
        ("HF_HUB_DISABLE_TELEMETRY", "1".to_owned()),
    ];
    variables.extend(device.environment());
    if threads > 0 {
        variables.push(("RAYON_NUM_THREADS", threads.to_string()));
        variables.push(("TOKIO_WORKER_THREADS", threads.to_string()));
    }
    variables
}

/// Runs the engine process.
#[must_use]
pub fn run() -> ExitCode {
    confine::process();
    let socket = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(error) => {
            eprintln!("tether engine: standard input cannot be used: {error}");
            return ExitCode::from(EXIT_NO_SOCKET);
        }
    };
    if socket.peer_addr().is_err() {
        eprintln!("tether engine: this is started by a worker, with a socket as standard input");
        return ExitCode::from(EXIT_NO_SOCKET);
    }
    let mut load = match conversation::first(&socket) {
        Ok(load) => load,
        Err(status) => return status,
    };
    // While this is the only thread: namespaces and filters are made for it and whoever it starts.
    let begin = Instant::now();
    let shields = match confine::apply(&mut load) {
        Ok(shields) => shields,
        Err(reason) => return conversation::refuse(&socket, reason),
    };
    let took_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    let lacking = sandbox::lacking(&load.confine.require, &shields);
    if let Err(status) = conversation::say(&socket, &FromEngine::Confined { shields, took_us }) {
        return status;
    }
    if let Some(reason) = lacking {
        return conversation::refuse(&socket, reason);
    }
    // A load or a kernel that never returns must not keep the process after its worker is gone.
    conversation::hold(socket, load, || std::process::exit(0))
}
