//! What a worker learnt of its models: how long they take to load, and what they take of memory, which
//! it knows again after a new start. (WRK-5)

use crate::engines::{GROW, GROWTH_BYTES, command};
use crate::fixture::{TestMesh, artifact, artifact_of, order, patiently, until};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tether_wire::infer::WorkOrder;
use tether_wire::{Digest, NodeKey};
use tether_worker::{ModelReport, ModelState, ModelStatus, Worker};

fn report(worker: &Worker, model: usize) -> ModelReport {
    worker.status().models[model].report()
}

fn are_warm(models: &[ModelStatus]) -> bool {
    models.iter().all(|it| it.state.as_str() == "warm")
}

async fn both_warm(worker: &Worker) {
    let warm = until(worker.models(), |all| are_warm(all).then_some(()));
    patiently(warm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_load_after_a_crash_is_that_of_the_load_alone() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| config.engine.echo_delay_ms = 200)
        .await;
    worker.serving().await;
    let worker = &worker.worker;
    let pid = |models: &[ModelStatus]| match &models[0].state {
        ModelState::Serving(served) => served.pids.first().copied(),
        _ => None,
    };
    assert!(report(worker, 0).load_ms.is_some());
    // Its stay, which is no part of its next load.
    let order = order(1, digest, "one two three four five six seven eight");
    let call = orchestrator.order(worker, &order).await;
    call.events().await.expect("answered");
    let before = pid(&worker.status().models).expect("it runs");
    let killed = Instant::now();
    let process = i32::try_from(before).ok().and_then(Pid::from_raw);
    kill_process(process.expect("a process"), Signal::KILL).expect("killed");
    let again = until(worker.models(), |all| pid(all).filter(|it| *it != before));
    patiently(again).await;
    let down_ms = u64::try_from(killed.elapsed().as_millis()).expect("short");
    let load_ms = report(worker, 0).load_ms.expect("it was loaded");
    assert!(
        load_ms <= down_ms,
        "{load_ms} ms, of {down_ms} ms without it"
    );
}

/// A worker of `data` with two small models and room for what both take when nothing has grown.
async fn worker_in(data: &Path, mesh: &TestMesh, models: &[(TempDir, Digest); 2]) -> Worker {
    let folders = [models[0].0.path(), models[1].0.path()];
    let key = NodeKey::from_seed([80; 32]);
    let change = |config: &mut tether_worker::WorkerConfig| {
        config.memory_budget_mib = 205;
    };
    let worker = mesh.worker_of(command("grows"), data, key, &folders, change);
    worker.await
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_came_to_is_counted_after_a_new_start_and_forgotten_load_by_load() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.orchestrator().await;
    let models = ["a@1.0", "b@1.0"].map(artifact_of);
    let data = tempfile::tempdir().expect("tempdir");
    let grown = u64::try_from(GROWTH_BYTES).expect("fits");

    let worker = worker_in(data.path(), &mesh, &models).await;
    both_warm(&worker).await;
    let order_of = |n, model: usize, text| WorkOrder {
        model: ["a@1.0", "b@1.0"][model].parse().expect("valid"),
        ..order(n, models[model].1, text)
    };
    let order = order_of(1, 0, GROW);
    let call = orchestrator.order(&worker, &order).await;
    call.events().await.expect("answered");
    let has_grown = until(worker.models(), |all| {
        let now = all[0].report().memory_bytes;
        now.filter(|bytes| *bytes >= grown)
    });
    patiently(has_grown).await;
    worker.drain(Duration::from_secs(5)).await;
    drop(worker);

    // It came to more than all the room there is. What is counted for it keeps the other out, or it
    // waits for that one to go.
    let worker = worker_in(data.path(), &mesh, &models).await;
    let one_of_both = until(worker.models(), |all| {
        let count = |state| all.iter().filter(|it| it.state.as_str() == state).count();
        (count("warm") == 1 && count("cold") == 1).then_some(())
    });
    patiently(one_of_both).await;
    let counted = report(&worker, 0).memory_bytes.expect("known");
    assert!(counted > grown / 2, "{counted} bytes");
    // It is loaded all the same; and what is not seen again is believed less with each load, until
    // there is room for both.
    let mut orders = 2..20;
    while !are_warm(&worker.status().models) {
        for model in [1, 0] {
            let n = orders.next().expect("a few loads are enough");
            let order = order_of(n, model, "short");
            let call = orchestrator.order(&worker, &order).await;
            call.events().await.expect("loaded and answered");
        }
    }
    assert!(report(&worker, 0).memory_bytes.expect("known") < grown / 2);
    worker.drain(Duration::from_secs(5)).await;
    drop(worker);

    // Who never saw it knows nothing of it.
    let elsewhere = tempfile::tempdir().expect("tempdir");
    let worker = worker_in(elsewhere.path(), &mesh, &models).await;
    both_warm(&worker).await;
}
