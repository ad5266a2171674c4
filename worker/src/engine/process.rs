//! One engine process: spawned, talked to, read out, and gone when this is dropped. (WRK-2)

use crate::device::Device;
use crate::engine::child;
use crate::engine::protocol::{self, FromEngine, ToEngine};
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// Set in the environment of every engine process, so that it knows what its stdin is.
pub const ENGINE_ENV: &str = "TETHER_ENGINE_PROCESS";
/// What an engine process keeps of the worker's environment: where libraries and temporary files
/// are, and nothing that could be a secret.
const KEPT_ENV: [&str; 7] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "RUST_BACKTRACE",
];
/// Messages to the engine that may wait; an engine that leaves more unread is hung.
const TO_ENGINE_MESSAGES: usize = 1_024;
/// Messages from the engine that may wait; the engine's writes block beyond.
const FROM_ENGINE_MESSAGES: usize = 16;
/// Longest line of the engine's output that is logged; the rest of it is dropped.
const MAX_LINE_BYTES: usize = 1_024;
/// How long a process may take to end by itself once its socket is closed.
const EXIT_GRACE: Duration = Duration::from_millis(500);
/// What Rust says, and then aborts, when it is refused memory.
const NO_MEMORY: &str = "memory allocation of ";

/// How an engine process is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineCommand {
    /// The program: the worker's own binary.
    pub program: PathBuf,
    /// Its arguments: the hidden subcommand.
    pub args: Vec<OsString>,
}

/// A running engine process.
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
    /// Messages as they are written.
    to: Option<mpsc::Sender<Vec<u8>>>,
    from: mpsc::Receiver<io::Result<FromEngine>>,
    /// Reads its standard error; what it was told last is in `last_line`.
    errors: AbortOnDropHandle<()>,
    last_line: LastLine,
    _tasks: [AbortOnDropHandle<()>; 3],
}

/// The last line that a process wrote to its standard error.
type LastLine = Arc<Mutex<String>>;

/// Why a message was not sent.
#[derive(Debug)]
pub(crate) enum NotSent {
    /// The engine does not read what it is sent.
    NotReading,
    /// No engine takes a message like this.
    TooLarge(io::Error),
}

