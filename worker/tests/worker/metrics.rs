//! A worker's metrics are read by a collector on its machine, where that is configured. (OBS-1)

use crate::engines::command;
use crate::fixture::{TestMesh, artifact, order, patiently};
use std::net::{SocketAddr, TcpListener};
use tether_telemetry::metrics::{CONTENT_TYPE, Registry, WorkerMetrics};
use tether_wire::{NodeKey, Role};
use tether_worker::{Worker, WorkerConfig};

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// What a collector reads of a worker.
pub(crate) async fn page(worker: &Worker) -> String {
    let address = worker.metrics_addr().expect("configured");
    let got = patiently(reqwest::get(format!("http://{address}/metrics"))).await;
    patiently(got.expect("it answers").text())
        .await
        .expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_reads_what_the_worker_counted() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| config.metrics = Some(any_port()))
        .await;
    worker.serving().await;
    let order = order(1, digest, "one two three");
    let call = orchestrator.order(&worker.worker, &order).await;
    call.events().await.expect("answered");
    let address = worker.worker.metrics_addr().expect("configured");
    let client = reqwest::Client::new();
    let page = || async {
        let got = client.get(format!("http://{address}/metrics")).send();
        let got = patiently(got).await.expect("it answers");
        assert_eq!(got.status(), 200);
        assert_eq!(got.headers()["content-type"], CONTENT_TYPE);
        patiently(got.text()).await.expect("text")
    };
    // The order is counted a moment after its last event was sent.
    let counted = async {
        while !page()
            .await
            .contains(r#"tether_worker_requests_total{outcome="ok"} 1"#)
        {
            tokio::task::yield_now().await;
        }
    };
    patiently(counted).await;
    let page = page().await;
    for line in [
        "tether_worker_models_loaded 1",
        r#"tether_worker_tokens_total{gen_ai_request_model="echo@1.0""#,
        "# EOF",
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let elsewhere = client.get(format!("http://{address}/fleet")).send();
    assert_eq!(
        patiently(elsewhere).await.expect("it answers").status(),
        404
    );
    let post = client.post(format!("http://{address}/metrics")).send();
    assert_eq!(patiently(post).await.expect("it answers").status(), 405);
    drop(worker);
    let gone = client.get(format!("http://{address}/metrics")).send();
    patiently(gone).await.expect_err("it ends with its worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn collectors_that_never_read_keep_no_other_out_for_ever() {
    let mesh = TestMesh::new();
    let (dir, _) = artifact();
    let worker = mesh
        .worker(&[dir.path()], |config| config.metrics = Some(any_port()))
        .await;
    let address = worker.worker.metrics_addr().expect("configured");
    let mut silent = Vec::new();
    for _ in 0..20 {
        let stream = tokio::net::TcpStream::connect(address);
        silent.push(patiently(stream).await.expect("connected"));
    }
    let got = reqwest::get(format!("http://{address}/metrics"));
    let got = patiently(got).await.expect("it answers");
    assert_eq!(got.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_is_named_and_none_is_served_unasked() {
    let mesh = TestMesh::new();
    let (dir, _) = artifact();
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    assert_eq!(worker.worker.metrics_addr(), None);
    let taken = TcpListener::bind(any_port()).expect("a port");
    let address = taken.local_addr().expect("an address");
    let data = tempfile::tempdir().expect("tempdir");
    let config = WorkerConfig {
        metrics: Some(address),
        ..WorkerConfig::default()
    };
    let registry = Registry::new();
    let metrics = WorkerMetrics::register(&registry);
    let node = mesh.node_config(NodeKey::from_seed([79; 32]), Role::Worker);
    let engine = command("echo");
    let started = tether_worker::start(config, data.path(), node, engine, metrics, registry);
    let error = started.await.expect_err("it is taken").to_string();
    assert!(
        error.contains(&address.to_string()) && error.contains("`metrics`"),
        "{error}"
    );
}
