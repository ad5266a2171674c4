//! Workers whose engine cannot take up an answer that was begun, such as a server beside them.
//! [T-INF-11]

use crate::mesh::{DIGEST, Mesh, cold, request};
use crate::script::Script;
use tether_wire::infer::{InferRequest, Resume, Started};
use tether_wire::rpc::{Code, RpcError};

/// An answer of which a lost orchestrator gave three tokens.
fn begun(token: &str) -> InferRequest {
    let started = Started {
        model: None,
        degraded_from: None,
        digest: DIGEST,
        seed: 77,
        numerics_class: String::new(),
        worker: None,
        transcript: (0..3).collect(),
    };
    InferRequest {
        resume: Some(Resume {
            lost: Vec::new(),
            started: Some(started),
        }),
        ..request(token)
    }
}

/// Breakers that opened while answers went on in a fleet whose best worker refuses each of them so.
async fn opened_by(code: Code) -> u64 {
    let mesh = Mesh::with(|config| {
        config.breakers.open_ms = 60_000;
        config.breakers.worker_faults_in_row = 1;
    })
    .await;
    let cannot = RpcError::new(code, "it cannot take up an answer that was begun");
    let server = mesh.worker(10, Script::AcceptAndRefuse(cannot)).await;
    let _able = mesh.worker_with(11, Script::Letters(6), cold).await;
    mesh.fleet("both", |fleet| fleet.len() == 2).await;
    for n in 0..4 {
        let answer = mesh.submit(&begun(&format!("r{n}"))).await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
    assert!(server.scripted.orders() >= 1, "it was asked");
    mesh.metric("tether_orchestrator_breaker_turns_total{kind=\"worker\",state=\"open\"}")
}

#[tokio::test]
async fn a_worker_that_cannot_go_on_is_passed_over_and_not_blamed() {
    assert_eq!(opened_by(Code::Conflict).await, 0);
    assert_eq!(opened_by(Code::Unavailable).await, 1, "a fault is one");
}
