//! What orchestrators and the DHT hear of a worker. (PRE-1, PRE-2, PRE-3)

use crate::engines::command;
use crate::fixture::{TestMesh, artifact, patiently};
use std::time::Duration;
use tether_telemetry::metrics::{Registry, WorkerMetrics};
use tether_wire::beat::NodeState;
use tether_wire::{NodeKey, Role, Topic};
use tether_worker::WorkerConfig;

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_are_signed_ordered_and_say_what_is_served() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    let said = orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    assert_eq!(said.beat.signer(), worker.worker.id());
    assert_eq!(said.beat.state, NodeState::Serving);
    assert_eq!(said.card.region, mesh.region);
    assert_eq!(said.worker.models[0].digest, digest);
    assert!(said.worker.models[0].warm);
    assert_eq!(said.worker.models[0].context_tokens, 2_048);
    assert_eq!(said.worker.engine, "echo");
    assert!(said.worker.faults.is_empty() && said.worker.vram_gb > 0);
    assert!(!said.card.addresses.is_empty());
    let next = orchestrator.said().await;
    assert_eq!(next.beat.epoch, said.beat.epoch);
    assert!(next.beat.seq > said.beat.seq);
    assert_ne!(next.beat.nonce, said.beat.nonce);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_is_found_under_its_topics_and_no_longer_after_it_has_left() {
    let mesh = TestMesh::new();
    let (dir, _) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let topics = [
        Topic::Presence(mesh.region.clone()),
        Topic::Model("echo@1.0".parse().expect("valid"), mesh.region.clone()),
    ];
    let found = |expected: Vec<tether_wire::NodeId>| {
        let (node, topics) = (orchestrator.node.clone(), topics.clone());
        patiently(async move {
            for topic in &topics {
                while node.lookup(topic).await.expect("looked up") != expected {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        })
    };
    found(vec![worker.worker.id()]).await;
    worker.worker.drain(Duration::from_secs(1)).await;
    found(vec![]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_comes_later_is_found_and_one_that_is_lost_is_replaced() {
    let mesh = TestMesh::new();
    let worker = mesh.worker(&[], |config| config.orchestrators = 1).await;
    assert_eq!(worker.worker.status().orchestrators, 0);
    let mut first = mesh.orchestrator().await;
    first.said().await;
    first.node.shutdown().await;
    let mut second = mesh.orchestrator().await;
    let said = second.said().await;
    assert_eq!(said.beat.signer(), worker.worker.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_starts_again_has_a_higher_epoch() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.orchestrator().await;
    let data = tempfile::tempdir().expect("tempdir");
    let key = NodeKey::from_seed([42; 32]);
    let first = mesh.worker_in(data.path(), key.clone(), &[], |_| ()).await;
    let before = orchestrator.said().await;
    first.drain(Duration::from_secs(1)).await;
    drop(first);
    // Its clock was ahead, in its first life.
    let path = data.path().join("epoch");
    std::fs::write(&path, (before.beat.epoch + 1_000_000_000).to_string()).expect("write");
    let _second = mesh.worker_in(data.path(), key, &[], |_| ()).await;
    let after = orchestrator
        .said_where(|said| said.beat.epoch != before.beat.epoch)
        .await;
    assert_eq!(after.beat.epoch, before.beat.epoch + 1_000_000_001);
    assert!(after.beat.issued_ms >= before.beat.issued_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_in_the_same_data_folder_does_not_start() {
    let mesh = TestMesh::new();
    let data = tempfile::tempdir().expect("tempdir");
    let key = NodeKey::from_seed([43; 32]);
    let first = mesh.worker_in(data.path(), key.clone(), &[], |_| ()).await;
    let again = || async {
        let node = mesh.node_config(key.clone(), Role::Worker);
        let registry = Registry::new();
        let metrics = WorkerMetrics::register(&registry);
        let config = WorkerConfig::default();
        let engine = command("echo");
        tether_worker::start(config, data.path(), node, engine, metrics, registry).await
    };
    let epoch = std::fs::read(data.path().join("epoch")).expect("kept");
    let error = again().await.expect_err("the folder is taken").to_string();
    let folder = data.path().display().to_string();
    assert!(
        error.contains(&folder) && error.contains("data_dir"),
        "{error}"
    );
    let after = std::fs::read(data.path().join("epoch")).expect("kept");
    assert_eq!(epoch, after, "it touched nothing");
    first.drain(Duration::from_secs(1)).await;
    drop(first);
    again().await.expect("the folder is free");
}
