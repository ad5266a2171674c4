//! What an engine that misbehaves costs: the answers it was making, and nothing else. (WRK-2)

use crate::engines::command;
use crate::fixture::{patiently, sampling, until};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tether_telemetry::metrics::{Registry, WorkerMetrics};
use tether_wire::infer::{Finish, Input};
use tether_wire::manifest::Format;
use tether_wire::rpc::{Code, RpcError};
use tether_worker::EngineConfig;
use tether_worker::device::Compute;
use tether_worker::engine::protocol::{Continuation, EngineKind, Load, MAX_TO_ENGINE_BYTES, Task};
use tether_worker::engine::{
    Answer, Engine, EngineDone, EngineSpec, EngineState, Hold, Layout, Prepare, Ready, Refused,
};
use tether_worker::sandbox::Confine;

/// An empty folder of a model: what an engine of these tests may see.
fn view() -> PathBuf {
    let view = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("empty-view");
    std::fs::create_dir_all(&view).expect("a folder");
    view
}

pub(crate) fn start(engine: &str, change: impl FnOnce(&mut EngineSpec)) -> Engine {
    let mut spec = EngineSpec {
        command: command(engine),
        load: Load {
            kind: EngineKind::Echo,
            root: view(),
            has_adapter: false,
            weights: "w".to_owned(),
            tokenizer: None,
            format: Format::Gguf,
            context_tokens: 2_048,
            threads: 1,
            slots: 4,
            model_name: "fake@1.0".to_owned(),
            continuation: Continuation::default(),
            echo_delay_ms: 0,
            compute: Compute::default(),
            confine: Confine::default(),
        },
        config: EngineConfig::default(),
        prepare: Prepare::new(|_| Box::pin(async { Ok(view()) })),
        processes: 1,
        layout: Layout::default(),
    };
    change(&mut spec);
    Engine::start(spec, WorkerMetrics::register(&Registry::new()))
}

pub(crate) async fn ready(engine: &Engine) -> Ready {
    let state = patiently(until(engine.state(), |state| match state {
        EngineState::Ready(ready) => Some(ready.clone()),
        _ => None,
    }));
    state.await
}

/// Waits until the engine is down; code and reason.
pub(crate) async fn down(engine: &Engine) -> (&'static str, String) {
    let state = patiently(until(engine.state(), |state| match state {
        EngineState::Down { code, reason } => Some((*code, reason.clone())),
        _ => None,
    }));
    state.await
}

pub(crate) fn ask(engine: &Engine, text: &str) -> Answer {
    ask_holding(engine, text, ())
}

pub(crate) fn ask_holding(engine: &Engine, text: &str, hold: impl Hold + 'static) -> Answer {
    let input = Input::Text(text.to_owned());
    let answer = engine.generate(Task::new(input, sampling()), Box::new(hold));
    answer.expect("asked")
}

/// Text and end of an answer.
pub(crate) async fn read(mut answer: Answer) -> (String, Result<EngineDone, RpcError>) {
    let whole = async move {
        let mut text = String::new();
        while let Some(chunk) = answer.chunk().await {
            text += &chunk.text;
        }
        (text, answer.end().await)
    };
    patiently(whole).await
}

pub(crate) fn pid(ready: &Ready) -> Pid {
    let pids = pids(ready);
    assert_eq!(pids.len(), 1, "one process");
    pids[0]
}

pub(crate) fn pids(ready: &Ready) -> Vec<Pid> {
    let pid = |id: &u32| Pid::from_raw(i32::try_from(*id).expect("small")).expect("not zero");
    ready.pids.iter().map(pid).collect()
}

