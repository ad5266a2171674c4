//! Requests that wait while all workers of their model are busy. (SCH-5, SCH-7)

use crate::admin::get;
use crate::mesh::{Answer, Mesh, PATIENCE, Worker, request, within};
use crate::script::Script;
use tether_wire::codec;
use tether_wire::rpc::{Code, method};

/// Slots of the worker, and one that it has at hand.
const PLACES: u32 = 5;

pub async fn submit(mesh: &Mesh, token: &str) -> Answer {
    let link = mesh.link().await;
    let body = codec::encode(&request(token));
    let call = link.call(method::SUBMIT, Some(PATIENCE), &body).await;
    Answer::new(call.expect("called"))
}

/// As many requests as the worker has places for.
pub async fn filled(mesh: &Mesh, worker: &Worker) -> Vec<Answer> {
    let mut answers = Vec::new();
    for n in 0..PLACES {
        answers.push(submit(mesh, &format!("r{n}")).await);
    }
    let mut orders = worker.scripted.orders.subscribe();
    within("all places are taken", orders.wait_for(|it| *it == PLACES))
        .await
        .expect("lives");
    answers
}

pub async fn is_waiting(mesh: &Mesh, count: u32) {
    let line = format!("tether_orchestrator_requests_waiting{{priority=\"normal\"}} {count}");
    within("it waits", async {
        while !get(mesh, "/metrics", None).await.1.contains(&line) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_for_which_no_place_is_free_waits_here_and_has_its_turn() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Queued(1)).await;
    let mut answers = filled(&mesh, &worker).await;
    answers.push(submit(&mesh, "last").await);
    is_waiting(&mesh, 1).await;
    assert_eq!(worker.scripted.orders(), PLACES);
    worker.scripted.turn.send_replace(true);
    for answer in &mut answers {
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
    assert_eq!(worker.scripted.orders(), PLACES + 1);
    is_waiting(&mesh, 0).await;
}

#[tokio::test]
async fn a_request_that_has_no_turn_in_time_is_told_when_to_come_again_and_is_no_job() {
    let mesh = Mesh::with(|config| config.queue_timeout_ms = 500).await;
    let worker = mesh.worker(10, Script::Paused(2)).await;
    let mut answers = filled(&mesh, &worker).await;
    let mut last = submit(&mesh, "last").await;
    last.rest().await;
    assert_eq!(last.failed().code, Code::Overloaded);
    assert!(last.failed().retry_after_ms.is_some());
    let job = (mesh.orchestrator.store())
        .job(request("last").correlation)
        .await;
    assert_eq!(job.expect("the store works"), None);
    worker.scripted.turn.send_replace(true);
    for answer in &mut answers {
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
    assert_eq!(worker.scripted.orders(), PLACES);
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_makes_room_and_costs_no_worker() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Queued(1)).await;
    let mut answers = filled(&mesh, &worker).await;
    let gone = submit(&mesh, "gone").await;
    is_waiting(&mesh, 1).await;
    drop(gone);
    is_waiting(&mesh, 0).await;
    worker.scripted.turn.send_replace(true);
    for answer in &mut answers {
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
    assert_eq!(worker.scripted.orders(), PLACES);
}

#[tokio::test]
async fn more_than_may_wait_are_refused_at_once() {
    let mesh = Mesh::with(|config| config.queue.entries = 1).await;
    let worker = mesh.worker(10, Script::Queued(1)).await;
    let _answers = filled(&mesh, &worker).await;
    let _waits = submit(&mesh, "waits").await;
    is_waiting(&mesh, 1).await;
    let refused = mesh.submit(&request("refused")).await;
    assert_eq!(refused.failed().code, Code::Overloaded);
    assert!(refused.failed().retry_after_ms.is_some());
    assert!(refused.failed().message.contains("too many requests wait"));
    assert_eq!(
        mesh.metric("tether_orchestrator_requests_shed_total{reason=\"full\"}"),
        1
    );
}
