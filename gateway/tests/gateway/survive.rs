//! Answers that survive their orchestrator, as a client sees them. (SCH-8, REL-1)

use crate::world::{World, events, send, within};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tether_wire::Digest;
use tether_wire::infer::Resume;

/// The text of a whole stream.
fn text(events: &[String]) -> String {
    let parsed = events.iter().filter(|event| *event != "[DONE]");
    let parts = parsed.map(|event| {
        let event: Value = serde_json::from_str(event).expect("JSON");
        let part = event["choices"][0]["delta"]["content"].as_str();
        part.unwrap_or_default().to_owned()
    });
    parts.collect()
}

/// What came with the request the second time.
async fn resumed(world: &mut World) -> (usize, Resume) {
    let first = within(world.reports.seen.recv()).await.expect("asked");
    assert_eq!(first.request.resume, None);
    let second = within(world.reports.seen.recv())
        .await
        .expect("asked again");
    assert_eq!(second.request.correlation, first.request.correlation);
    assert_eq!(second.request.sampling, first.request.sampling);
    let lost = world.nodes[first.orchestrator].id();
    let resume = second.request.resume.expect("it goes on");
    assert_eq!(resume.lost, [lost]);
    (second.orchestrator, resume)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_orchestrator_is_lost_goes_on_elsewhere_and_nothing_comes_twice() {
    for model in ["goes-on", "leaves"] {
        let mut world = World::with(2, |_| ()).await;
        let response = within(world.chat(model, true).send())
            .await
            .expect("a head");
        assert_eq!(response.status(), 200);
        let events = events(response).await;
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"), "{model}");
        assert_eq!(text(&events), "Paris");
        let (_, resume) = resumed(&mut world).await;
        let started = resume.started.expect("it had begun");
        assert_eq!((started.transcript, started.seed), (vec![0], 5));
        assert_eq!(started.digest, Digest([0xab; 32]));
        assert_eq!(started.numerics_class, "class-1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_goes_on_at_the_next_where_the_first_that_is_asked_cannot() {
    let mut world = World::with(3, |_| ()).await;
    let (status, _, body) = send(world.chat("second-cannot", false)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["choices"][0]["message"]["content"], "Paris");
    let mut asked = Vec::new();
    while let Ok(seen) = world.reports.seen.try_recv() {
        asked.push(seen.orchestrator);
    }
    assert_eq!(asked.len(), 3, "each was asked once: {asked:?}");
    asked.sort_unstable();
    assert_eq!(asked, [0, 1, 2]);
}

/// Two that were restarted one after the other know no worker yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_comes_to_the_only_orchestrator_that_knows_a_worker() {
    let mut world = World::with(4, |_| ()).await;
    for _ in 0..8 {
        let (status, _, body) = send(world.chat("third-knows", false)).await;
        assert_eq!(status, 200, "{body}");
        assert_eq!(asked(&mut world), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_nobody_can_serve_asks_each_orchestrator_once() {
    let mut world = World::with(4, |_| ()).await;
    let (status, headers, body) = send(world.chat("nobody-knows", false)).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(asked(&mut world), 4);
    // One that tried in vain sends it to one other; what that one tells is told where it tried too.
    let (status, headers, body) = send(world.chat("others-know-nobody", false)).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(
        body["error"]["message"],
        "no worker can serve this model now"
    );
    assert_eq!(headers["retry-after"], "5");
    assert_eq!(asked(&mut world), 4);
    let (status, _, body) = send(world.chat("down", false)).await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(asked(&mut world), 2);
}

/// How many orchestrators were asked since; none of them came again.
fn asked(world: &mut World) -> usize {
    let mut asked = BTreeSet::new();
    while let Ok(seen) = world.reports.seen.try_recv() {
        assert_eq!(seen.request.resume, None);
        assert!(asked.insert(seen.orchestrator), "asked twice");
    }
    asked.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_not_streamed_survives_as_well() {
    let world = World::with(2, |_| ()).await;
    let (status, _, body) = send(world.chat("goes-on", false)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["choices"][0]["message"]["content"], "Paris");
    assert_eq!(body["usage"]["completion_tokens"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_orchestrator_goes_on_once_it_is_back() {
    let world = World::new().await;
    let (status, _, body) = send(world.chat("goes-on", false)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["choices"][0]["message"]["content"], "Paris");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_orchestrator_that_dies_before_it_answers_is_asked_again_once_it_is_back() {
    let world = World::new().await;
    let (status, _, body) = send(world.chat("first-dies", false)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["choices"][0]["message"]["content"], "Paris");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_kills_whoever_takes_it_is_given_up_after_a_few() {
    let mut world = World::with(2, |_| ()).await;
    let (status, _, body) = send(world.chat("kills", false)).await;
    assert_eq!(status, 503, "{body}");
    for _ in 0..4 {
        within(world.reports.seen.recv()).await.expect("asked");
    }
    assert!(world.reports.seen.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_of_which_nothing_is_heard_is_left_where_there_is_another() {
    let mut world = World::with(2, |_| ()).await;
    let response = within(world.chat("goes-silent", true).send())
        .await
        .expect("a head");
    let mut body = response.bytes_stream();
    let first = within(body.next()).await.expect("a piece").expect("well");
    assert!(String::from_utf8_lossy(&first).contains("data: "));
    let seen = within(world.reports.seen.recv()).await.expect("asked");
    let starved = world.machines[seen.orchestrator].starve();
    let mut rest = String::new();
    while let Some(piece) = within(body.next()).await {
        rest += &String::from_utf8_lossy(&piece.expect("well"));
    }
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    let again = within(world.reports.seen.recv()).await.expect("asked");
    assert_ne!(again.orchestrator, seen.orchestrator);
    drop(starved);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_goes_on_as_another_one_is_an_error_and_never_mixed() {
    let world = World::with(2, |_| ()).await;
    let response = within(world.chat("goes-on-otherwise", true).send())
        .await
        .expect("a head");
    let events = events(response).await;
    let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
    assert_eq!(last["error"]["code"], "internal_error", "{last}");
    let given: String = events.concat();
    assert!(given.contains("Par") && !given.contains("Lon") && !given.contains("is\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_another_orchestrator_has_is_asked_for_there_or_taken_over() {
    let mut world = World::new().await;
    let (status, _, body) = send(world.chat("elsewhere", false)).await;
    assert_eq!(status, 200, "{body}");
    let first = within(world.reports.seen.recv()).await.expect("asked");
    assert_eq!(first.request.resume, None);
    let again = within(world.reports.seen.recv())
        .await
        .expect("asked again");
    let resume = again.request.resume.expect("nobody can reach who has it");
    assert_eq!(resume.lost, [tether_wire::NodeId([9; 32])]);
    assert_eq!(resume.started, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orchestrators_that_name_each_other_are_followed_a_few_times_and_then_one_takes_over() {
    let mut world = World::with(2, |config| config.request_timeout_ms = 5_000).await;
    let (status, _, body) = send(world.chat("each-other", false)).await;
    assert_eq!(status, 200, "{body}");
    let mut asked = Vec::new();
    while let Ok(seen) = world.reports.seen.try_recv() {
        asked.push(seen.request.resume.map(|resume| resume.lost));
    }
    // The first, and four that were named.
    assert!((6..=7).contains(&asked.len()), "{asked:?}");
    assert!(asked[..5].iter().all(Option::is_none), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orchestrators_that_only_name_each_other_are_asked_with_pauses_until_the_patience_is_over()
{
    let mut world = World::with(2, |config| {
        config.request_timeout_ms = 5_000;
        config.resume_timeout_ms = 1_000;
    })
    .await;
    let (status, _, body) = send(world.chat("each-other-always", false)).await;
    assert_eq!(status, 503, "{body}");
    let mut asked = 0;
    while world.reports.seen.try_recv().is_ok() {
        asked += 1;
    }
    // Both once in each round, of which there are at most eight, and those that were followed.
    assert!((6..=40).contains(&asked), "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_that_leaves_before_it_answers_sends_the_request_to_another() {
    let world = World::with(2, |_| ()).await;
    let (status, _, body) = send(world.chat("first-leaves", false)).await;
    assert_eq!((status, &body["created"]), (200, &json!(1_700_000_000)));
}

/// Whoever sent the turn before knows which worker has it warm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_turns_of_a_conversation_come_to_one_orchestrator_and_conversations_to_all() {
    let mut world = World::with(3, |_| ()).await;
    let mut used = BTreeSet::new();
    for conversation in 0..32 {
        let said = |role: &str, text: &str| json!({"role": role, "content": text});
        let long = format!("{conversation:<300}");
        let mut messages = vec![said("user", &long)];
        let mut asked = BTreeSet::new();
        for _ in 0..3 {
            let body = json!({"model": "any", "messages": messages});
            let (status, _, body) = send(world.post(&body)).await;
            assert_eq!(status, 200, "{body}");
            let seen = within(world.reports.seen.recv()).await.expect("asked");
            asked.insert(seen.orchestrator);
            messages.extend([said("assistant", "Paris"), said("user", "And of Italy?")]);
        }
        assert_eq!(asked.len(), 1, "{asked:?}");
        used.extend(asked);
    }
    assert_eq!(used.len(), 3);
}