impl Process {
    /// Starts one. To be called on a thread that lives as long as the process should: the engine
    /// asks the kernel to be killed with the thread that started it.
    pub(crate) fn spawn(
        command: &EngineCommand,
        model: &str,
        threads: u32,
        device: Device,
    ) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let kept = KEPT_ENV
            .iter()
            .filter_map(|name| std::env::var_os(name).map(|value| (*name, value)));
        let mut child = Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .envs(kept)
            .envs(child::environment(threads, device))
            .env(ENGINE_ENV, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C in the worker's terminal is the worker's to answer, by draining.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let (mut reader, mut writer) = tokio::net::UnixStream::from_std(ours)?.into_split();
        let (to, mut outgoing) = mpsc::channel::<Vec<u8>>(TO_ENGINE_MESSAGES);
        let (incoming, from) = mpsc::channel(FROM_ENGINE_MESSAGES);
        let write = async move {
            while let Some(message) = outgoing.recv().await {
                // A broken socket shows on the reading side too, which reports it.
                if writer.write_all(&message).await.is_err() {
                    return;
                }
            }
        };
        let read = async move {
            loop {
                let message = match protocol::receive_message(&mut reader).await {
                    Ok(Some(message)) => Ok(message),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let is_over = message.is_err();
                if incoming.send(message).await.is_err() || is_over {
                    return;
                }
            }
        };
        let stdout = child.stdout.take();
        let stderr = child.stderr.take();
        let spawn = |task| AbortOnDropHandle::new(tokio::spawn(task));
        let last_line = LastLine::default();
        Ok(Self {
            child,
            group,
            to: Some(to),
            from,
            errors: spawn(log_lines(
                stderr.map(erase),
                model.to_owned(),
                last_line.clone(),
            )),
            last_line,
            _tasks: [
                AbortOnDropHandle::new(tokio::spawn(write)),
                AbortOnDropHandle::new(tokio::spawn(read)),
                spawn(log_lines(
                    stdout.map(erase),
                    model.to_owned(),
                    LastLine::default(),
                )),
            ],
        })
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a message, without waiting.
    pub(crate) fn send(&self, message: &ToEngine) -> Result<(), NotSent> {
        let Some(to) = &self.to else { return Ok(()) };
        // Here, and not where it is written, so that who asked learns of it.
        let frame = protocol::frame(message).map_err(NotSent::TooLarge)?;
        match to.try_send(frame) {
            Err(mpsc::error::TrySendError::Full(_)) => Err(NotSent::NotReading),
            // A closed channel is the writer's end, which the reading side reports.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    /// The next message; nothing once the socket is closed. Safe to cancel.
    pub(crate) async fn recv(&mut self) -> Option<io::Result<FromEngine>> {
        self.from.recv().await
    }

    /// Ends the process, unless it ended by itself, and says how it ended. `at_once` for one that
    /// is hung; otherwise it gets a moment to see that its socket is closed.
    pub(crate) async fn end(mut self, at_once: bool) -> Exit {
        self.to = None;
        self.from.close();
        if !at_once
            && let Ok(Ok(status)) = tokio::time::timeout(EXIT_GRACE, self.child.wait()).await
        {
            return self.by_itself(status).await;
        }
        if let Ok(Some(status)) = self.child.try_wait() {
            return self.by_itself(status).await;
        }
        self.kill();
        // Not even a hung process outlives SIGKILL, but one in uninterruptible sleep is reaped
        // by the runtime later.
        let _ = tokio::time::timeout(EXIT_GRACE, self.child.wait()).await;
        Exit::Killed
    }

    /// How it ended, by its status, or by its last words where the status says too little.
    async fn by_itself(&mut self, status: ExitStatus) -> Exit {
        if status.signal() == Some(Signal::SYS.as_raw()) {
            return Exit::Forbidden;
        }
        // Its end of the pipe is closed, so that this takes as long as the reading of the rest.
        let _ = tokio::time::timeout(EXIT_GRACE, &mut self.errors).await;
        let last_line = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if status.signal() == Some(Signal::ABORT.as_raw()) && last_line.starts_with(NO_MEMORY) {
            return Exit::NoMemory;
        }
        Exit::ByItself(status)
    }

    fn kill(&mut self) {
        // `id` is there until the process was waited for, so that no other can have the number.
        if self.child.id().is_some()
            && let Some(group) = self.group
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.start_kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, or by somebody else's signal.
    ByItself(ExitStatus),
    /// The kernel ended it for a system call that its filter forbids.
    Forbidden,
    /// It was refused memory, and gave up.
    NoMemory,
    /// We killed it.
    Killed,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = match self {
            Self::ByItself(status) => status,
            Self::Killed => return f.write_str("was killed by its worker"),
            Self::Forbidden => {
                return f.write_str(
                    "was ended by signal 31 (SIGSYS) for a system call that its sandbox forbids",
                );
            }
            Self::NoMemory => {
                return f.write_str("was refused more memory by the kernel, and aborted");
            }
        };
        match (status.signal(), status.code()) {
            (Some(signal), _) => {
                let name = Signal::from_named_raw(signal).map_or("?", signal_name);
                write!(f, "was ended by signal {signal} ({name})")
            }
            (None, Some(code)) if code == i32::from(child::EXIT_PANIC) => {
                write!(f, "panicked (exit code {code})")
            }
            (None, Some(code)) => write!(f, "exited with code {code}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::ABORT => "SIGABRT",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::ILL => "SIGILL",
        Signal::INT => "SIGINT",
        Signal::KILL => "SIGKILL",
        Signal::SEGV => "SIGSEGV",
        Signal::TERM => "SIGTERM",
        _ => "?",
    }
}

type Output = Box<dyn AsyncRead + Send + Unpin>;

fn erase(output: impl AsyncRead + Send + Unpin + 'static) -> Output {
    Box::new(output)
}

/// Reads an output of the engine to its end, so that it never blocks on a full pipe, and logs it
/// line by line, each cut at [`MAX_LINE_BYTES`]. The last line is kept in `last`.
async fn log_lines(output: Option<Output>, model: String, last: LastLine) {
    let Some(mut output) = output else { return };
    let mut buffer = [0; 4_096];
    let mut line = Vec::new();
    let log_line = |line: &[u8]| {
        if !line.is_empty() {
            let line = String::from_utf8_lossy(line);
            let line = line.trim_end();
            tracing::debug!(model, line, "engine output");
            line.clone_into(&mut last.lock().unwrap_or_else(PoisonError::into_inner));
        }
    };
    loop {
        let count = match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for byte in &buffer[..count] {
            if *byte == b'\n' {
                log_line(&line);
                line.clear();
            } else if line.len() < MAX_LINE_BYTES {
                line.push(*byte);
            }
        }
    }
    log_line(&line);
}
