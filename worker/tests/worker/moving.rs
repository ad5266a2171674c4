//! A request whose process ends is given to another process of its engine, as long as nothing of the
//! answer was given. (WRK-2)

use crate::fixture::{TestMesh, artifact, order, patiently, sampling, until};
use crate::replicas::{held_back, running};
use crate::supervisor::{ask, ask_holding, read, start};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tether_wire::infer::{AnswerEvent, Input};
use tether_wire::rpc::Code;
use tether_worker::engine::protocol::Task;
use tether_worker::engine::{Answer, Engine, Hold};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Where the engine [`does_as_told`](crate::engines) asks what to do.
struct Gate {
    listener: UnixListener,
    dir: tempfile::TempDir,
}

/// An answer that waits to be told.
struct Asked {
    pid: Pid,
    stream: UnixStream,
}

impl Gate {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let listener = UnixListener::bind(dir.path().join("gate")).expect("bound");
        Self { listener, dir }
    }

    fn prompt(&self) -> String {
        let path: PathBuf = self.dir.path().join("gate");
        path.to_str().expect("text").to_owned()
    }

    /// The next process that has a request.
    async fn asked(&self) -> Asked {
        let asked = async {
            let (mut stream, _) = self.listener.accept().await.expect("accepted");
            let mut pid = [0; 4];
            stream.read_exact(&mut pid).await.expect("its number");
            let pid = i32::try_from(u32::from_le_bytes(pid)).ok();
            let pid = pid.and_then(Pid::from_raw).expect("a process");
            Asked { pid, stream }
        };
        patiently(asked).await
    }
}

impl Asked {
    async fn tell(&mut self, words: &[u8]) {
        self.stream.write_all(words).await.expect("told");
    }

    fn kill(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("it runs");
    }
}

/// Processes that do as they are told, each with so many answers at once.
async fn obedient(processes: u32, sequences: u32) -> Engine {
    start_obedient(processes, sequences).await.0
}

/// The same, and what allows that one is started again.
async fn start_obedient(processes: u32, sequences: u32) -> (Engine, Arc<Semaphore>) {
    let mut allowed = None;
    let engine = start("does_as_told", |spec| {
        spec.processes = processes;
        spec.load.slots = sequences;
        spec.config.hang_timeout_ms = 1_000;
        allowed = Some(held_back(spec));
    });
    running(&engine, processes as usize).await;
    (engine, allowed.expect("made"))
}

/// Counts how often it was given back.
#[derive(Debug)]
struct Counted(Arc<AtomicU32>);

