//! A model that is refused: the worker stays up, says why, and does not offer it. (ART-1, WRK-5)

use crate::fixture::{TestMesh, artifact, order};
use std::fs;
use std::path::Path;
use tether_artifact_store::{MANIFEST_FILE, sign};
use tether_wire::NodeKey;
use tether_wire::heartbeat::WorkerState;
use tether_wire::infer::AnswerEvent;
use tether_wire::rpc::Code;
use tether_worker::ModelState;

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    bytes[3] ^= 1;
    fs::write(path, bytes).expect("write");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_damaged_artifact_is_a_fault_of_its_own_and_the_good_one_is_served() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.orchestrator().await;
    let damaged: Vec<_> = (0..4).map(|_| artifact()).collect();
    let path = |n: usize| damaged[n].0.path();
    flip_a_bit(&path(0).join("model.safetensors"));
    sign(path(1), &NodeKey::from_seed([66; 32])).expect("signed by a stranger");
    fs::remove_file(path(2).join("tokenizer.json")).expect("removed");
    fs::remove_file(path(3).join(MANIFEST_FILE)).expect("removed");
    let (good, digest) = artifact();
    let folders = [path(0), path(1), path(2), path(3), good.path()];
    let worker = mesh.worker(&folders, |_| ()).await;

    let (beat, topics) = orchestrator
        .heartbeat_where(|beat| beat.faults.len() == 4 && !beat.models.is_empty())
        .await;
    assert_eq!(beat.state, WorkerState::Serving);
    assert_eq!(beat.models.len(), 1);
    assert_eq!(beat.models[0].digest, digest);
    assert_eq!(topics.len(), 2);
    let codes = [
        "corrupt-file",
        "untrusted-publisher",
        "missing-file",
        "missing-manifest",
    ];
    for (n, code) in codes.iter().enumerate() {
        let fault = &beat.faults[n];
        assert_eq!(fault.model, path(n).display().to_string());
        assert!(fault.reason.starts_with(code), "{}", fault.reason);
    }
    let refused = orchestrator
        .order(&worker.worker, &order(1, damaged[0].1, "x"))
        .await;
    // The flipped file lies under a manifest that is right, but it was never loaded.
    if damaged[0].1 != digest {
        assert_eq!(refused.refused().await.code, Code::NotFound);
    }
    let call = orchestrator
        .order(&worker.worker, &order(2, digest, "x"))
        .await;
    let events = call.events().await.expect("served");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_digest_that_is_not_the_configured_one_is_a_fault() {
    let mesh = TestMesh::new();
    let (dir, _) = artifact();
    let worker = mesh
        .worker(&[dir.path()], |config| {
            config.models[0].digest = Some(tether_wire::Digest([1; 32]));
        })
        .await;
    worker
        .models(|models| {
            matches!(
                &models[0],
                ModelState::Faulted {
                    code: "wrong-digest",
                    ..
                }
            )
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_dies_is_not_offered_until_it_is_back() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| config.engine.echo_delay_ms = 50)
        .await;
    orchestrator
        .heartbeat_where(|beat| !beat.models.is_empty())
        .await;
    let mut call = orchestrator
        .order(&worker.worker, &order(1, digest, &"word ".repeat(500)))
        .await;
    call.accepted().await;
    let status = worker.worker.status();
    let ModelState::Serving(served) = &status.models[0].state else {
        panic!("{status:?}")
    };
    let pid = i32::try_from(served.pid.expect("a process")).expect("small");
    let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    let error = call.events().await.expect_err("lost");
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("SIGKILL"), "{error}");
    orchestrator
        .heartbeat_where(|beat| beat.models.is_empty())
        .await;
    orchestrator
        .heartbeat_where(|beat| !beat.models.is_empty())
        .await;
    let call = orchestrator
        .order(&worker.worker, &order(2, digest, "again"))
        .await;
    call.events().await.expect("served again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_every_model_is_refused_keeps_saying_so() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.orchestrator().await;
    let (dir, _) = artifact();
    flip_a_bit(&dir.path().join("config.json"));
    let _worker = mesh.worker(&[dir.path()], |_| ()).await;
    let (first, _) = orchestrator
        .heartbeat_where(|beat| !beat.faults.is_empty())
        .await;
    assert_eq!(first.state, WorkerState::Serving);
    assert!(first.models.is_empty());
    let (next, _) = orchestrator.heartbeat().await;
    assert_eq!(next.faults, first.faults);
}
