//! A second worker that is asked beside one which gives nothing: where the policy wants it, never at the
//! cost of others, and the caller sees one answer. (SCH-4)

use crate::mesh::{
    Answer, DIGEST, Mesh, Says, Worker, cold, request, request_of, submitted, within,
};
use crate::placed::explained;
use crate::script::{LEARNT, SLOW, Script, Scripted};
use crate::waiting::{filled, is_waiting, submit};
use serde_json::{Value, json};
use tether_orchestrator::OrchestratorConfig;
use tether_orchestrator::job::JobState;
use tether_wire::infer::{InferRequest, Resume, Started, Usage};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::watch;

const SOON: &str = r#"{"global": {"hedge_after_ms": 50}}"#;

/// A mesh where second workers are asked soon, and requests are explained.
async fn mesh(change: impl FnOnce(&mut OrchestratorConfig)) -> Mesh {
    with(SOON, change).await
}

async fn with(policy: &str, change: impl FnOnce(&mut OrchestratorConfig)) -> Mesh {
    Mesh::with_policy(policy, |config| {
        config.placement.explained = 1.0;
        change(config);
    })
    .await
}

/// One that is asked first, whatever else it has to do, and one that is asked beside it.
async fn two(mesh: &Mesh, first: Script, second: Script) -> (Worker, Worker) {
    let wide = |says: &mut Says| {
        let worker = says.card.worker.as_mut().expect("a worker");
        worker.capacity = 64;
    };
    let first = mesh.worker_with(10, first, wide).await;
    let second = mesh.worker_with(11, second, cold).await;
    mesh.fleet("both", |fleet| fleet.len() == 2).await;
    (first, second)
}

async fn reaches(what: &str, count: &watch::Sender<u32>, wanted: u32) {
    let mut count = count.subscribe();
    let reached = within(what, count.wait_for(|it| *it == wanted)).await;
    reached.expect("lives");
}

async fn asked(worker: &Worker) {
    reaches("it is asked", &worker.scripted.orders, 1).await;
}

/// Waits for a count of hedges.
async fn counted(mesh: &Mesh, outcome: &str) {
    let line = format!("tether_orchestrator_hedges_total{{outcome=\"{outcome}\"}}");
    within(outcome, async {
        while mesh.metric(&line) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let all = mesh.registry.encode();
    let all = all
        .lines()
        .filter(|it| it.starts_with("tether_orchestrator_hedges_total"));
    assert_eq!(all.count(), 1, "nothing else is counted");
    assert_eq!(mesh.metric(&line), 1);
}

/// Worker, outcome and whether it is a hedge, of each order.
async fn orders(mesh: &Mesh, request: &InferRequest) -> Value {
    let (status, kept) = explained(mesh, &request.correlation.to_hex()).await;
    assert_eq!(status, 200, "{kept}");
    let orders = kept["runs"][0]["orders"].as_array().expect("orders");
    orders
        .iter()
        .map(|it| json!([it["worker"], it["outcome"], it["hedge"]]))
        .collect()
}

fn order(worker: &Worker, outcome: &str, hedge: bool) -> Value {
    json!([worker.id().to_hex(), outcome, hedge])
}

fn attempt_and_seed(scripted: &Scripted) -> (u32, Option<u64>) {
    let last = scripted.last.borrow();
    let last = last.as_ref().expect("an order");
    (last.attempt, last.sampling.seed)
}

fn fell() -> RpcError {
    RpcError::new(Code::Internal, "its engine fell")
}

async fn by(mut answer: Answer, worker: &Worker, text: &str) {
    answer.rest().await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.worker(), Some(worker.id()));
    assert_eq!(answer.text(), text);
}

#[tokio::test]
async fn a_worker_that_gives_nothing_loses_to_the_second_and_the_caller_sees_one_answer() {
    let mesh = mesh(|_| ()).await;
    let (first, second) = two(&mesh, Script::BeginOnly, Script::Letters(3)).await;
    by(submit(&mesh, "a").await, &second, "abc").await;
    reaches("the first is cancelled", &first.scripted.cancelled, 1).await;
    assert_eq!(second.scripted.orders(), 1);
    let (one, seed) = attempt_and_seed(&first.scripted);
    assert_eq!((one, seed.is_some()), (1, true));
    assert_eq!(attempt_and_seed(&second.scripted), (2, seed));
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.state, job.attempts), (JobState::Done, 2));
    assert_eq!(job.worker, Some(second.id()));
    let usage = Usage {
        prompt_tokens: 3,
        completion_tokens: 3,
    };
    assert_eq!(job.usage, usage, "billed once");
    counted(&mesh, "won").await;
    let told = orders(&mesh, &request("a")).await;
    let wanted = json!([order(&first, "lost", false), order(&second, "ok", true)]);
    assert_eq!(told, wanted);
    assert_eq!(mesh.in_flight(&first).await, 0);
}

