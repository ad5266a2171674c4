//! Answers that survive their worker. (SCH-8)

use crate::mesh::{Answer, DIGEST, Mesh, PATIENCE, Says, Worker, cold, request, submitted, within};
use crate::script::{Death, LEARNT, SLOW, Script, letter};
use tether_orchestrator::job::JobState;
use tether_wire::codec;
use tether_wire::infer::{AnswerEvent, InferRequest, Resume, Started, Usage};
use tether_wire::rpc::{Code, RpcError, method};

/// Tokens of an answer.
const WHOLE: u32 = 12;

fn letters(count: u32) -> String {
    (0..count).map(letter).collect()
}

async fn submit(mesh: &Mesh, request: &InferRequest) -> Answer {
    let link = mesh.link().await;
    let call = link
        .call(method::SUBMIT, Some(PATIENCE), &codec::encode(request))
        .await
        .expect("called");
    Answer::new(call)
}

/// Worse than those that are only cold.
fn last(says: &mut Says) {
    cold(says);
    says.beat.queue_depth = 3;
}

/// The ids of all tokens, which have no gap.
fn tokens(answer: &Answer) -> Vec<u32> {
    let mut tokens = Vec::new();
    for event in &answer.events {
        if let AnswerEvent::Chunk(chunk) = event {
            assert_eq!(chunk.position as usize, tokens.len());
            tokens.extend_from_slice(&chunk.tokens);
        }
    }
    tokens
}

#[track_caller]
fn assert_whole(answer: &Answer) {
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.text(), letters(WHOLE));
    assert_eq!(tokens(answer), (0..WHOLE).collect::<Vec<_>>());
}

fn last_transcript(worker: &Worker) -> Vec<u32> {
    let last = worker.scripted.last.borrow();
    last.as_ref().expect("an order").transcript.clone()
}

#[tokio::test]
async fn however_a_worker_ends_in_the_middle_another_goes_on_and_the_caller_cannot_tell() {
    let deaths = [
        Death::Ends,
        Death::Unlinks,
        Death::Stalls,
        Death::Fails(RpcError::new(Code::Unavailable, "drained")),
        Death::Fails(RpcError::new(Code::Internal, "its engine fell")),
    ];
    for death in deaths {
        let mesh = Mesh::with(|config| config.stall_timeout_ms = 500).await;
        let dying = mesh.worker(10, Script::Dies(5, death.clone())).await;
        let other = mesh.worker_with(11, Script::Letters(WHOLE), cold).await;
        let request = request("a");
        let answer = mesh.submit(&request).await;
        assert_whole(&answer);
        assert_eq!(dying.scripted.orders(), 1, "{death:?}");
        assert_eq!(last_transcript(&other), [0, 1, 2, 3, 4]);
        let job = mesh.job(&request).await;
        assert_eq!((job.state, job.attempts), (JobState::Done, 2));
        assert_eq!(job.worker, Some(other.id()));
        let counted = Usage {
            prompt_tokens: 3,
            completion_tokens: WHOLE,
        };
        assert_eq!(job.usage, counted, "billed once");
        let line = "tether_orchestrator_hand_overs_total";
        assert_eq!(mesh.metric(line), 1, "{death:?}");
    }
}

