//! A model that is refused: the worker stays up, says why, and does not offer it. (ART-1, WRK-5)

use crate::fixture::{TestMesh, artifact, artifact_of, order};
use std::fs;
use std::path::Path;
use tether_artifact_store::{MANIFEST_FILE, sign};
use tether_wire::NodeKey;
use tether_wire::beat::NodeState;
use tether_wire::infer::AnswerEvent;
use tether_wire::rpc::Code;
use tether_worker::{ModelState, Worker};

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).expect("read");
    bytes[3] ^= 1;
    fs::write(path, bytes).expect("write");
}

fn kill_engine(worker: &Worker, index: usize) {
    let status = worker.status();
    let ModelState::Serving(served) = &status.models[index].state else {
        panic!("{status:?}")
    };
    let pid = i32::try_from(served.pids[0]).expect("small");
    let pid = rustix::process::Pid::from_raw(pid).expect("not zero");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
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

    let said = orchestrator
        .said_where(|said| said.worker.faults.len() == 4 && !said.worker.models.is_empty())
        .await;
    assert_eq!(said.beat.state, NodeState::Serving);
    assert_eq!(said.worker.models.len(), 1);
    assert_eq!(said.worker.models[0].digest, digest);
    let codes = [
        "corrupt-file",
        "untrusted-publisher",
        "missing-file",
        "missing-manifest",
    ];
    for (n, code) in codes.iter().enumerate() {
        let fault = &said.worker.faults[n];
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
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    let mut call = orchestrator
        .order(&worker.worker, &order(1, digest, &"word ".repeat(500)))
        .await;
    call.accepted().await;
    kill_engine(&worker.worker, 0);
    let error = call.events().await.expect_err("lost");
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("SIGKILL"), "{error}");
    orchestrator
        .said_where(|said| said.worker.models.is_empty())
        .await;
    orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    let call = orchestrator
        .order(&worker.worker, &order(2, digest, "again"))
        .await;
    call.events().await.expect("served again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_under_a_running_engine_is_not_loaded_when_the_engine_starts_again() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.orchestrator().await;
    let (changed, digest) = artifact_of("changed@1.0");
    let (good, good_digest) = artifact();
    let folders = [changed.path(), good.path()];
    let worker = mesh.worker(&folders, |_| ()).await;
    orchestrator
        .said_where(|said| said.worker.models.len() == 2)
        .await;
    flip_a_bit(&changed.path().join("model.safetensors"));
    kill_engine(&worker.worker, 0);

    let said = orchestrator
        .said_where(|said| {
            let codes = said.worker.faults.iter().map(|fault| fault.reason.as_str());
            codes
                .clone()
                .any(|reason| reason.starts_with("corrupt-file"))
        })
        .await;
    assert_eq!(said.beat.state, NodeState::Serving);
    assert_eq!(said.worker.models.len(), 1);
    assert_eq!(said.worker.models[0].digest, good_digest);
    let mut order_of_changed = order(1, digest, "x");
    order_of_changed.model = "changed@1.0".parse().expect("valid");
    let refused = orchestrator.order(&worker.worker, &order_of_changed).await;
    let error = refused.refused().await;
    assert_eq!(error.code, Code::Unavailable, "another worker may have it");
    assert!(error.message.contains("corrupt"), "{error}");
    let call = orchestrator
        .order(&worker.worker, &order(2, good_digest, "x"))
        .await;
    call.events().await.expect("the other model is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_beside_the_listed_ones_never_reach_the_engine() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.orchestrator().await;
    let (dir, _) = artifact();
    for name in ["chat_template.jinja", "extra.safetensors"] {
        fs::write(dir.path().join(name), "not signed").expect("written");
    }
    let worker = mesh
        .worker_running("lists_its_files", &[dir.path()], |_| ())
        .await;
    let listed = "config.json model.safetensors tokenizer.json";
    let said = orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    assert_eq!(said.worker.engine, listed);
    // Nor after a restart, for which the view is made anew.
    fs::write(dir.path().join("config_extra.json"), "{}").expect("written");
    kill_engine(&worker.worker, 0);
    orchestrator
        .said_where(|said| said.worker.models.is_empty())
        .await;
    let said = orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    assert_eq!(said.worker.engine, listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_every_model_is_refused_keeps_saying_so() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.orchestrator().await;
    let (dir, _) = artifact();
    flip_a_bit(&dir.path().join("config.json"));
    let _worker = mesh.worker(&[dir.path()], |_| ()).await;
    let first = orchestrator
        .said_where(|said| !said.worker.faults.is_empty())
        .await;
    assert_eq!(first.beat.state, NodeState::Serving);
    assert!(first.worker.models.is_empty());
    let next = orchestrator.said().await;
    assert_eq!(next.worker.faults, first.worker.faults);
}
