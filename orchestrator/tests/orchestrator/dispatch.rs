//! Requests from the gateway's call to their end.

use crate::mesh::{Answer, Mesh, PATIENCE, cold, request, within};
use crate::script::Script;
use tether_orchestrator::OrchestratorConfig;
use tether_orchestrator::job::JobState;
use tether_wire::codec;
use tether_wire::infer::{AnswerEvent, Usage};
use tether_wire::rpc::{Code, RpcError, method};

#[tokio::test]
async fn an_answer_comes_whole_with_its_worker_first_and_is_recorded() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(5)).await;
    let request = request("a");
    let answer = mesh.submit(&request).await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    let AnswerEvent::Accepted(accepted) = &answer.events[0] else {
        panic!("{:?}", answer.events)
    };
    assert_eq!(accepted.worker, worker.id());
    assert_eq!(answer.text(), "xxxxx");
    let job = mesh.job(&request).await;
    assert_eq!(job.state, JobState::Done);
    let counted = Usage {
        prompt_tokens: 3,
        completion_tokens: 5,
    };
    assert_eq!(job.usage, counted);
    assert_eq!((job.worker, job.attempts), (Some(worker.id()), 1));
    assert_eq!(job.seed, accepted.seed, "the seed is recorded");
    assert_eq!(mesh.in_flight(&worker).await, 0);
}

#[tokio::test]
async fn a_bare_name_finds_its_model_and_an_unknown_one_does_not_exist() {
    let mesh = Mesh::start().await;
    let _worker = mesh.worker(10, Script::Answer(1)).await;
    let mut bare = request("a");
    bare.model = "tiny".into();
    assert!(mesh.submit(&bare).await.is_whole());
    let mut unknown = request("b");
    unknown.model = "other".into();
    let answer = mesh.submit(&unknown).await;
    assert_eq!(answer.failed().code, Code::NotFound);
    assert_eq!(answer.failed().param.as_deref(), Some("model"));
}

/// [T-RCP-5]
#[tokio::test]
async fn a_receipt_that_is_wrong_is_counted_and_withheld_and_the_answer_counts() {
    let mesh = Mesh::start().await;
    let _worker = mesh.worker(10, Script::Receipt(vec![1; 200])).await;
    let answer = mesh.submit(&request("a")).await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.text(), "x");
    let Some(AnswerEvent::Done(done)) = answer.events.last() else {
        panic!("{:?}", answer.events)
    };
    assert_eq!(done.receipt, None);
    let wrong = "tether_orchestrator_receipts_total{outcome=\"wrong\"}";
    assert_eq!(mesh.metric(wrong), 1);
}

/// The first worker is preferred and bad; the second answers.
async fn retried_from(script: Script) -> (Mesh, Answer) {
    retried_with(script, |_| ()).await
}

async fn retried_with(
    script: Script,
    change: impl FnOnce(&mut OrchestratorConfig),
) -> (Mesh, Answer) {
    let mesh = Mesh::with(change).await;
    let bad = mesh.worker(10, script).await;
    let good = mesh.worker_with(11, Script::Answer(2), cold).await;
    mesh.fleet("both", |fleet| fleet.len() == 2).await;
    let request = request("a");
    let answer = mesh.submit(&request).await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.worker(), Some(good.id()));
    assert_eq!(bad.scripted.orders(), 1);
    let accepted = (answer.events.iter()).filter(|it| matches!(it, AnswerEvent::Accepted(_)));
    assert_eq!(accepted.count(), 1, "the try before leaves no trace");
    assert_eq!(mesh.job(&request).await.attempts, 2);
    assert_eq!(mesh.in_flight(&bad).await, 0);
    (mesh, answer)
}

#[tokio::test]
async fn a_worker_that_refuses_is_left_for_another() {
    let refusal = RpcError::new(Code::Overloaded, "full");
    let (mesh, _) = retried_from(Script::Refuse(refusal)).await;
    assert_eq!(
        mesh.metric("tether_orchestrator_retries_total{reason=\"overloaded\"}"),
        1
    );
}

fn over_quota(retry_after_ms: u64) -> RpcError {
    RpcError::new(Code::RateLimited, "too many of late")
        .with_param("tokens")
        .with_retry_after_ms(retry_after_ms)
}

/// [T-RPC-6]
#[tokio::test]
async fn a_worker_whose_quota_a_tenant_used_up_is_left_for_another_and_not_blamed() {
    let (mesh, _) = retried_from(Script::Refuse(over_quota(40_000))).await;
    let fleet = mesh.orchestrator.fleet_snapshot();
    assert!(fleet.workers().all(|worker| !worker.is_suspect()));
    let retries = "tether_orchestrator_retries_total{reason=\"rate-limited\"}";
    assert_eq!(mesh.metric(retries), 1);
}

