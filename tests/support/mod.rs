//! For scenarios over real processes: starts the built `tether`, reads what it says, ends it.
//!
//! # How to use it
//!
//! A scenario is a file `tests/NAME.rs`, with an entry in `crates/tether/Cargo.toml` so that it is
//! built beside the binary:
//!
//! ```toml
//! [[test]]
//! name = "NAME"
//! path = "../../tests/NAME.rs"
//! ```
//!
//! ```ignore
//! mod support;
//! use support::{Mesh, eventually};
//!
//! #[test]
//! fn a_prompt_is_answered() {
//!     let mesh = Mesh::start(&["--workers", "2"]);      // `tether up --json`, ports 0, own data folder
//!     let reply = mesh.chat("What is the capital of France?");
//!     assert_eq!(reply.status, 200);
//!     let worker = mesh.ready["workers"][0]["id"].clone(); // the ready line, as JSON
//!     eventually("both workers are back", || mesh.routable() == 2);
//!     mesh.stop();                                       // SIGTERM, waits; drop kills instead
//! }
//! ```
//!
//! Other processes: [`Tether`] runs a command to its end, [`Process`] one that says it is ready in
//! a line of JSON. HTTP: [`get`], [`post`], [`Reply`]. Everything blocks; [`eventually`] waits for
//! an event with [`PATIENCE`] as a guard against hanging, never as a measure.
//!
//! When a scenario panics, the logs of its mesh are printed.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each scenario uses a part of it"
)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long to wait for an event before the scenario is given up. A guard only: machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The same for the start of a whole mesh, which loads models with unoptimised code.
pub const START_PATIENCE: Duration = Duration::from_secs(180);

/// The built binary.
pub fn tether() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_tether"))
}

/// Root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository is there")
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < PATIENCE,
            "still not after {} s: {what}",
            PATIENCE.as_secs()
        );
        // Polling for an event of another process; nothing depends on this time.
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Says that the scenario is left out for want of something that `ops/ci/setup` installs, past the
/// test harness, which hides what passing tests print. With `TETHER_TEST_REQUIRE=all` it fails instead.
#[track_caller]
pub fn skip(missing: &str) {
    let required = std::env::var("TETHER_TEST_REQUIRE").as_deref() == Ok("all");
    assert!(!required, "required by TETHER_TEST_REQUIRE=all: {missing}");
    let _ = writeln!(std::io::stderr(), "skipped {}: {missing}", scenario());
}

/// Says that the scenario is not run because this machine's kernel lacks something, which nothing
/// can install: never a failure, and always told by name.
pub fn not_run(lacks: &str) {
    let name = scenario();
    let _ = writeln!(std::io::stderr(), "not run {name}: {lacks}");
}

fn scenario() -> String {
    std::thread::current().name().unwrap_or("test").to_owned()
}

/// Runs `tether` with these arguments to its end.
pub struct Tether;

impl Tether {
    /// Its output, whatever its exit code.
    pub fn output(args: &[&str]) -> Output {
        Command::new(tether())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs")
    }

    /// Its standard output, without the line's end; it must succeed.
    #[track_caller]
    pub fn ok(args: &[&str]) -> String {
        let output = Self::output(args);
        assert!(
            output.status.success(),
            "tether {args:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout)
            .expect("UTF-8")
            .trim_end()
            .to_owned()
    }
}

/// A process that runs until it is stopped, and prints one line of JSON when it is ready.
pub struct Process {
    child: Child,
    /// What it said.
    pub ready: Value,
    stderr: PathBuf,
}

impl Process {
    /// Starts a command; what it logs goes to `stderr`.
    #[track_caller]
    pub fn start(mut command: Command, stderr: &Path) -> Self {
        let log = std::fs::File::create(stderr).expect("a log file");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut this = Self {
            child,
            ready: Value::Null,
            stderr: stderr.to_owned(),
        };
        match lines.recv_timeout(START_PATIENCE) {
            Ok(line) => {
                this.ready = serde_json::from_str(&line).expect("one line of JSON");
                assert_eq!(this.ready["event"], "ready", "{line}");
            }
            Err(_) => panic!("it did not say that it is ready: {}", this.log()),
        }
        this
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// SIGTERM, and its exit code; `None` if a signal ended it.
    pub fn stop(mut self) -> Option<i32> {
        signal(self.pid(), "TERM");
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "it does not stop: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// SIGKILL, without a chance to say goodbye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of process {} ---\n{}", self.pid(), self.log());
        }
        self.kill();
    }
}

/// A whole mesh: `tether up --json` on free ports in a data folder of its own.
pub struct Mesh {
    process: Option<Process>,
    /// The ready line. The process ids of workers in it are those at the start: see
    /// [`Mesh::workers`] for the current ones.
    pub ready: Value,
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Mesh {
    /// Starts one in a new folder, with further arguments for `up`; waits until it is ready.
    #[track_caller]
    pub fn start(args: &[&str]) -> Self {
        let temporary = tempfile::tempdir().expect("temporary folder");
        let mut mesh = Self::start_in(temporary.path(), args);
        mesh._temporary = Some(temporary);
        mesh
    }

    /// Starts one in a given folder.
    #[track_caller]
    pub fn start_in(dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(tether());
        command
            .args(["up", "--json", "--gateway", "127.0.0.1:0", "--data-dir"])
            .arg(dir)
            .args(args);
        let process = Process::start(command, &dir.join("up.stderr"));
        Self {
            ready: process.ready.clone(),
            process: Some(process),
            dir: dir.to_owned(),
            _temporary: None,
        }
    }

    /// Its data folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Process id of `tether up`.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("runs").pid()
    }