#[tokio::test]
async fn a_worker_that_gives_something_first_after_all_answers_and_the_second_is_cancelled() {
    let mesh = mesh(|_| ()).await;
    let (first, second) = two(&mesh, Script::Queued(2), Script::BeginOnly).await;
    let answer = submit(&mesh, "a").await;
    asked(&second).await;
    first.scripted.turn.send_replace(true);
    by(answer, &first, "xx").await;
    reaches("the second is cancelled", &second.scripted.cancelled, 1).await;
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.attempts, job.worker), (1, Some(first.id())));
    counted(&mesh, "lost").await;
    let told = orders(&mesh, &request("a")).await;
    let wanted = json!([order(&first, "ok", false), order(&second, "lost", true)]);
    assert_eq!(told, wanted);
    assert_eq!(mesh.in_flight(&second).await, 0);
}

#[tokio::test]
async fn a_second_worker_goes_on_where_the_first_fails_and_nobody_is_asked_anew() {
    let mesh = mesh(|_| ()).await;
    let (first, second) = two(&mesh, Script::Falls(0, fell()), Script::Queued(2)).await;
    let answer = submit(&mesh, "a").await;
    asked(&second).await;
    first.scripted.turn.send_replace(true);
    let failed = "tether_orchestrator_attempt_duration_seconds_count{outcome=\"internal\"}";
    within("the first failed", async {
        while mesh.metric(failed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    second.scripted.turn.send_replace(true);
    by(answer, &second, "xx").await;
    assert_eq!((first.scripted.orders(), second.scripted.orders()), (1, 1));
    assert_eq!(mesh.job(&request("a")).await.attempts, 2);
    counted(&mesh, "adopted").await;
    let told = orders(&mesh, &request("a")).await;
    let wanted = json!([order(&first, "internal", false), order(&second, "ok", true)]);
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn a_second_worker_that_fails_disturbs_nobody_and_is_left_alone_for_it() {
    let mesh = mesh(|config| {
        config.breakers.open_ms = 60_000;
        config.breakers.worker_faults_in_row = 1;
    })
    .await;
    let (first, second) = two(&mesh, Script::Queued(2), Script::Refuse(fell())).await;
    let answer = submit(&mesh, "a").await;
    let failed = "tether_orchestrator_attempt_duration_seconds_count{outcome=\"internal\"}";
    within("the second failed", async {
        while mesh.metric(failed) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first.scripted.turn.send_replace(true);
    by(answer, &first, "xx").await;
    counted(&mesh, "failed").await;
    let told = orders(&mesh, &request("a")).await;
    let wanted = json!([order(&first, "ok", false), order(&second, "internal", true)]);
    assert_eq!(told, wanted);
    first.scripted.turn.send_replace(false);
    let answer = submit(&mesh, "b").await;
    let nobody = "tether_orchestrator_hedges_total{outcome=\"no-worker\"}";
    within("nobody is asked", async {
        while mesh.metric(nobody) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    first.scripted.turn.send_replace(true);
    by(answer, &first, "xx").await;
    assert_eq!(second.scripted.orders(), 1, "its breaker is open");
}

/// The one beside it failed, and there is no further attempt.
#[tokio::test]
async fn a_slow_worker_is_not_left_where_the_second_one_was_the_last_that_could_be_asked() {
    let later = r#"{"global": {"hedge_after_ms": 500}}"#;
    let mesh = with(later, |config| config.retry.attempts = 2).await;
    let (first, second) = two(&mesh, Script::HeldUp, Script::Refuse(fell())).await;
    for n in 0..LEARNT {
        by(submit(&mesh, &format!("r{n}")).await, &first, "x").await;
    }
    first.scripted.turn.send_replace(true);
    let answer = submit(&mesh, "a").await;
    asked(&second).await;
    let third = mesh.worker_with(12, Script::Answer(1), cold).await;
    // For how long it is slow is the case, not a wait for something.
    tokio::time::sleep(SLOW).await;
    first.scripted.turn.send_replace(false);
    by(answer, &first, "x").await;
    assert_eq!(third.scripted.orders(), 0);
}

#[tokio::test]
async fn where_both_fail_a_third_is_asked_and_no_more_than_three_are() {
    let mesh = mesh(|_| ()).await;
    let (first, second) = two(&mesh, Script::Falls(0, fell()), Script::Falls(0, fell())).await;
    let answer = submit(&mesh, "a").await;
    asked(&second).await;
    let third = mesh.worker_with(12, Script::Refuse(fell()), cold).await;
    let fourth = mesh.worker_with(13, Script::Refuse(fell()), cold).await;
    first.scripted.turn.send_replace(true);
    second.scripted.turn.send_replace(true);
    let mut answer = answer;
    answer.rest().await;
    assert_eq!(answer.failed().code, Code::Internal);
    let asked = [&first, &second, &third, &fourth].map(|it| it.scripted.orders());
    assert_eq!(asked.iter().sum::<u32>(), 3, "{asked:?}");
    assert_eq!(mesh.job(&request("a")).await.state, JobState::Failed);
}

#[tokio::test]
async fn an_answer_that_dies_behind_its_first_piece_goes_on_at_the_one_that_was_slower() {
    let mesh = mesh(|_| ()).await;
    let (first, second) = two(&mesh, Script::Falls(2, fell()), Script::Queued(4)).await;
    let answer = submit(&mesh, "a").await;
    asked(&second).await;
    first.scripted.turn.send_replace(true);
    reaches("the second is cancelled", &second.scripted.cancelled, 1).await;
    second.scripted.turn.send_replace(true);
    by(answer, &first, "xxxx").await;
    assert_eq!(
        attempt_and_seed(&second.scripted).0,
        3,
        "no number is used twice"
    );
    assert_eq!(mesh.job(&request("a")).await.attempts, 3);
    let told = orders(&mesh, &request("a")).await;
    let wanted = json!([
        order(&first, "internal", false),
        order(&second, "lost", true),
        order(&second, "ok", false)
    ]);
    assert_eq!(told, wanted);
}

/// Of three requests that are given nothing, the last is that of a tenant with a hedge: when it has its
/// second worker, it was time for the others as well.
#[tokio::test]
async fn who_did_not_ask_for_it_and_what_goes_on_behind_a_beginning_has_no_second_worker() {
    let policy =
        r#"{"global": {"hedge_after_ms": 50}, "tenants": {"acme": {"hedge_after_ms": null}}}"#;
    let mesh = with(policy, |_| ()).await;
    let (first, second) = two(&mesh, Script::Queued(3), Script::BeginOnly).await;
    let link = mesh.link().await;
    let goes_on = InferRequest {
        resume: Some(Resume {
            lost: Vec::new(),
            started: Some(Started {
                model: None,
                degraded_from: None,
                digest: DIGEST,
                seed: 7,
                numerics_class: String::new(),
                worker: None,
                transcript: vec![0, 1],
            }),
        }),
        ..request_of("gamma", "g")
    };
    let without = submitted(&link, &request("a")).await;
    let begun = submitted(&link, &goes_on).await;
    reaches("both are under way", &first.scripted.orders, 2).await;
    let hedged = submitted(&link, &request_of("beta", "b")).await;
    asked(&second).await;
    let tenant = |it: &Worker| {
        let last = it.scripted.last.borrow();
        last.as_ref().map(|order| order.tenant.to_string())
    };
    within("the order is read", async {
        while tenant(&second).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(tenant(&second).as_deref(), Some("beta"));
    first.scripted.turn.send_replace(true);
    for answer in [without, begun, hedged] {
        by(answer, &first, "xxx").await;
    }
    assert_eq!(second.scripted.orders(), 1);
    counted(&mesh, "lost").await;
}

#[tokio::test]
async fn a_second_worker_is_no_way_around_the_budget_of_retries() {
    let mesh = mesh(|config| {
        config.retry.budget_percent = 0;
        config.retry.budget_least = 0;
    })
    .await;
    let (first, second) = two(&mesh, Script::Queued(1), Script::Answer(1)).await;
    let answer = submit(&mesh, "a").await;
    counted(&mesh, "no-budget").await;
    first.scripted.turn.send_replace(true);
    by(answer, &first, "x").await;
    assert_eq!(second.scripted.orders(), 0);
}

#[tokio::test]
async fn where_others_wait_for_a_place_nobody_takes_two() {
    let late = r#"{"global": {"hedge_after_ms": 1000}}"#;
    let mesh = with(late, |_| ()).await;
    let worker = mesh.worker(10, Script::Queued(1)).await;
    let mut answers = filled(&mesh, &worker).await;
    answers.push(submit(&mesh, "last").await);
    is_waiting(&mesh, 1).await;
    let line = "tether_orchestrator_hedges_total{outcome=\"others-wait\"}";
    within("it is time", async {
        while mesh.metric(line) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    worker.scripted.turn.send_replace(true);
    for answer in &mut answers {
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_work_of_both() {
    let mesh = mesh(|_| ()).await;
    let (first, second) = two(&mesh, Script::BeginOnly, Script::BeginOnly).await;
    let answer = submit(&mesh, "a").await;
    asked(&second).await;
    drop(answer);
    reaches("the first is cancelled", &first.scripted.cancelled, 1).await;
    reaches("the second is cancelled", &second.scripted.cancelled, 1).await;
    counted(&mesh, "cancelled").await;
    within("it is recorded", async {
        while mesh.job(&request("a")).await.state != JobState::Cancelled {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