/// [T-RPC-6]
#[tokio::test]
async fn a_tenant_over_the_quota_of_all_workers_is_told_so_and_when_the_first_has_room() {
    let mesh = Mesh::start().await;
    let _one = mesh.worker(10, Script::Refuse(over_quota(40_000))).await;
    let _other = mesh
        .worker_with(11, Script::Refuse(over_quota(9_000)), cold)
        .await;
    mesh.fleet("both", |fleet| fleet.len() == 2).await;
    let answer = mesh.submit(&request("a")).await;
    let told = answer.failed();
    assert_eq!(
        (told.code, told.retry_after_ms),
        (Code::RateLimited, Some(9_000))
    );
    assert!(told.message.contains("too many tokens"), "{told}");
    let fleet = mesh.orchestrator.fleet_snapshot();
    assert!(fleet.workers().all(|worker| !worker.is_suspect()));
    let ended = |outcome| {
        mesh.metric(&format!(
            "tether_orchestrator_dispatches_total{{outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(
        (
            ended("rate-limited"),
            ended("overloaded"),
            ended("unavailable")
        ),
        (1, 0, 0)
    );
    assert!(
        mesh.submit(&request("a")).await.failed().code == Code::RateLimited,
        "the key is free"
    );
}

#[tokio::test]
async fn a_silent_worker_is_left_for_another_and_suspect() {
    let (mesh, _) = retried_from(Script::Silent).await;
    mesh.fleet("the silent one is suspect", |fleet| {
        fleet.workers().filter(|worker| worker.is_suspect()).count() == 1
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_dies_before_the_first_piece_is_left_for_another() {
    retried_from(Script::AcceptAndDie).await;
}

#[tokio::test]
async fn a_worker_that_stalls_before_the_first_piece_is_left_for_another() {
    let (mesh, _) = retried_with(Script::BeginOnly, |config| {
        config.first_token_timeout_ms = 300;
    })
    .await;
    mesh.fleet("the stalled one is suspect", |fleet| {
        fleet.workers().filter(|worker| worker.is_suspect()).count() == 1
    })
    .await;
}

#[tokio::test]
async fn waiting_for_a_turn_is_no_stall_and_the_answer_comes_when_its_turn_does() {
    let mesh = Mesh::with(|config| config.first_token_timeout_ms = 500).await;
    let worker = mesh.worker(10, Script::Queued(2)).await;
    let mut orders = worker.scripted.orders.subscribe();
    let submitted = request("a");
    let waiting = async {
        within("the order", orders.wait_for(|count| *count > 0))
            .await
            .expect("lives");
        // A request that stalls after its turn came measures the time.
        let stalls = mesh.worker_with(11, Script::BeginOnly, |says| {
            says.models()[0].model = "other@1.0".parse().expect("valid");
        });
        let _stalls = stalls.await;
        let mut other = request("b");
        other.model = "other@1.0".into();
        let stalled = mesh.submit(&other).await;
        assert_eq!(stalled.failed().code, Code::Unavailable);
        worker.scripted.turn.send_replace(true);
    };
    let (answer, ()) = tokio::join!(mesh.submit(&submitted), waiting);
    assert!(answer.is_whole(), "{:?}", answer.error);
    let begun = (answer.events.iter()).any(|it| matches!(it, AnswerEvent::Begun(_)));
    assert!(!begun, "kept to itself: {:?}", answer.events);
    let fleet = mesh.orchestrator.fleet_snapshot();
    assert!(!fleet.worker(&worker.id()).expect("there").is_suspect());
}

#[tokio::test]
async fn a_turn_that_never_comes_is_told_as_overload_and_blames_nobody() {
    for caller_has_less in [false, true] {
        let mesh = Mesh::with(|config| {
            let short = if caller_has_less {
                &mut config.answer_timeout_ms
            } else {
                &mut config.queue_timeout_ms
            };
            *short = 1_000;
        })
        .await;
        let _full = mesh.worker(10, Script::AcceptOnly).await;
        let other = mesh.worker_with(11, Script::Answer(2), cold).await;
        let answer = mesh.submit(&request("a")).await;
        assert_eq!(answer.failed().code, Code::Overloaded);
        assert_eq!(answer.failed().retry_after_ms, Some(5_000));
        assert_eq!(other.scripted.orders(), 0, "no retry elsewhere");
        let fleet = mesh.orchestrator.fleet_snapshot();
        assert!(fleet.workers().all(|worker| !worker.is_suspect()));
        let job = mesh.job(&request("a")).await;
        assert_eq!((job.state, job.attempts), (JobState::Refused, 1));
    }
}

#[tokio::test]
async fn a_worker_that_gives_a_waiting_request_back_is_believed_and_nobody_else_waits_again() {
    let mesh = Mesh::with(|_| ()).await;
    let error = RpcError::new(Code::Overloaded, "no turn").with_retry_after_ms(7_000);
    let _full = mesh.worker(10, Script::AcceptAndRefuse(error)).await;
    let other = mesh.worker_with(11, Script::Answer(2), cold).await;
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.failed().code, Code::Overloaded);
    assert_eq!(answer.failed().retry_after_ms, Some(7_000));
    assert_eq!(other.scripted.orders(), 0, "no second queue");
}

#[tokio::test]
async fn a_worker_that_fails_by_a_fault_of_its_own_is_left_for_another() {
    for code in [Code::Internal, Code::NotFound, Code::Forbidden] {
        retried_from(Script::Refuse(RpcError::new(code, "no"))).await;
    }
}

#[tokio::test]
async fn an_answer_that_ends_without_its_end_is_an_error() {
    let mesh = Mesh::start().await;
    let _worker = mesh.worker(10, Script::ChunkAndEnd).await;
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.failed().code, Code::Unavailable);
    assert_eq!(answer.text(), "a", "what came was given");
}

#[tokio::test]
async fn an_answer_whose_positions_or_counts_do_not_agree_is_refused() {
    for script in [Script::Gap, Script::WrongUsage] {
        let mesh = Mesh::start().await;
        let _worker = mesh.worker(10, script).await;
        let request = request("a");
        let answer = mesh.submit(&request).await;
        assert_eq!(answer.failed().code, Code::Internal);
        assert_eq!(answer.text(), "a", "nothing of what is wrong was given");
        let job = mesh.job(&request).await;
        assert_eq!(
            (job.state, job.usage.completion_tokens),
            (JobState::Failed, 1)
        );
    }
}

#[tokio::test]
async fn a_cancel_reaches_the_worker_and_what_was_given_is_recorded() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Endless).await;
    mesh.fleet("there", |fleet| fleet.len() == 1).await;
    let mut cancelled = worker.scripted.cancelled.subscribe();
    let before = *cancelled.borrow_and_update();
    let request = request("a");
    let link = mesh.link().await;
    let call = link
        .call(method::SUBMIT, Some(PATIENCE), &codec::encode(&request))
        .await
        .expect("called");
    let mut answer = Answer::new(call);
    for _ in 0..4 {
        answer.next().await.expect("an event");
    }
    drop(answer);
    within(
        "the worker hears of it",
        cancelled.wait_for(|count| *count > before),
    )
    .await
    .expect("lives");
    within("the job is recorded", async {
        while mesh.job(&request).await.state.is_open() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let job = mesh.job(&request).await;
    assert_eq!(job.state, JobState::Cancelled);
    assert!(job.usage.completion_tokens >= 2, "{:?}", job.usage);
    assert_eq!(job.usage.prompt_tokens, 3, "as the worker said");
    assert_eq!(mesh.in_flight(&worker).await, 0);
}

#[tokio::test]
async fn a_gateway_that_does_not_read_holds_the_worker_back() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Flood).await;
    let mut chunks = worker.scripted.chunks.subscribe();
    let link = mesh.link().await;
    let call = link
        .call(
            method::SUBMIT,
            Some(PATIENCE),
            &codec::encode(&request("a")),
        )
        .await
        .expect("called");
    // Until the worker makes no progress any more: it is held back.
    let second = std::time::Duration::from_secs(1);
    within("the worker is held back", async {
        chunks.changed().await.expect("lives");
        while tokio::time::timeout(second, chunks.changed()).await.is_ok() {}
    })
    .await;
    let sent = *chunks.borrow();
    let limits = tether_net::LinkLimits::default();
    let windows = 2 * (limits.stream_window_bytes as usize) / (64 * 1024);
    assert!(
        (sent as usize) < windows + 200,
        "{sent} chunks of 64 KiB are somewhere"
    );
    drop(call);
}

#[tokio::test]
async fn time_that_is_over_is_said_and_ends_the_work() {
    let mesh = Mesh::with(|config| config.answer_timeout_ms = 2_000).await;
    let worker = mesh.worker(10, Script::ChunkOnly).await;
    let mut cancelled = worker.scripted.cancelled.subscribe();
    let request = request("a");
    let answer = mesh.submit(&request).await;
    assert_eq!(answer.failed().code, Code::Deadline);
    within(
        "the worker hears of it",
        cancelled.wait_for(|count| *count > 0),
    )
    .await
    .expect("lives");
    assert_eq!(mesh.job(&request).await.state, JobState::Failed);
}
