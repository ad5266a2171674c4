//! A machine that has too much to do, and tenants that ask for too much. (WRK-1, WRK-6)

use crate::fixture::{TestMesh, artifact, order};
use tether_wire::infer::AnswerEvent;
use tether_wire::rpc::Code;
use tether_worker::health::LOOK_INTERVAL;

#[tokio::test(flavor = "multi_thread")]
async fn a_strained_machine_offers_nothing_says_why_and_sheds_with_a_time_to_come_again() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| {
            config.shed.memory_free_mib = u32::MAX;
        })
        .await;
    worker.serving().await;
    let said = orchestrator
        .said_where(|said| said.worker.faults.len() == 2)
        .await;
    assert!(said.worker.models.is_empty());
    let reason = &said.worker.faults[0].reason;
    assert!(reason.starts_with("memory-strained: "), "{reason}");
    let named = &said.worker.faults[1];
    let model = named.model.parse::<tether_wire::ModelRef>();
    assert!(
        model.is_ok() && named.reason == "memory-strained",
        "{named:?}"
    );
    let error = orchestrator
        .order(&worker.worker, &order(1, digest, "x"))
        .await
        .refused()
        .await;
    assert_eq!(error.code, Code::Overloaded);
    let wait = error.retry_after_ms.expect("a time");
    assert!(u128::from(wait) >= LOOK_INTERVAL.as_millis());
    let status = worker.worker.status();
    assert_eq!(status.strain.expect("too little").code, "memory-strained");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_heartbeat_says_how_the_machine_is() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.orchestrator().await;
    let _worker = mesh.worker(&[], |_| ()).await;
    let said = orchestrator.said().await;
    let vitals = said.beat.vitals.expect("a worker says");
    assert!(vitals.memory_free_mib > 0);
    assert!(vitals.cpu_pct <= 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_rate_is_refused_with_the_time_and_others_are_not() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| {
            config.quota.requests_per_minute = 1;
            config.quota.tokens_per_minute = 5;
        })
        .await;
    worker.serving().await;
    let events = orchestrator
        .order(&worker.worker, &order(1, digest, "one two three"))
        .await
        .events()
        .await
        .expect("the first");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    let error = orchestrator
        .order(&worker.worker, &order(2, digest, "x"))
        .await
        .refused()
        .await;
    assert_eq!(error.code, Code::RateLimited);
    assert_eq!(error.param.as_deref(), Some("requests"));
    // Three tokens of the prompt and four of the answer are two more than the minute's five; a
    // request comes back after a minute.
    let wait = error.retry_after_ms.expect("a time");
    assert!((30_000..=60_000).contains(&wait), "{wait}");
    let mut other = order(3, digest, "x");
    other.tenant = tether_wire::TenantId::new("other").expect("valid");
    let events = orchestrator.order(&worker.worker, &other).await.events();
    events.await.expect("another tenant's affair");
}
