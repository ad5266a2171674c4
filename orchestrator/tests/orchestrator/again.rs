//! A key that comes again after its answer: it is given the same, and nothing runs. (RSV-1)

use crate::mesh::{Mesh, request, request_of, submitted};
use crate::script::Script;
use tether_orchestrator::job::JobState;
use tether_wire::infer::{AnswerEvent, Input};
use tether_wire::rpc::Code;

/// The answers to one request that comes fifty times at once.
async fn fifty(mesh: &Mesh) -> Vec<Vec<AnswerEvent>> {
    let link = mesh.link().await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(submitted(&link, &request("a")).await);
    }
    let mut events = Vec::new();
    for answer in &mut answers {
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
        events.push(answer.events.clone());
    }
    events
}

#[tokio::test]
async fn fifty_equal_keys_at_once_and_again_after_a_restart_are_one_run_and_equal_answers() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Letters(12)).await;
    let first = fifty(&mesh).await;
    let job = mesh.job(&request("a")).await;
    assert_eq!(
        (job.state, job.usage.completion_tokens),
        (JobState::Done, 12)
    );
    let mesh = mesh.restart(|_| ()).await;
    let again = fifty(&mesh).await;
    assert!(first.iter().chain(&again).all(|events| *events == first[0]));
    assert_eq!(worker.scripted.orders(), 1);
    assert_eq!(mesh.job(&request("a")).await, job, "one bill");
    assert!(mesh.metric("tether_orchestrator_answered_again_total") >= 1);
}

#[tokio::test]
async fn an_answer_that_is_kept_needs_no_worker() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.worker(10, Script::Letters(3)).await;
    let first = mesh.submit(&request("a")).await;
    let goodbye = worker.goodbye(5);
    worker.send(&goodbye).await;
    mesh.fleet("nobody is there", |fleet| fleet.is_empty())
        .await;
    assert_eq!(mesh.submit(&request("a")).await.events, first.events);
    let mut other = request("a");
    other.input = Input::Text("something else".into());
    let other = mesh.submit(&other).await;
    assert_eq!(other.failed().code, Code::Conflict, "another body");
    let new = mesh.submit(&request("b")).await;
    assert_eq!(new.failed().code, Code::Unavailable);
}

#[tokio::test]
async fn another_tenants_same_key_reaches_nothing_of_it() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Letters(3)).await;
    assert!(mesh.submit(&request("a")).await.is_whole());
    let others = request_of("globex", "a");
    assert!(mesh.submit(&others).await.is_whole());
    assert_eq!(worker.scripted.orders(), 2, "a run of its own");
    let store = mesh.orchestrator.store();
    let theirs = store
        .answer(others.tenant, request("a").correlation, 1)
        .await;
    assert_eq!(theirs.expect("works").map(|_| ()), None);
}

#[tokio::test]
async fn an_answer_that_is_not_kept_any_more_is_said_to_be_and_not_made_again() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Letters(3)).await;
    assert!(mesh.submit(&request("a")).await.is_whole());
    let forgotten = mesh.orchestrator.store().forget_key(request("a").tenant);
    assert_eq!(forgotten.await, Ok(true));
    let again = mesh.submit(&request("a")).await;
    assert_eq!(again.failed().code, Code::Conflict);
    let told = &again.failed().message;
    assert!(told.contains("not kept any more"), "{told}");
    assert_eq!(worker.scripted.orders(), 1);
}

#[tokio::test]
async fn what_an_answer_says_of_when_it_was_made_is_the_same_each_time() {
    let mesh = Mesh::start().await;
    let _worker = mesh.worker(10, Script::ChunkAndEnd).await;
    let cut = mesh.submit(&request("a")).await;
    let created_ms = |events: &[AnswerEvent]| match &events[0] {
        AnswerEvent::Accepted(accepted) => accepted.created_ms,
        other => panic!("{other:?}"),
    };
    let first = created_ms(&cut.events);
    assert_eq!(first, mesh.job(&request("a")).await.created_ms);
    let anew = mesh.submit(&request("a")).await;
    assert_eq!(created_ms(&anew.events), first, "begun anew");
}