/// Its link lives, and half a minute may pass between two pieces: only the pace tells.
#[tokio::test]
async fn an_engine_that_pauses_for_longer_than_ever_is_left_and_a_false_alarm_is_noticed() {
    let mesh = Mesh::start().await;
    let paused = mesh.worker(10, Script::Paced(40)).await;
    let other = mesh.worker_with(11, Script::Letters(60), cold).await;
    let answer = mesh.submit(&request("a")).await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.text(), letters(60));
    assert_eq!(last_transcript(&other).len(), 40);
    let alarms = || mesh.metric("tether_orchestrator_false_alarms_total");
    assert_eq!(alarms(), 0);
    paused.scripted.turn.send_replace(true);
    within("it is heard of again", async {
        while alarms() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// As where it reads a large prompt of somebody else's.
#[tokio::test]
async fn an_engine_that_is_slow_to_begin_is_left_for_another_only_where_a_retry_is_left() {
    for attempts in [2, 1] {
        let mesh = Mesh::with(|config| config.retry.attempts = attempts).await;
        let slow = mesh.worker(10, Script::HeldUp).await;
        let other = mesh.worker_with(11, Script::Answer(1), cold).await;
        for n in 0..LEARNT {
            let answer = mesh.submit(&request(&format!("r{n}"))).await;
            assert_eq!(answer.worker(), Some(slow.id()));
        }
        slow.scripted.turn.send_replace(true);
        let mut answer = submitted(&mesh.link().await, &request("a")).await;
        if attempts > 1 {
            let mut orders = other.scripted.orders.subscribe();
            let asked = within("the other is asked", orders.wait_for(|it| *it > 0)).await;
            asked.expect("lives");
        } else {
            // For how long it is slow is the case, not a wait for something.
            tokio::time::sleep(SLOW).await;
        }
        slow.scripted.turn.send_replace(false);
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
        let by = if attempts > 1 { &other } else { &slow };
        assert_eq!(answer.worker(), Some(by.id()), "of {attempts}");
    }
}

#[tokio::test]
async fn an_answer_may_change_hands_several_times() {
    let mesh = Mesh::start().await;
    let first = mesh.worker(10, Script::Dies(2, Death::Ends)).await;
    let second = (mesh.worker_with(11, Script::Dies(4, Death::Ends), cold)).await;
    let _last = mesh.worker_with(12, Script::Letters(WHOLE), last).await;
    assert_whole(&mesh.submit(&request("a")).await);
    assert_eq!(
        (first.scripted.orders(), second.scripted.orders()),
        (1, 1),
        "who failed at it is asked for it again last"
    );
}

#[tokio::test]
async fn a_worker_that_makes_something_else_of_what_was_given_is_not_believed() {
    for lie in [Death::Differs, Death::Miscounts] {
        let mesh = Mesh::start().await;
        let _dying = mesh.worker(10, Script::Dies(5, Death::Ends)).await;
        let liar = mesh
            .worker_with(11, Script::Dies(9, lie), |says| {
                says.card
                    .worker
                    .as_mut()
                    .expect("a worker")
                    .price_per_1k_micro = 50_000;
            })
            .await;
        let _right = mesh.worker_with(12, Script::Letters(WHOLE), cold).await;
        assert_whole(&mesh.submit(&request("a")).await);
        assert_eq!(liar.scripted.orders(), 1);
    }
}

#[tokio::test]
async fn who_computes_as_the_one_before_is_preferred_to_go_on() {
    let mesh = Mesh::start().await;
    let class =
        |name: &'static str| move |says: &mut Says| says.models()[0].numerics_class = name.into();
    let dies = Script::Dies(5, Death::Ends);
    let _dying = mesh.worker_with(10, dies, class("one")).await;
    let other = mesh
        .worker_with(11, Script::Letters(WHOLE), |says| {
            cold(says);
            class("two")(says);
        })
        .await;
    let same = mesh
        .worker_with(12, Script::Letters(WHOLE), |says| {
            last(says);
            class("one")(says);
        })
        .await;
    let answer = mesh.submit(&request("a")).await;
    assert_whole(&answer);
    assert_eq!((same.scripted.orders(), other.scripted.orders()), (1, 0));
}

#[tokio::test]
async fn without_another_worker_an_answer_waits_for_one_and_goes_on() {
    let mesh = Mesh::start().await;
    let mut dying = mesh.worker(10, Script::Dies(5, Death::Ends)).await;
    let mut answer = submit(&mesh, &request("a")).await;
    for _ in 0..6 {
        answer.next().await.expect("what it gave");
    }
    let goodbye = dying.goodbye(5);
    dying.send(&goodbye).await;
    mesh.fleet("nobody is there", |fleet| fleet.is_empty())
        .await;
    let _other = mesh.worker(11, Script::Letters(WHOLE)).await;
    answer.rest().await;
    assert_whole(&answer);
}

#[tokio::test]
async fn where_nobody_comes_the_answer_is_cut_off_and_never_a_stop() {
    let mesh = Mesh::with(|config| config.hand_over_timeout_ms = 300).await;
    let mut dying = mesh.worker(10, Script::Dies(5, Death::Stalls)).await;
    let mut answer = submit(&mesh, &request("a")).await;
    for _ in 0..6 {
        answer.next().await.expect("what it gave");
    }
    let goodbye = dying.goodbye(5);
    dying.send(&goodbye).await;
    mesh.fleet("nobody is there", |fleet| fleet.is_empty())
        .await;
    dying.node.shutdown().await;
    answer.rest().await;
    assert_eq!(answer.failed().code, Code::Unavailable);
    assert!(
        answer.failed().message.contains("cut off"),
        "{:?}",
        answer.error
    );
    let job = mesh.job(&request("a")).await;
    assert_eq!(
        (job.state, job.usage.completion_tokens),
        (JobState::Failed, 5)
    );
    assert_eq!(job.usage.prompt_tokens, 3, "as the worker said");
}

#[tokio::test]
async fn workers_that_all_die_after_a_piece_do_not_keep_an_answer_for_ever() {
    let mesh = Mesh::start().await;
    let mut workers = Vec::new();
    for n in 0..3_u8 {
        workers.push(mesh.worker(10 + n, Script::OneMore).await);
    }
    let answer = mesh.submit(&request("a")).await;
    assert!(answer.failed().message.contains("cut off"));
    assert_eq!(
        tokens(&answer).len(),
        17,
        "the first and sixteen hand-overs"
    );
}

/// What a gateway sends that was given so much by an orchestrator that is lost.
fn resumed(given: u32) -> InferRequest {
    let started = Started {
        model: None,
        degraded_from: None,
        digest: DIGEST,
        seed: 77,
        numerics_class: String::new(),
        worker: None,
        transcript: (0..given).collect(),
    };
    InferRequest {
        resume: Some(Resume {
            lost: vec![tether_wire::NodeId([9; 32])],
            started: Some(started),
        }),
        ..request("a")
    }
}

#[tokio::test]
async fn an_answer_of_a_lost_orchestrator_goes_on_here_and_is_told_whole() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Letters(WHOLE)).await;
    let answer = mesh.submit(&resumed(5)).await;
    assert_whole(&answer);
    assert_eq!(last_transcript(&worker), [0, 1, 2, 3, 4]);
    let last = worker.scripted.last.borrow().clone().expect("an order");
    assert_eq!(last.sampling.seed, Some(77), "the seed that it began with");
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.seed, job.usage.completion_tokens), (77, WHOLE));
}