impl Hold for Counted {
    fn leaving(&mut self) {}
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_answers_when_one_is_killed_or_stops_before_its_first_piece() {
    for signal in [Signal::KILL, Signal::STOP] {
        let (gate, engine) = (Gate::new(), obedient(2, 4).await);
        let given_back = Arc::new(AtomicU32::new(0));
        let hold = Counted(given_back.clone());
        let mut answer = ask_holding(&engine, &gate.prompt(), hold);
        assert_eq!(patiently(answer.begun()).await, Some(5));
        let first = gate.asked().await;
        first.kill(signal);
        let mut second = gate.asked().await;
        assert_ne!(first.pid, second.pid);
        assert_eq!(given_back.load(Ordering::SeqCst), 0, "held all the time");
        second.tell(b"ccd").await;
        let (text, end) = read(answer).await;
        assert_eq!(text, "xx");
        assert_eq!(end.expect("well").usage.prompt_tokens, 5);
        assert_eq!(given_back.load(Ordering::SeqCst), 1);
        patiently(engine.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_begun_to_be_given_fails_so_that_it_is_gone_on_with_elsewhere() {
    let (gate, engine) = (Gate::new(), obedient(2, 4).await);
    let mut answer = ask(&engine, &gate.prompt());
    let mut first = gate.asked().await;
    first.tell(b"c").await;
    patiently(answer.chunk()).await.expect("a piece");
    first.kill(Signal::KILL);
    let error = read(answer).await.1.expect_err("lost");
    assert!(error.message.contains("SIGKILL"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_ends_whatever_process_has_it_ends_two_of_them() {
    let (gate, engine) = (Gate::new(), obedient(3, 4).await);
    let answer = ask(&engine, &gate.prompt());
    let mut ended = Vec::new();
    for _ in 0..2 {
        let mut asked = gate.asked().await;
        asked.tell(b"x").await;
        ended.push(asked.pid);
    }
    assert_ne!(ended[0], ended[1]);
    let error = read(answer).await.1.expect_err("its own fault");
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("exited with code 7"), "{error}");
    // The third never had it.
    let next = ask(&engine, &gate.prompt());
    let mut asked = gate.asked().await;
    asked.tell(b"d").await;
    read(next).await.1.expect("well");
}

/// Two processes with an answer each, of which the first is killed.
struct Full {
    gate: Gate,
    _engine: Engine,
    allowed: Arc<Semaphore>,
    given_back: Arc<AtomicU32>,
    moved: Answer,
    other: Answer,
    /// The process of the other.
    second: Asked,
}

impl Full {
    async fn new() -> Self {
        let (gate, (engine, allowed)) = (Gate::new(), start_obedient(2, 1).await);
        let given_back = Arc::new(AtomicU32::new(0));
        let ask = || ask_holding(&engine, &gate.prompt(), Counted(given_back.clone()));
        let (moved, first) = (ask(), gate.asked().await);
        let (other, second) = (ask(), gate.asked().await);
        first.kill(Signal::KILL);
        running(&engine, 1).await;
        Self {
            gate,
            _engine: engine,
            allowed,
            given_back,
            moved,
            other,
            second,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_until_the_other_process_has_room() {
    let mut full = Full::new().await;
    full.second.tell(b"d").await;
    read(full.other).await.1.expect("well");
    let mut again = full.gate.asked().await;
    assert_eq!(again.pid, full.second.pid);
    again.tell(b"cd").await;
    assert_eq!(read(full.moved).await.0, "x");
    assert_eq!(full.given_back.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_until_a_process_is_there_again() {
    let full = Full::new().await;
    full.allowed.add_permits(1);
    let mut again = full.gate.asked().await;
    assert_ne!(again.pid, full.second.pid);
    again.tell(b"cd").await;
    assert_eq!(read(full.moved).await.0, "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leaves_when_nobody_waits_for_it_any_more() {
    let full = Full::new().await;
    assert_eq!(full.given_back.load(Ordering::SeqCst), 0);
    drop(full.moved);
    let given_back = async {
        while full.given_back.load(Ordering::SeqCst) < 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    patiently(given_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_with_the_last_process_that_answered() {
    let full = Full::new().await;
    full.second.kill(Signal::KILL);
    for answer in [full.moved, full.other] {
        let error = read(answer).await.1.expect_err("nobody answers");
        assert!(error.message.contains("SIGKILL"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_one_process_fails_what_it_had_at_once() {
    let (gate, engine) = (Gate::new(), obedient(1, 4).await);
    let task = Task::new(Input::Text(gate.prompt()), sampling());
    let answer = engine.generate(task, Box::new(())).expect("asked");
    gate.asked().await.kill(Signal::KILL);
    let error = read(answer).await.1.expect_err("no other is there");
    assert!(error.message.contains("SIGKILL"), "{error}");
}

/// A provider runs one worker, whose model has two processes. Under load one of them is killed.
#[tokio::test(flavor = "multi_thread")]
async fn no_order_that_had_no_piece_fails_when_one_of_two_processes_is_killed_under_load() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker_running("does_as_told", &[dir.path()], |config| {
            config.engine.replicas = 2;
            config.slots = 2;
        })
        .await;
    let both = until(worker.worker.models(), |models| {
        (models[0].report().processes == Some((2, 2))).then_some(())
    });
    patiently(both).await;
    let gate = Gate::new();
    let (mut calls, mut at) = (Vec::new(), Vec::new());
    for n in 1..=2 {
        let order = order(n, digest, &gate.prompt());
        let mut call = orchestrator.order(&worker.worker, &order).await;
        call.accepted().await;
        assert_eq!(call.begun().await, 5);
        calls.push(call);
        at.push(gate.asked().await);
    }
    let (mut kept, killed) = (at.pop().expect("two"), at.pop().expect("two"));
    assert_ne!(kept.pid, killed.pid);
    killed.kill(Signal::KILL);
    let mut moved = gate.asked().await;
    moved.tell(b"ccd").await;
    kept.tell(b"cd").await;
    for call in calls {
        let events = call.events().await.expect("answered");
        assert!(matches!(events[0], AnswerEvent::Chunk(_)), "begun once");
        assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    }
    // An order is counted a moment after its last event was sent.
    let counted = async {
        loop {
            let served = worker.worker.report().await.served;
            assert!(served.failed.is_empty(), "{served:?}");
            if served.answered == 2 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    patiently(counted).await;
}
