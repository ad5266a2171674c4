//! The receipt of an answer. (TRU-3) [T-RCP-1] to [T-RCP-5]

use crate::fixture::{TestMesh, artifact, order, patiently};
use tether_wire::infer::{AnswerEvent, Done, Input, Message, Speaker, Tool, WorkOrder};
use tether_wire::receipt::{self, hash};
use tether_wire::{Receipt, Signed, Tier};

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

/// [T-INF-11]
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_continued_has_a_receipt_of_the_whole_and_of_where_it_went_on() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let words = "one two <tool_call>{\"name\": \"clock\", \"arguments\": {}}</tool_call>";
    let mut asked = order(1, digest, words);
    asked.input = Input::Chat(vec![Message::new(Speaker::User, words)]);
    asked.output.tools = vec![Tool {
        name: "clock".to_owned(),
        description: String::new(),
        parameters: String::new(),
        strict: false,
    }];
    let call = orchestrator.order(&worker.worker, &asked).await;
    let (whole, tokens) = signed(&mesh, &call.events().await.expect("well"));
    assert!(whole.calls.is_some() && whole.continued_from == 0);
    for given in 1..=tokens.len() {
        let again = WorkOrder {
            attempt: asked.attempt + u32::try_from(given).expect("few"),
            transcript: tokens[..given].to_vec(),
            ..asked.clone()
        };
        let call = orchestrator.order(&worker.worker, &again).await;
        let (receipt, sent) = signed(&mesh, &call.events().await.expect("well"));
        assert_eq!(
            sent, tokens,
            "the whole is told, so that it can be compared"
        );
        assert_eq!(receipt.continued_from as usize, given);
        assert_eq!(receipt.first_token_ms.is_some(), given < tokens.len());
        let of_the_whole = |it: &Receipt| {
            let counts = (it.prompt_tokens, it.completion_tokens, it.finish);
            (it.text, it.calls, it.tokens, it.request, it.seed, counts)
        };
        assert_eq!(of_the_whole(&receipt), of_the_whole(&whole), "from {given}");
    }
}

/// The receipt of an answer, and the tokens that were sent of it.
fn signed(mesh: &TestMesh, events: &[AnswerEvent]) -> (Receipt, Vec<u32>) {
    let sealed = done(events).receipt.as_deref().expect("a receipt");
    let proof = receipt::verify(&Signed::from_bytes(sealed), &mesh.mesh).expect("a worker's");
    let chunks = events.iter().filter_map(|event| match event {
        AnswerEvent::Chunk(chunk) => Some(chunk.tokens.clone()),
        _ => None,
    });
    ((*proof.receipt).clone(), chunks.flatten().collect())
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