#[tokio::test]
async fn what_a_lost_orchestrator_gave_counts_where_nobody_has_room_to_go_on() {
    let mesh = Mesh::with(|config| config.hand_over_timeout_ms = 200).await;
    let full = RpcError::new(Code::Overloaded, "full");
    let _worker = mesh.worker(10, Script::Refuse(full)).await;
    let answer = mesh.submit(&resumed(5)).await;
    assert!(!answer.is_whole());
    let job = mesh.job(&request("a")).await;
    assert_eq!(
        (job.state, job.usage.completion_tokens),
        (JobState::Failed, 5)
    );
}

#[tokio::test]
async fn nothing_counts_of_an_answer_of_which_nothing_was_given() {
    let mesh = Mesh::start().await;
    let fell = RpcError::new(Code::Internal, "its engine fell");
    let worker = mesh.worker(10, Script::Falls(0, fell)).await;
    worker.scripted.turn.send_replace(true);
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.failed().code, Code::Internal);
    let job = mesh.job(&request("a")).await;
    assert_eq!((job.state, job.usage), (JobState::Failed, Usage::default()));
}

/// [T-INF-15]
#[tokio::test]
async fn an_answer_of_a_lost_orchestrator_goes_on_at_the_worker_that_has_it() {
    let mesh = Mesh::start().await;
    let better = mesh.worker(10, Script::Letters(WHOLE)).await;
    let has_it = mesh.worker_with(11, Script::Letters(WHOLE), cold).await;
    let mut asked = resumed(5);
    let started = asked.resume.as_mut().and_then(|it| it.started.as_mut());
    started.expect("it had begun").worker = Some(has_it.id());
    assert_whole(&mesh.submit(&asked).await);
    let orders = |worker: &Worker| worker.scripted.orders();
    assert_eq!((orders(&has_it), orders(&better)), (1, 0));
}

#[tokio::test]
async fn an_answer_of_a_lost_orchestrator_survives_its_first_worker_here() {
    for death in [Death::Miscounts, Death::Ends, Death::Stalls] {
        let mesh = Mesh::with(|config| {
            config.stall_timeout_ms = 500;
            config.first_token_timeout_ms = 500;
        })
        .await;
        let dying = mesh.worker(10, Script::Dies(0, death)).await;
        let _other = mesh.worker_with(11, Script::Letters(WHOLE), cold).await;
        assert_whole(&mesh.submit(&resumed(5)).await);
        assert_eq!(dying.scripted.orders(), 1);
    }
}

#[tokio::test]
async fn the_same_key_many_times_at_once_is_one_run_and_as_many_equal_answers() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Paused(3)).await;
    let asked = request("a");
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(submit(&mesh, &asked).await);
    }
    let first = &mut answers[0];
    first.next().await.expect("accepted");
    first.next().await.expect("a piece");
    worker.scripted.turn.send_replace(true);
    for answer in &mut answers {
        answer.rest().await;
        assert!(answer.is_whole(), "{:?}", answer.error);
    }
    let events = answers[0].events.clone();
    assert!(answers.iter().all(|answer| answer.events == events));
    assert_eq!(worker.scripted.orders(), 1);
    assert_eq!(mesh.metric("tether_orchestrator_joined_total"), 49);
    assert_eq!(mesh.job(&asked).await.usage.completion_tokens, 3);
}

#[tokio::test]
async fn who_joined_keeps_the_answer_when_the_first_goes_away() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Paused(3)).await;
    let asked = request("a");
    let mut first = submit(&mesh, &asked).await;
    first.next().await.expect("accepted");
    let mut second = submit(&mesh, &asked).await;
    second.next().await.expect("accepted");
    drop(first);
    let mut other = request("a");
    other.input = tether_wire::infer::Input::Text("something else".into());
    let other = mesh.submit(&other).await;
    assert_eq!(other.failed().code, Code::Conflict, "another body");
    worker.scripted.turn.send_replace(true);
    second.rest().await;
    assert!(second.is_whole(), "{:?}", second.error);
    assert_eq!(second.text(), "xxx");
    within("nobody cancelled it", async {
        assert_eq!(*worker.scripted.cancelled.borrow(), 0);
    })
    .await;
}
