//! The next owner of a job takes its answer over as it stands. [T-INF-15]

use crate::fixture::{TestMesh, TestOrchestrator, TestWorker, artifact, order};
use tether_wire::infer::{AnswerEvent, WorkOrder};
use tether_wire::rpc::Code;
use tether_wire::{Digest, Receipt, Signed};

const WORDS: &str = "one two three four five six seven eight nine ten";

/// A worker with one place, where so many may wait.
async fn worker(mesh: &TestMesh, queue: u32) -> (TestWorker, Digest, tempfile::TempDir) {
    let (dir, digest) = artifact();
    let worker = mesh
        .worker(&[dir.path()], |config| {
            config.slots = 1;
            config.queue_limit = queue;
            config.engine.echo_delay_ms = 30;
        })
        .await;
    worker.serving().await;
    (worker, digest, dir)
}

/// The order of the next owner, who has the first tokens of the answer.
fn next_owner(order: &WorkOrder, transcript: &[u32]) -> WorkOrder {
    WorkOrder {
        fence: order.fence + 1,
        attempt: order.attempt + 1,
        transcript: transcript.to_vec(),
        ..order.clone()
    }
}

fn text(events: &[AnswerEvent]) -> String {
    let parts = events.iter().map(|event| match event {
        AnswerEvent::Chunk(chunk) => chunk.text.as_str(),
        _ => "",
    });
    parts.collect()
}

fn receipt(mesh: &TestMesh, events: &[AnswerEvent]) -> Receipt {
    let Some(AnswerEvent::Done(done)) = events.last() else {
        panic!("it did not end well: {events:?}")
    };
    let sealed = done.receipt.clone().expect("a receipt");
    let receipt = Signed::<Receipt>::from_bytes(sealed).verify(&mesh.mesh.id);
    Receipt::clone(&receipt.expect("rightly signed"))
}

/// Gives the order, and waits for the first tokens of its answer.
async fn begun(
    orchestrator: &TestOrchestrator,
    worker: &TestWorker,
    order: &WorkOrder,
) -> (crate::fixture::TestCall, Vec<u32>) {
    let mut call = orchestrator.order(&worker.worker, order).await;
    call.accepted().await;
    call.begun().await;
    let mut tokens = Vec::new();
    while tokens.len() < 3 {
        if let Some(AnswerEvent::Chunk(chunk)) = call.event().await.expect("a piece") {
            tokens.extend(chunk.tokens);
        }
    }
    (call, tokens)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_goes_on_with_an_answer_as_it_stands_and_needs_no_place_beside_it() {
    let mesh = TestMesh::new();
    let (lost, next) = (mesh.orchestrator().await, mesh.orchestrator().await);
    let (worker, digest, _dir) = worker(&mesh, 0).await;
    let first = order(1, digest, WORDS);
    let (former, tokens) = begun(&lost, &worker, &first).await;
    let second = next_owner(&first, &tokens);
    let events = next.order(&worker.worker, &second).await.events().await;
    let events = events.expect("there is one place, and it has that");
    assert_eq!(text(&events), WORDS);
    assert!(matches!(events[1], AnswerEvent::Begun(_)), "{events:?}");
    let AnswerEvent::Chunk(again) = &events[2] else {
        panic!("{events:?}")
    };
    assert_eq!((again.position, &again.tokens), (0, &tokens), "one piece");
    let receipt = receipt(&mesh, &events);
    assert_eq!((receipt.fence, receipt.attempt), (2, 2));
    assert_eq!(receipt.continued_from, 3);
    let ended = former.events().await.expect_err("nobody waits for it");
    assert_eq!(ended.code, Code::Conflict);
    let load = worker.worker.status().load;
    assert_eq!((load.running, load.waiting), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_just_ended_is_told_to_the_next_owner_and_not_made_again() {
    let mesh = TestMesh::new();
    let (lost, next) = (mesh.orchestrator().await, mesh.orchestrator().await);
    let (worker, digest, _dir) = worker(&mesh, 0).await;
    let first = order(1, digest, "one two three");
    let (former, tokens) = begun(&lost, &worker, &first).await;
    former.events().await.expect("whole");
    let (busy, _) = begun(&lost, &worker, &order(2, digest, WORDS)).await;
    let second = next_owner(&first, &tokens[..2]);
    let events = next.order(&worker.worker, &second).await.events().await;
    let events = events.expect("it needs no place");
    assert_eq!(text(&events), "one two three");
    assert_eq!(receipt(&mesh, &events).fence, 2);
    let rest = text(&busy.events().await.expect("undisturbed"));
    assert!(rest.ends_with("ten") && WORDS.ends_with(&rest), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_beginning_of_the_answer_is_not_gone_on_from() {
    let mesh = TestMesh::new();
    let (lost, next) = (mesh.orchestrator().await, mesh.orchestrator().await);
    let (worker, digest, _dir) = worker(&mesh, 1).await;
    let first = order(1, digest, WORDS);
    let (former, _) = begun(&lost, &worker, &first).await;
    let other = WorkOrder {
        correlation: first.correlation,
        ..order(1, digest, "something else is asked for")
    };
    let call = next.order(&worker.worker, &next_owner(&other, &[])).await;
    let told = call.events().await;
    let ended = former.events().await.expect_err("nobody waits for it");
    assert_eq!(ended.code, Code::Conflict);
    let told = told.expect("in its turn");
    assert_eq!(text(&told), "something else is asked for");
    // A former owner's order that comes late takes nothing over.
    let late = lost.order(&worker.worker, &first).await;
    assert_eq!(late.refused().await.code, Code::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_drawn_elsewhere_is_vouched_for_by_nobody_who_only_told_it_again() {
    let mesh = TestMesh::new();
    let (lost, next) = (mesh.orchestrator().await, mesh.orchestrator().await);
    let (worker, digest, _dir) = worker(&mesh, 1).await;
    let first = order(1, digest, WORDS);
    let (former, tokens) = begun(&lost, &worker, &first).await;
    drop(former);
    let goes_on = next_owner(&first, &tokens);
    let (former, _) = begun(&lost, &worker, &goes_on).await;
    // Its gateway was behind.
    let second = next_owner(&goes_on, &tokens[..1]);
    let events = next.order(&worker.worker, &second).await.events().await;
    let events = events.expect("it is made here from there on");
    assert_eq!(text(&events), WORDS);
    assert_eq!(receipt(&mesh, &events).continued_from, 1);
    assert_eq!(
        former.events().await.expect_err("nobody waits").code,
        Code::Conflict
    );
    let load = worker.worker.status().load;
    assert_eq!((load.running, load.waiting), (0, 0));
}
