//! Processes of one model that go: together with their model or their worker, or for what one of them
//! did. (WRK-2, WRK-5)

use crate::fixture::{TestMesh, TestWorker, artifact, order, patiently, until};
use crate::replicas::{processes, report, running};
use crate::supervisor::{ask, gone, read, start};
use std::time::Duration;
use tether_worker::engine::EngineState;
use tether_worker::engine::protocol::EngineKind;

/// Waits until a worker's first model is as wished.
async fn until_report(worker: &TestWorker, state: &'static str, running: u32) {
    let found = until(worker.worker.models(), move |models| {
        let report = models[0].report();
        let is_it = report.state == state && report.processes.is_some_and(|it| it.0 == running);
        is_it.then_some(())
    });
    patiently(found).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_processes_of_a_model_go_when_nobody_asks_for_it_and_come_when_somebody_does() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker_running("one_at_a_time", &[dir.path()], |config| {
            config.engine.replicas = 3;
            config.idle_unload_s = 1;
        })
        .await;
    for n in 1..=2 {
        // It stays while it is used, however long the others take to load.
        let long = order(n, digest, "until it is cancelled");
        let mut call = orchestrator.order(&worker.worker, &long).await;
        call.accepted().await;
        call.begun().await;
        until_report(&worker, "warm", 3).await;
        let before = processes(&worker);
        drop(call);
        until_report(&worker, "cold", 0).await;
        for process in before {
            gone(process).await;
        }
        assert_eq!(report(&worker).state, "cold", "and it stays so");
    }
}

/// Processes of engines of this binary by that name, from the outside.
#[cfg(target_os = "linux")]
fn alive(engine: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("Linux");
    let commands = entries
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
    let name = format!("engines::{engine}");
    let is_it = |command: &String| command.split('\0').any(|word| word == name);
    commands.filter(is_it).count()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drains_does_not_wait_for_processes_that_still_load() {
    let mesh = TestMesh::new();
    let (dir, _) = artifact();
    let worker = mesh
        .worker_running("loads_alone", &[dir.path()], |config| {
            config.engine.replicas = 3;
        })
        .await;
    until_report(&worker, "warm", 1).await;
    let all_there = async {
        while alive("loads_alone") < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(all_there).await;
    let drained = worker.worker.drain(Duration::from_secs(20));
    assert!(patiently(drained).await, "there was nothing to wait for");
    let all_gone = async {
        while alive("loads_alone") > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(all_gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_leaks_ends_two_processes_for_their_memory_and_the_third_answers() {
    let engine = start("echo", |spec| {
        spec.processes = 3;
        spec.load.kind = EngineKind::Escape;
        spec.load.confine.memory_limit_bytes = 160 << 20;
    });
    running(&engine, 3).await;
    let leak = r#"{"attempt": "memory-leak", "most_bytes": 2000000000}"#;
    let error = read(ask(&engine, leak)).await.1.expect_err("lost");
    assert!(
        error.message.contains("more than its limit of 160 MiB"),
        "{error}"
    );
    let fallen = until(engine.state(), |state| match state {
        EngineState::Ready(ready) if ready.fallen.len() == 2 => Some(ready.fallen.clone()),
        _ => None,
    });
    for fallen in patiently(fallen).await {
        assert_eq!(fallen.code, "engine-memory", "{fallen:?}");
        assert!(fallen.reason.contains("160 MiB"), "{fallen:?}");
    }
    let harmless = r#"{"attempt": "memory-leak", "most_bytes": 1}"#;
    read(ask(&engine, harmless)).await.1.expect("by the third");
}
