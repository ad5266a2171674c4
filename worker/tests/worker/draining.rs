//! What becomes of answers when their worker stops. (WRK-1)

use crate::fixture::{TestMesh, artifact, order, patiently};
use std::time::Duration;
use tether_wire::beat::NodeState;
use tether_wire::infer::AnswerEvent;
use tether_wire::rpc::Code;

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_every_answer_is_handed_over_with_all_that_was_given_of_it() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| {
            config.slots = 3;
            config.engine.echo_delay_ms = 5;
        })
        .await;
    worker.serving().await;
    let words: Vec<String> = (0..900).map(|n| format!("w{n} ")).collect();
    let text = words.concat();
    let mut calls = Vec::new();
    for n in 1..=4 {
        let mut call = orchestrator
            .order(&worker.worker, &order(n, digest, &text))
            .await;
        call.accepted().await;
        calls.push(call);
    }
    // Three run, one waits.
    for call in &mut calls[..3] {
        call.begun().await;
        assert!(call.event().await.expect("a piece").is_some());
    }
    let drained = async { worker.worker.drain(Duration::from_millis(300)).await };
    let read = async {
        let mut positions = Vec::new();
        for (n, call) in calls.iter_mut().enumerate() {
            let mut next = u32::from(n < 3);
            let error = loop {
                match call.event().await {
                    Ok(Some(AnswerEvent::Chunk(chunk))) => {
                        assert_eq!(chunk.position, next, "nothing is lost");
                        next += chunk.positions().expect("few");
                    }
                    Ok(other) => panic!("no end was due: {other:?}"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.code, Code::Unavailable);
            assert!(error.message.contains("handed over"), "{error}");
            positions.push(next);
        }
        positions
    };
    let draining = orchestrator.said_where(|said| said.beat.state == NodeState::Draining);
    let (all_ended, positions, _) =
        patiently(async { tokio::join!(drained, read, draining) }).await;
    assert!(!all_ended);
    assert!(
        positions[..3].iter().all(|position| *position > 1),
        "{positions:?}"
    );
    assert_eq!(positions[3], 0, "it never had its turn");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drains_in_time_ends_its_answers_well_and_takes_nothing_new() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| config.engine.echo_delay_ms = 20)
        .await;
    worker.serving().await;
    let mut call = orchestrator
        .order(&worker.worker, &order(1, digest, &"word ".repeat(20)))
        .await;
    call.accepted().await;
    call.begun().await;
    let link = orchestrator.link(&worker.worker).await;
    let late = async {
        // Draining is told before anything is refused.
        let mut states = worker.worker.models();
        states.mark_changed();
        while worker.worker.status().state != NodeState::Draining {
            tokio::task::yield_now().await;
        }
        let body = tether_wire::codec::encode(&order(2, digest, "x"));
        let call = link
            .call(tether_wire::rpc::method::INFER, None, &body)
            .await;
        crate::fixture::TestCall(call.expect("called"))
            .refused()
            .await
    };
    let drained = worker.worker.drain(Duration::from_secs(20));
    let (all_ended, events, refused) =
        patiently(async { tokio::join!(drained, call.events(), late) }).await;
    assert!(all_ended);
    let events = events.expect("well");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    assert_eq!(refused.code, Code::Unavailable);
    assert!(refused.message.contains("draining"), "{refused}");
    let state = worker.worker.status().models[0].report().state;
    assert_ne!(state, "loading", "no engine is started again");
}