    /// What `tether up` logged.
    pub fn log(&self) -> String {
        self.process.as_ref().expect("runs").log()
    }

    /// URL of the gateway, without a path.
    pub fn gateway(&self) -> &str {
        self.ready["gateway"].as_str().expect("a URL")
    }

    /// The tenant's API key.
    pub fn api_key(&self) -> &str {
        self.ready["api_key"].as_str().expect("a key")
    }

    /// The name of the model.
    pub fn model(&self) -> &str {
        self.ready["model"].as_str().expect("a model")
    }

    /// `run.json`, as it is now.
    pub fn run_file(&self) -> Value {
        let text = std::fs::read_to_string(self.dir.join("run.json")).expect("run.json");
        serde_json::from_str(&text).expect("whole at all times")
    }

    /// Ids and current process ids of the workers.
    pub fn workers(&self) -> Vec<(String, u32)> {
        self.run_file()["workers"]
            .as_array()
            .expect("workers")
            .iter()
            .map(|worker| {
                (
                    worker["id"].as_str().expect("an id").to_owned(),
                    u32::try_from(worker["pid"].as_u64().expect("a pid")).expect("a pid"),
                )
            })
            .collect()
    }

    /// `tether fleet --json`.
    pub fn fleet(&self) -> Vec<Value> {
        let dir = self.dir.to_str().expect("UTF-8");
        let text = Tether::ok(&["fleet", "--json", "--data-dir", dir]);
        serde_json::from_str(&text).expect("a JSON array")
    }

    /// How many workers get work now.
    pub fn routable(&self) -> usize {
        self.fleet().iter().filter(|row| is_routable(row)).count()
    }

    /// One chat completion, not streamed.
    pub fn chat(&self, prompt: &str) -> Reply {
        self.chat_body(&json!({
            "model": self.model(),
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
        }))
    }

    /// One chat completion with a body of your own.
    pub fn chat_body(&self, body: &Value) -> Reply {
        let url = format!("{}/v1/chat/completions", self.gateway());
        post(&url, self.api_key(), body)
    }

    /// SIGTERM, and its exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.process.take().expect("runs").stop()
    }

    /// SIGKILL to `up` itself.
    pub fn kill(mut self) {
        self.process.take().expect("runs").kill();
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let workers = std::fs::read_dir(self.dir.join("workers"));
        for worker in workers.into_iter().flatten().flatten() {
            let log = worker.path().join("worker.log");
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            eprintln!("--- {} ---\n{text}", log.display());
        }
    }
}

/// Whether a row of the fleet gets work.
pub fn is_routable(row: &Value) -> bool {
    row["state"] == "serving"
        && row["reason"].is_null()
        && row["models"]
            .as_array()
            .is_some_and(|models| !models.is_empty())
}

/// Sends a signal by name, as `kill -NAME PID` does.
pub fn signal(pid: u32, name: &str) {
    let signal = match name {
        "KILL" => rustix::process::Signal::KILL,
        "TERM" => rustix::process::Signal::TERM,
        "INT" => rustix::process::Signal::INT,
        "STOP" => rustix::process::Signal::STOP,
        "CONT" => rustix::process::Signal::CONT,
        other => panic!("no such signal here: {other}"),
    };
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
    // It may have ended by itself.
    let _ = rustix::process::kill_process(pid, signal);
}

/// Whether a process is there; one that ended and waits for its parent does not count.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub text: String,
}

impl Reply {
    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The text of a chat completion that was not streamed.
    #[track_caller]
    pub fn answer(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["choices"][0]["message"]["content"]
            .as_str()
            .expect("an answer")
            .to_owned()
    }

    /// The worker that answered.
    #[track_caller]
    pub fn worker(&self) -> &str {
        self.header("x-tether-worker")
            .expect("each answer names its worker")
    }
}

/// GET with a bearer token (none if empty).
#[track_caller]
pub fn get(url: &str, token: &str) -> Reply {
    send(client().get(url), token)
}

/// POST of JSON with a bearer token (none if empty).
#[track_caller]
pub fn post(url: &str, token: &str, body: &Value) -> Reply {
    send(client().post(url).json(body), token)
}

#[track_caller]
fn send(request: reqwest::RequestBuilder, token: &str) -> Reply {
    let request = if token.is_empty() {
        request
    } else {
        request.bearer_auth(token)
    };
    runtime().block_on(async {
        let response = request.timeout(PATIENCE).send().await.expect("an answer");
        Reply {
            status: response.status().as_u16(),
            headers: response
                .headers()
                .iter()
                .map(|(name, value)| {
                    let value = value.to_str().unwrap_or_default();
                    (name.as_str().to_owned(), value.to_owned())
                })
                .collect(),
            text: response.text().await.expect("a whole body"),
        }
    })
}

/// The runtime on which scenarios wait for HTTP.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

/// A client without a proxy: everything is on this machine.
pub fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("a client")
    })
}
