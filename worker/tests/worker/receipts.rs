//! The receipt of an answer. (TRU-3) [T-RCP-1] to [T-RCP-5]

use crate::fixture::{TestMesh, artifact, order, patiently};
use tether_wire::infer::{AnswerEvent, Done};
use tether_wire::receipt::{self, hash};
use tether_wire::{Signed, Tier};

fn done(events: &[AnswerEvent]) -> &Done {
    match events.last() {
        Some(AnswerEvent::Done(done)) => done,
        other => panic!("it did not end well: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_whole_answer_has_a_receipt_of_exactly_what_was_asked_and_given() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let mut short = order(2, digest, "one two three");
    short.sampling.max_tokens = Some(2);
    for order in [order(1, digest, "one two three"), short] {
        let call = orchestrator.order(&worker.worker, &order).await;
        let events = call.events().await.expect("well");
        let done = done(&events);
        let sealed = done.receipt.as_deref().expect("a receipt");
        let proof = receipt::verify(&Signed::from_bytes(sealed), &mesh.mesh).expect("a worker's");
        assert_eq!(proof.tier, Some(Tier::Trusted));
        let receipt = proof.receipt;
        assert_eq!(receipt.signer(), worker.worker.id());
        assert_eq!(receipt.correlation, order.correlation);
        assert_eq!(
            (receipt.attempt, receipt.fence),
            (order.attempt, order.fence)
        );
        assert_eq!((&receipt.model, receipt.digest), (&order.model, digest));
        assert_eq!(
            receipt.request,
            hash::request(&order.input, &order.sampling, &order.output, 7)
        );
        assert_eq!(receipt.seed, 7);
        let mut given = hash::Given::default();
        for event in &events {
            if let AnswerEvent::Chunk(chunk) = event {
                given.take(chunk);
            }
        }
        assert_eq!(receipt.text, given.text());
        assert_eq!(receipt.calls, None);
        assert_eq!(receipt.tokens, given.tokens());
        assert_eq!(receipt.prompt_tokens, done.usage.prompt_tokens);
        assert_eq!(receipt.completion_tokens, done.usage.completion_tokens);
        assert_eq!(receipt.finish, done.finish);
        assert!(receipt.engine.contains("echo"), "{}", receipt.engine);
        assert_eq!(receipt.continued_from, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_failed_has_none() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let too_long = order(1, digest, &"word ".repeat(3_000));
    let mut call = orchestrator.order(&worker.worker, &too_long).await;
    loop {
        match patiently(call.event()).await {
            Ok(Some(event)) => assert!(!matches!(event, AnswerEvent::Done(_)), "{event:?}"),
            Ok(None) => panic!("it ended well"),
            Err(_) => return,
        }
    }
}
