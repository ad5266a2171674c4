//! What is left alone for a while, since it fails. (SCH-3)

use crate::admin::get;
use crate::mesh::{Mesh, Worker, cold, request, within};
use crate::script::Script;
use crate::waiting::{is_waiting, submit};
use serde_json::Value;
use tether_orchestrator::OrchestratorConfig;
use tether_wire::NodeId;
use tether_wire::rpc::{Code, RpcError};

/// The row of a worker.
async fn row(mesh: &Mesh, worker: NodeId) -> Value {
    let token = std::fs::read_to_string(mesh.orchestrator.admin_token_file()).expect("a token");
    let (_, text) = get(mesh, "/fleet", Some(&token)).await;
    let rows: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let id = worker.to_hex();
    let row = rows.into_iter().find(|row| row["id"] == id);
    row.expect("its row")
}

async fn open_or_half_open(mesh: &Mesh) -> u64 {
    let (_, text) = get(mesh, "/metrics", None).await;
    let lines = text
        .lines()
        .filter(|it| it.starts_with("tether_orchestrator_breakers{"));
    let counts = lines.map(|line| line.rsplit(' ').next().expect("a count"));
    counts.map(|it| it.parse::<u64>().expect("a number")).sum()
}

#[tokio::test]
async fn what_tenants_do_wrong_leaves_every_breaker_closed() {
    let mesh = Mesh::start().await;
    let refusal = || Script::Refuse(RpcError::new(Code::Invalid, "no"));
    let workers = [
        mesh.worker(10, refusal()).await,
        mesh.worker(11, refusal()).await,
        mesh.worker(12, refusal()).await,
    ];
    for n in 0..24 {
        let answer = mesh.submit(&request(&format!("r{n}"))).await;
        assert_eq!(answer.failed().code, Code::Invalid);
    }
    assert_eq!(open_or_half_open(&mesh).await, 0);
    for worker in &workers {
        assert_eq!(row(&mesh, worker.id()).await["breaker"], "closed");
    }
}

