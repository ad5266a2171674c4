//! A key that comes again after its answer: it is given the same, and nothing runs. (RSV-1)

use crate::mesh::{Mesh, Says, cold, request, request_of, submitted, within};
use crate::script::{Death, Script};
use tether_orchestrator::job::JobState;
use tether_wire::Digest;
use tether_wire::infer::{AnswerEvent, InferRequest, Input};
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

/// A request under a key of its caller's.
fn keyed(model: &str) -> InferRequest {
    InferRequest {
        keyed: true,
        model: model.to_owned(),
        ..request("a")
    }
}

/// Whoever was given the beginning may come again, too, and goes on behind it.
#[tokio::test]
async fn an_answer_that_was_cut_off_is_made_again_as_what_it_began_under_the_limits_that_it_had() {
    let class =
        |name: &'static str| move |says: &mut Says| says.models()[0].numerics_class = name.into();
    let policy = r#"{"global": {"max_output_tokens": 9}}"#;
    let mesh = Mesh::with_policy(policy, |config| config.hand_over_timeout_ms = 200).await;
    let dies = Script::Dies(5, Death::Ends);
    let asked = keyed("tiny@1.0");
    let _dying = mesh.worker_with(10, dies, class("one")).await;
    let cut = mesh.submit(&asked).await;
    assert_eq!((cut.is_whole(), cut.text().len()), (false, 5));
    let mesh = mesh.restart(|_| ()).await;
    let job = mesh.job(&asked).await;
    assert_eq!((job.state, job.streamed), (JobState::Failed, true));
    let better = mesh.worker_with(11, Script::Letters(9), class("two")).await;
    let same = mesh.worker_with(12, Script::Letters(9), |says| {
        cold(says);
        class("one")(says);
    });
    let same = same.await;
    assert!(mesh.submit(&asked).await.is_whole());
    assert_eq!((better.scripted.orders(), same.scripted.orders()), (0, 1));
    let order = same.scripted.last.borrow().clone().expect("an order");
    assert_eq!(
        order.sampling.max_tokens,
        Some(9),
        "there is no limit by now"
    );
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_made_by_others_where_nobody_has_what_it_began_as() {
    let mesh = Mesh::with(|config| config.hand_over_timeout_ms = 200).await;
    let asked = keyed("tiny");
    let mut dying = mesh.worker(10, Script::Dies(5, Death::Ends)).await;
    assert!(!mesh.submit(&asked).await.is_whole());
    let goodbye = dying.goodbye(5);
    dying.send(&goodbye).await;
    let newer = |says: &mut Says| {
        says.models()[0].model = "tiny@1.1".parse().expect("valid");
        says.models()[0].digest = Digest([9; 32]);
    };
    let _other = mesh.worker_with(11, Script::Letters(9), newer).await;
    let mut others = 0;
    within("the newer one is what the name means", async {
        let other = |n: u32| InferRequest {
            model: "tiny".to_owned(),
            ..request(&n.to_string())
        };
        while !mesh.submit(&other(others)).await.is_whole() {
            others += 1;
        }
    })
    .await;
    let again = mesh.submit(&asked).await;
    assert!(again.is_whole(), "{:?}", again.error);
    assert_eq!(mesh.job(&asked).await.digest, Some(Digest([9; 32])));
}