pub(crate) async fn gone(pid: Pid) {
    let gone = async {
        while test_kill_process(pid).is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    patiently(gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_whole_and_counted() {
    let engine = start("echo", |_| ());
    let ready = ready(&engine).await;
    assert_eq!(ready.engine, "echo");
    let (text, end) = read(ask(&engine, "one two three")).await;
    let done = end.expect("well");
    assert_eq!(text, "one two three");
    assert_eq!(done.finish, Finish::Stop);
    assert_eq!(done.usage.prompt_tokens, 3);
    assert_eq!(done.usage.completion_tokens, 4, "the ending one included");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_no_engine_takes_fails_at_once_and_the_next_is_answered() {
    let engine = start("echo", |_| ());
    ready(&engine).await;
    let (text, end) = read(ask(&engine, &"x".repeat(MAX_TO_ENGINE_BYTES))).await;
    assert_eq!(text, "");
    let error = end.expect_err("too large");
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.contains("more than the limit"), "{error}");
    let (text, end) = read(ask(&engine, "again")).await;
    assert_eq!(text, "again");
    end.expect("well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_fails_its_answers_with_the_signal_and_comes_back() {
    let engine = start("echo", |spec| spec.load.echo_delay_ms = 20);
    let first = ready(&engine).await;
    let mut answer = ask(&engine, &"word ".repeat(1_000));
    patiently(answer.chunk()).await.expect("it has begun");
    kill_process(pid(&first), Signal::KILL).expect("killed");
    let (_, end) = read(answer).await;
    let error = end.expect_err("lost");
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("signal 9 (SIGKILL)"), "{error}");

    let second = patiently(until(engine.state(), |state| match state {
        EngineState::Ready(ready) if ready.pids != first.pids => Some(ready.clone()),
        _ => None,
    }));
    assert_ne!(second.await.pids, first.pids);
    let (text, end) = read(ask(&engine, "again")).await;
    assert_eq!(text, "again");
    end.expect("well");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_before_a_start_comes_before_each_and_ends_it_by_refusing() {
    let starts = Arc::new(AtomicU32::new(0));
    let seen = starts.clone();
    let engine = start("echo", |spec| {
        spec.prepare = Prepare::new(move |_| {
            let first = starts.fetch_add(1, Ordering::SeqCst) == 0;
            Box::pin(async move {
                // As a verification that reads for a while.
                tokio::task::yield_now().await;
                let reason = "changed".to_owned();
                let refused = Refused {
                    code: "corrupt-file",
                    reason,
                    passing: false,
                };
                if first { Ok(view()) } else { Err(refused) }
            })
        });
    });
    let process = pid(&ready(&engine).await);
    kill_process(process, Signal::KILL).expect("killed");
    let refused = patiently(until(engine.state(), |state| match state {
        EngineState::Refused(refused) => Some(refused.clone()),
        _ => None,
    }));
    assert_eq!(refused.await.code, "corrupt-file");
    assert_eq!(seen.load(Ordering::SeqCst), 2, "it is not asked again");
    let error = engine.generate(
        Task::new(Input::Text("x".to_owned()), sampling()),
        Box::new(()),
    );
    let error = error.expect_err("refused");
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::Unavailable, "changed")
    );
    patiently(engine.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_for_a_while_takes_no_model_out_of_service_for_ever() {
    let asked = Arc::new(AtomicU32::new(0));
    let engine = start("echo", |spec| {
        spec.prepare = Prepare::new(move |_| {
            let failing = asked.fetch_add(1, Ordering::SeqCst) == 1;
            Box::pin(async move {
                let refused = Refused {
                    code: "io",
                    reason: "the disk is full".to_owned(),
                    passing: true,
                };
                if failing { Err(refused) } else { Ok(view()) }
            })
        });
    });
    let first = pid(&ready(&engine).await);
    kill_process(first, Signal::KILL).expect("killed");
    let down = until(engine.state(), |state| match state {
        EngineState::Down { reason, .. } if reason.contains("full") => Some(()),
        _ => None,
    });
    patiently(down).await;
    assert_ne!(pid(&ready(&engine).await), first);
    patiently(engine.stop()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_aborts_takes_only_its_own_answers_with_it() {
    let engine = start("aborts", |_| ());
    ready(&engine).await;
    let (text, end) = read(ask(&engine, "x")).await;
    assert_eq!(text, "x", "what was made before is delivered");
    let error = end.expect_err("lost");
    assert!(error.message.contains("SIGABRT"), "{error}");
    ready(&engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_ends_at_once_is_reported_with_its_exit_code() {
    let engine = start("exits_at_once", |_| ());
    let (code, reason) = down(&engine).await;
    assert_eq!(code, "engine-crash");
    assert!(reason.contains("exited with code 9"), "{reason}");
    let refused = engine.generate(
        Task::new(Input::Text("x".to_owned()), sampling()),
        Box::new(()),
    );
    assert_eq!(refused.expect_err("down").code, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_reported() {
    let engine = start("echo", |spec| spec.command.program = "/nonexistent".into());
    let (code, reason) = down(&engine).await;
    assert_eq!(code, "engine-load");
    assert!(reason.contains("cannot be started"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_is_reported_in_the_engines_words() {
    let engine = start("fails_to_load", |_| ());
    let (code, reason) = down(&engine).await;
    assert_eq!(code, "engine-load");
    assert!(reason.contains("no such architecture"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_loads_for_ever_is_given_up() {
    let engine = start("never_loads", |spec| spec.config.start_timeout_ms = 300);
    let (code, reason) = down(&engine).await;
    assert_eq!(code, "engine-load");
    assert!(reason.contains("did not load within 300 ms"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_a_sign_of_life_is_ended() {
    let engine = start("hangs", |spec| spec.config.hang_timeout_ms = 1_000);
    let process = pid(&ready(&engine).await);
    let (_, end) = read(ask(&engine, "x")).await;
    let error = end.expect_err("hung");
    assert!(error.message.contains("no sign of life"), "{error}");
    gone(process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_lives_and_makes_no_progress_is_ended() {
    let engine = start("gets_stuck", |spec| spec.config.step_timeout_ms = 1_000);
    let process = pid(&ready(&engine).await);
    let (text, end) = read(ask(&engine, "x")).await;
    assert_eq!(text, "x");
    assert_eq!(end.expect_err("stuck").code, Code::Unavailable);
    gone(process).await;
    assert_eq!(down(&engine).await.0, "engine-hang");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_sends_garbage_is_ended() {
    let engine = start("babbles", |_| ());
    let process = pid(&ready(&engine).await);
    let (_, end) = read(ask(&engine, "x")).await;
    let error = end.expect_err("garbage");
    assert!(error.message.contains("not a message"), "{error}");
    gone(process).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_too_slow_is_cut_off_and_the_engine_is_told_to_stop() {
    let engine = start("floods", |_| ());
    ready(&engine).await;
    let slow = ask(&engine, "x");
    // The next one is answered behind 5,000 chunks that nobody reads.
    let (_, end) = read(ask(&engine, "y")).await;
    end.expect("its neighbour is unharmed");
    let (_, end) = read(slow).await;
    let error = end.expect_err("too slow");
    assert_eq!(error.code, Code::Overloaded);
    assert!(error.message.contains("too slow"), "{error}");
    let (_, end) = read(ask(&engine, "z")).await;
    assert_eq!(end.expect("well").usage.prompt_tokens, 1, "one cancel");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_dropped_is_cancelled_in_the_engine() {
    let engine = start("floods", |_| ());
    ready(&engine).await;
    let mut dropped = ask(&engine, "x");
    patiently(dropped.chunk()).await.expect("it has begun");
    drop(dropped);
    let told = async {
        loop {
            let (_, end) = read(ask(&engine, "y")).await;
            if end.expect("well").usage.prompt_tokens == 1 {
                return;
            }
        }
    };
    patiently(told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_outlives_its_engine() {
    for name in ["echo", "hangs"] {
        let engine = start(name, |_| ());
        let process = pid(&ready(&engine).await);
        drop(engine);
        gone(process).await;

        let engine = start(name, |_| ());
        let process = pid(&ready(&engine).await);
        patiently(engine.stop()).await;
        gone(process).await;
        let refused = engine.generate(
            Task::new(Input::Text("x".to_owned()), sampling()),
            Box::new(()),
        );
        assert!(refused.is_err(), "a stopped engine takes nothing");
    }
}
