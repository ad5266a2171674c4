//! What a worker learnt of its models. (WRK-5)

use crate::fixture::{TestMesh, artifact, order, patiently, until};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Instant;
use tether_worker::{ModelReport, ModelState, Worker};

fn report(worker: &Worker, model: usize) -> ModelReport {
    worker.status().models[model].report()
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
    let pid = || match &worker.status().models[0].state {
        ModelState::Serving(served) => served.pids.first().copied(),
        _ => None,
    };
    assert!(report(worker, 0).load_ms.is_some());
    // Its stay, which is no part of its next load.
    let order = order(1, digest, "one two three four five six seven eight");
    let call = orchestrator.order(worker, &order).await;
    call.events().await.expect("answered");
    let before = pid().expect("it runs");
    let killed = Instant::now();
    let process = i32::try_from(before).ok().and_then(Pid::from_raw);
    kill_process(process.expect("a process"), Signal::KILL).expect("killed");
    let again = until(worker.models(), |_| pid().filter(|it| *it != before));
    patiently(again).await;
    let down_ms = u64::try_from(killed.elapsed().as_millis()).expect("short");
    let load_ms = report(worker, 0).load_ms.expect("it was loaded");
    assert!(
        load_ms <= down_ms,
        "{load_ms} ms, of {down_ms} ms without it"
    );
}
