//! More models than there is memory for. (WRK-5)

use crate::fixture::{TestMesh, TestWorker, artifact_of, big_artifact_of, order, patiently};
use std::fs;
use tether_artifact_store::Store;
use tether_wire::infer::AnswerEvent;
use tether_wire::rpc::Code;
use tether_wire::{Digest, infer::WorkOrder};
use tether_worker::{ModelConfig, ModelState, WorkerConfig};

/// Room for two of the big artifacts.
fn for_two(config: &mut WorkerConfig) {
    config.memory_budget_mib = 1_000;
}

fn state(worker: &TestWorker, index: usize) -> &'static str {
    worker.worker.status().models[index].report().state
}

fn pid(worker: &TestWorker, index: usize) -> Option<u32> {
    match &worker.worker.status().models[index].state {
        ModelState::Serving(served) => served.pids.first().copied(),
        _ => None,
    }
}

fn order_of(n: u8, model: &str, digest: Digest) -> WorkOrder {
    WorkOrder {
        model: model.parse().expect("valid"),
        ..order(n, digest, "one two three")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_room_is_offered_cold_and_loaded_when_somebody_asks() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.orchestrator().await;
    let models = ["a@1.0", "b@1.0", "c@1.0"].map(|name| (name, big_artifact_of(name)));
    let folders = [0, 1, 2].map(|n: usize| models[n].1.0.path());
    let worker = mesh.worker(&folders, for_two).await;
    let said = orchestrator
        .said_where(|said| {
            let warm = said.worker.models.iter().filter(|offer| offer.warm);
            said.worker.models.len() == 3 && warm.count() == 2
        })
        .await;
    let cold = said.worker.models.iter().position(|offer| !offer.warm);
    let cold = cold.expect("one has no room");
    let cold = models
        .iter()
        .position(|(_, (_, digest))| *digest == said.worker.models[cold].digest)
        .expect("one of them");
    let before: Vec<Option<u32>> = (0..3).map(|n| pid(&worker, n)).collect();
    assert_eq!(before[cold], None);
    // Several at once cause one load.
    let (name, (_, digest)) = &models[cold];
    let mut calls = Vec::new();
    for n in 1..=3 {
        let order = order_of(n, name, *digest);
        let mut call = orchestrator.order(&worker.worker, &order).await;
        call.accepted().await;
        calls.push(call);
    }
    for call in calls {
        let events = call.events().await.expect("loaded and answered");
        assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    }
    worker
        .models(|states| {
            let count = |name| states.iter().filter(|it| it.as_str() == name).count();
            count("warm") == 2 && count("cold") == 1
        })
        .await;
    // The one that went is gone, with its memory.
    let went = (0..3).find(|n| before[*n].is_some() && pid(&worker, *n).is_none());
    let went = before[went.expect("one went")].expect("it ran");
    let gone = async {
        while fs::exists(format!("/proc/{went}")).unwrap_or(false) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    patiently(gone).await;
    orchestrator
        .said_where(|said| {
            said.worker
                .models
                .iter()
                .any(|it| it.warm && it.digest == *digest)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_model_whose_files_changed_is_refused_to_all_who_wait_and_the_others_serve() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.orchestrator().await;
    let (first, second) = (big_artifact_of("a@1.0"), big_artifact_of("b@1.0"));
    let worker = mesh
        .worker(&[first.0.path(), second.0.path()], |config| {
            config.memory_budget_mib = 600;
            config.models[0].pin = true;
        })
        .await;
    worker
        .models(|states| {
            let warm = matches!(states[0], ModelState::Serving(_));
            warm && !matches!(states[1], ModelState::Verifying { .. })
        })
        .await;
    // It has no room beside the pinned one, ever.
    let call = orchestrator
        .order(&worker.worker, &order_of(1, "b@1.0", second.1))
        .await;
    let error = call.refused().await;
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("600 MiB"), "{error}");
    drop(worker);

    let worker = mesh
        .worker(&[first.0.path(), second.0.path()], |config| {
            config.memory_budget_mib = 600;
        })
        .await;
    worker
        .models(|states| {
            let count = |name| states.iter().filter(|it| it.as_str() == name).count();
            count("warm") == 1 && count("cold") == 1
        })
        .await;
    let cold = (0..2).find(|n| state(&worker, *n) == "cold").expect("one");
    let (name, (dir, digest)) = [("a@1.0", &first), ("b@1.0", &second)][cold];
    fs::write(dir.path().join("tokenizer.json"), "[]").expect("written");
    let mut call = orchestrator
        .order(&worker.worker, &order_of(2, name, *digest))
        .await;
    call.accepted().await;
    let error = call.event().await.expect_err("it was changed");
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("corrupt"), "{error}");
    assert_eq!(state(&worker, cold), "faulted");
    let (name, (_, digest)) = [("a@1.0", &first), ("b@1.0", &second)][1 - cold];
    let call = orchestrator
        .order(&worker.worker, &order_of(3, name, *digest))
        .await;
    call.events().await.expect("the other one serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_by_name_is_fetched_from_a_source_and_served_from_the_store() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.orchestrator().await;
    let shelf = tempfile::tempdir().expect("tempdir");
    let (dir, digest) = artifact_of("echo@1.0");
    fs::rename(dir.path(), shelf.path().join("echo")).expect("put on the shelf");
    let data = tempfile::tempdir().expect("tempdir");
    let key = tether_wire::NodeKey::from_seed([77; 32]);
    let sources = vec![shelf.path().to_owned()];
    let worker = mesh
        .worker_in(data.path(), key, &[], |config| {
            config.sources = sources;
            config.models = vec![ModelConfig {
                name: Some("echo@1.0".parse().expect("valid")),
                ..ModelConfig::default()
            }];
        })
        .await;
    let warm = crate::fixture::until(worker.models(), |models| {
        matches!(models[0].state, ModelState::Serving(_)).then_some(())
    });
    patiently(warm).await;
    let call = orchestrator.order(&worker, &order(1, digest, "x")).await;
    call.events().await.expect("served");
    let error = Store::open(&data.path().join("artifacts"), 0).expect_err("in use");
    assert_eq!(error.code(), "store-locked");
}
