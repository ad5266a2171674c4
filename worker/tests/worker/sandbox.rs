//! What a worker makes of an engine that breaks out of its limits, or that has none. (WRK-3)

use crate::fixture::{patiently, until};
use crate::supervisor::{ask, down, gone, pid, read, ready, start};
use std::io::Read;
use tether_worker::engine::EngineState;
use tether_worker::engine::protocol::{EngineKind, MAX_WORDS_BYTES};
use tether_worker::sandbox::Protection;

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_leaks_is_ended_for_its_memory_and_its_answer_says_so() {
    let engine = start("echo", |spec| {
        spec.load.kind = EngineKind::Escape;
        spec.load.confine.memory_limit_bytes = 160 << 20;
    });
    let process = pid(&ready(&engine).await);
    let leak = r#"{"attempt": "memory-leak", "most_bytes": 2000000000}"#;
    let (_, end) = read(ask(&engine, leak)).await;
    let error = end.expect_err("lost");
    assert!(
        error.message.contains("more than its limit of 160 MiB"),
        "{error}"
    );
    gone(process).await;
    let (code, _) = down(&engine).await;
    assert_eq!(code, "engine-memory");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_calls_what_only_an_attacker_would_is_ended_and_named() {
    let engine = start("echo", |spec| spec.load.kind = EngineKind::Escape);
    let ready = ready(&engine).await;
    let filter = ready
        .shields
        .iter()
        .find(|shield| shield.protection == Protection::Syscalls);
    if !filter.is_some_and(|shield| shield.enforced) {
        eprintln!("not run: this kernel has no system call filter");
        return;
    }
    let (_, end) = read(ask(&engine, r#"{"attempt": "exec"}"#)).await;
    let error = end.expect_err("ended");
    assert!(error.message.contains("SIGSYS"), "{error}");
    let (code, _) = down(&engine).await;
    assert_eq!(code, "engine-sandbox");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_refused_where_what_is_demanded_cannot_be_enforced() {
    let engine = start("unprotected", |spec| {
        spec.load.confine.require = vec![Protection::Files];
    });
    let refused = patiently(until(engine.state(), |state| match state {
        EngineState::Refused(refused) => Some(refused.clone()),
        _ => None,
    }));
    let refused = refused.await;
    assert_eq!(refused.code, "sandbox");
    assert!(!refused.passing);
    assert!(
        refused.reason.contains("files (no such kernel)"),
        "{}",
        refused.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_says_of_itself_counts_once_and_is_cut() {
    // What it says the second time is not what is demanded.
    let engine = start("talks_on", |spec| {
        spec.load.confine.require = vec![Protection::Memory];
    });
    let (code, reason) = down(&engine).await;
    assert_eq!(code, "engine-load");
    assert!(reason.len() < 2 * MAX_WORDS_BYTES, "{}", reason.len());
    assert!(reason.ends_with('é'), "{reason}");
}

/// A worker may have been started with descriptors that are not its own: of a log, of a lock, of
/// whatever a service manager or a shell left open.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_has_none_of_the_descriptors_that_its_worker_was_started_with() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    // A copy that programs inherit, as none is that this process opened itself.
    let inherited = rustix::io::dup(&writer).expect("a copy");
    drop(writer);
    let engine = start("echo", |_| ());
    ready(&engine).await;
    drop(inherited);
    // The end comes when nobody has the other end of the pipe any more.
    let end = tokio::task::spawn_blocking(move || reader.read(&mut [0]));
    let count = patiently(end).await.expect("no panic");
    assert_eq!(count.expect("the end"), 0);
    let (text, _) = read(ask(&engine, "lives")).await;
    assert_eq!(text, "lives");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_open_to_an_engine_only_when_it_is_named() {
    let device = r#"{"attempt": "open-device", "device": "/dev/zero"}"#;
    for named in [false, true] {
        let engine = start("echo", |spec| {
            spec.load.kind = EngineKind::Escape;
            if named {
                spec.load.confine.devices = vec!["/dev/zero".into()];
            }
        });
        let ready = ready(&engine).await;
        let files = ready
            .shields
            .iter()
            .find(|shield| shield.protection == Protection::Files);
        if !files.is_some_and(|shield| shield.enforced) {
            eprintln!("not run: this kernel has neither Landlock nor namespaces");
            return;
        }
        let (text, end) = read(ask(&engine, device)).await;
        end.expect("it lives");
        assert_eq!(text.contains("succeeded"), named, "{text}");
    }
}