#[tokio::test]
async fn a_worker_that_fails_half_its_requests_is_out_soon_and_nobody_notices() {
    let mesh = Mesh::with(|config| {
        config.breakers.open_ms = 60_000;
        config.breakers.worker_least_requests = 6;
    })
    .await;
    let flaky = mesh.worker(10, Script::Flaky).await;
    let good = mesh.worker_with(11, Script::Answer(1), cold).await;
    mesh.fleet("both", |fleet| fleet.len() == 2).await;
    for n in 0..30 {
        let answer = mesh.submit(&request(&format!("r{n}"))).await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
    let orders = flaky.scripted.orders();
    assert!((6..=8).contains(&orders), "{orders}");
    let out = row(&mesh, flaky.id()).await;
    assert_eq!(out["breaker"], "open");
    let reason = out["reason"].as_str().expect("a reason");
    assert!(
        reason.starts_with("its breaker is open for another "),
        "{reason}"
    );
    assert_eq!(row(&mesh, good.id()).await["breaker"], "closed");
    assert_eq!(
        open_or_half_open(&mesh).await,
        1,
        "no model's and no region's"
    );
    let opened = "tether_orchestrator_breaker_turns_total{kind=\"worker\",state=\"open\"}";
    assert_eq!(mesh.metric(opened), 1);
}

#[tokio::test]
async fn a_worker_that_is_well_again_is_tried_and_back() {
    let mesh = Mesh::with(|config| {
        config.breakers.open_ms = 1_000;
        config.breakers.worker_faults_in_row = 1;
    })
    .await;
    let flaky = mesh.worker(10, Script::Flaky).await;
    let _good = mesh.worker_with(11, Script::Answer(1), cold).await;
    mesh.fleet("both", |fleet| fleet.len() == 2).await;
    for n in 0..2 {
        assert!(mesh.submit(&request(&format!("r{n}"))).await.is_whole());
    }
    assert_eq!(row(&mesh, flaky.id()).await["breaker"], "open");
    flaky.scripted.turn.send_replace(true);
    let back = async {
        for n in 0.. {
            assert!(mesh.submit(&request(&format!("s{n}"))).await.is_whole());
            if row(&mesh, flaky.id()).await["breaker"] == "closed" {
                return;
            }
        }
    };
    within("it is back", back).await;
    let orders = flaky.scripted.orders();
    assert!(mesh.submit(&request("last")).await.is_whole());
    assert_eq!(flaky.scripted.orders(), orders + 1, "it is the best again");
}

#[tokio::test]
async fn while_all_workers_are_left_alone_callers_are_told_when_to_come_again() {
    let mesh = Mesh::with(|config| {
        config.breakers.open_ms = 40_000;
        config.breakers.worker_faults_in_row = 1;
    })
    .await;
    let refusal = Script::Refuse(RpcError::new(Code::Internal, "its engine fell"));
    let worker = mesh.worker(10, refusal).await;
    assert_eq!(
        mesh.submit(&request("a")).await.failed().code,
        Code::Internal
    );
    let orders = worker.scripted.orders();
    let answer = mesh.submit(&request("b")).await;
    assert_eq!(answer.failed().code, Code::Unavailable);
    let after_ms = answer.failed().retry_after_ms.expect("when");
    assert!((10_000..=40_000).contains(&after_ms), "{after_ms}");
    assert_eq!(worker.scripted.orders(), orders, "nobody was asked");
}

/// A worker that failed once and lets so many requests through now, which wait for the test.
async fn half_open(probes: u32) -> (Mesh, Worker) {
    half_open_with(probes, |_| ()).await
}

async fn half_open_with(
    probes: u32,
    change: impl FnOnce(&mut OrchestratorConfig),
) -> (Mesh, Worker) {
    let mesh = Mesh::with(|config| {
        change(config);
        config.breakers.open_ms = 1_000;
        config.breakers.worker_faults_in_row = 1;
        config.breakers.probes = probes;
    })
    .await;
    let worker = mesh.worker(10, Script::Recovers(1)).await;
    assert_eq!(
        mesh.submit(&request("a")).await.failed().code,
        Code::Internal
    );
    has_breaker(&mesh, worker.id(), "half-open").await;
    (mesh, worker)
}

async fn has_breaker(mesh: &Mesh, worker: NodeId, state: &str) {
    within(state, async {
        while row(mesh, worker).await["breaker"] != state {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn while_a_worker_is_tried_again_those_beyond_the_first_few_wait_for_their_turn() {
    let (mesh, worker) = half_open(2).await;
    let mut answers = Vec::new();
    for n in 0..8 {
        answers.push(submit(&mesh, &format!("r{n}")).await);
    }
    is_waiting(&mesh, 6).await;
    let mut orders = worker.scripted.orders.subscribe();
    let tried = within("two try it", orders.wait_for(|it| *it == 1 + 2)).await;
    tried.expect("lives");
    worker.scripted.turn.send_replace(true);
    for answer in &mut answers {
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
    assert_eq!(row(&mesh, worker.id()).await["breaker"], "closed");
}

/// Waiting for one that is tried by others is a retry as any other.
#[tokio::test]
async fn a_request_that_had_all_its_attempts_has_no_further_one_at_a_worker_that_is_tried() {
    let (mesh, recovers) = half_open_with(1, |config| config.retry.attempts = 1).await;
    let mut probe = submit(&mesh, "probe").await;
    let mut orders = recovers.scripted.orders.subscribe();
    let tried = within("it is tried", orders.wait_for(|it| *it == 2)).await;
    tried.expect("lives");
    let refusal = Script::Refuse(RpcError::new(Code::Internal, "its engine fell"));
    let _fails = mesh.worker(11, refusal).await;
    mesh.fleet("both", |fleet| fleet.len() == 2).await;
    assert_eq!(
        mesh.submit(&request("r")).await.failed().code,
        Code::Internal
    );
    recovers.scripted.turn.send_replace(true);
    probe.rest().await;
    assert!(probe.is_whole(), "{:?}", probe.error);
    assert_eq!(recovers.scripted.orders(), 2);
}

#[tokio::test]
async fn a_request_whose_worker_failed_waits_for_another_one_that_is_tried_just_then() {
    let (mesh, recovers) = half_open(1).await;
    let mut probe = submit(&mesh, "probe").await;
    let mut orders = recovers.scripted.orders.subscribe();
    let tried = within("it is tried", orders.wait_for(|it| *it == 2)).await;
    tried.expect("lives");
    let refusal = Script::Refuse(RpcError::new(Code::Internal, "its engine fell"));
    let fails = mesh.worker(11, refusal).await;
    mesh.fleet("both", |fleet| fleet.len() == 2).await;
    let mut answer = submit(&mesh, "r").await;
    // It was asked and failed, and nobody else is left before the first one is well.
    has_breaker(&mesh, fails.id(), "open").await;
    recovers.scripted.turn.send_replace(true);
    for answer in [&mut probe, &mut answer] {
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
    assert_eq!(fails.scripted.orders(), 1);
}
