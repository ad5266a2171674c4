//! How answers end: whole, cancelled or broken, and each is told apart.

use crate::bounds::head;
use crate::world::{World, events, send, within};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_ends_in_an_error_and_never_in_a_finish() {
    for (model, code) in [
        ("breaks", "unavailable"),
        ("stops-short", "internal_error"),
        ("link-breaks", "unavailable"),
    ] {
        let world = World::with(1, |config| config.resume_timeout_ms = 300).await;
        let response = within(world.chat(model, true).send())
            .await
            .expect("a head");
        assert_eq!(response.status(), 200);
        let events = events(response).await;
        assert!(events.iter().all(|event| event != "[DONE]"), "{model}");
        assert!(
            events.iter().all(|event| !event.contains("\"stop\"")),
            "{model}"
        );
        let text = events.iter().any(|event| event.contains("Par"));
        assert!(text, "what had come was passed on");
        let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
        assert_eq!(last["error"]["code"], code, "{model}: {last}");
        let line = format!("tether_gateway_broken_answers_total{{reason=\"{code}\"}} 1");
        world.metric(&line).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_answer_that_is_not_streamed_is_an_error() {
    let world = World::new().await;
    for (model, status, code) in [
        ("breaks", 503, "unavailable"),
        ("stops-short", 500, "internal_error"),
    ] {
        let (found, _, body) = send(world.chat(model, false)).await;
        assert_eq!((found, &body["error"]["code"]), (status, &json!(code)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_cancels_its_request_wherever_it_is() {
    let mut world = World::new().await;
    // In the middle of a stream.
    let response = within(world.chat("slow", true).send())
        .await
        .expect("a head");
    let mut pieces = response.bytes_stream();
    within(pieces.next())
        .await
        .expect("a piece")
        .expect("no error");
    drop(pieces);
    within(world.reports.cancelled.recv())
        .await
        .expect("cancelled");
    // Before the answer has begun, and while it is collected.
    for model in ["never-begins", "slow"] {
        let request = tokio::spawn(world.chat(model, false).send());
        while within(world.reports.seen.recv())
            .await
            .expect("it arrives")
            .request
            .model
            != model
        {}
        request.abort();
        within(world.reports.cancelled.recv())
            .await
            .expect("cancelled");
    }
    world.metric("tether_gateway_disconnects_total 3").await;
    world.metric("tether_gateway_requests_in_flight 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_sent_more_than_its_request_cancels_it_by_leaving_all_the_same() {
    let mut world = World::new().await;
    let chat = |model: &str, stream: bool| {
        let body = json!({
            "model": model,
            "messages": [{"role": "user", "content": "hi"}],
            "stream": stream,
        })
        .to_string();
        head(&format!("content-length: {}\r\n", body.len())) + &body
    };
    for (model, stream) in [
        ("never-begins", false),
        ("never-begins", true),
        ("slow", false),
        ("slow", true),
    ] {
        for more in ["\r\n".to_owned(), chat("tiny", false)] {
            let mut client = TcpStream::connect(world.gateway.addr())
                .await
                .expect("connected");
            let request = chat(model, stream) + &more;
            client.write_all(request.as_bytes()).await.expect("sent");
            within(world.reports.seen.recv()).await.expect("it arrives");
            drop(client);
            within(world.reports.cancelled.recv())
                .await
                .expect("cancelled");
        }
    }
    world.metric("tether_gateway_requests_in_flight 0").await;
    world.metric("tether_gateway_connections 0").await;
    assert!(
        world.reports.seen.try_recv().is_err(),
        "what was pipelined behind is not begun for nobody"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_together_are_answered_one_after_the_other() {
    let world = World::new().await;
    let get = "GET /healthz HTTP/1.1\r\nhost: x\r\n";
    let mut client = TcpStream::connect(world.gateway.addr())
        .await
        .expect("connected");
    let requests = format!("{get}\r\n\r\n{get}connection: close\r\n\r\n");
    client.write_all(requests.as_bytes()).await.expect("sent");
    let mut answers = String::new();
    within(client.read_to_string(&mut answers))
        .await
        .expect("whole answers");
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_stream_is_kept_alive_by_comments() {
    let world = World::with(1, |config| config.keep_alive_ms = 50).await;
    let response = within(world.chat("slow", true).send())
        .await
        .expect("a head");
    let mut pieces = response.bytes_stream();
    let mut text = String::new();
    while text.matches(": keep-alive\n\n").count() < 3 {
        let piece = within(pieces.next())
            .await
            .expect("more")
            .expect("no error");
        text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
    }
    assert!(text.contains("\"content\":\"Par\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_that_dies_before_it_answers_is_replaced_by_another() {
    let mut world = World::with(2, |_| ()).await;
    let (status, _, body) = send(world.chat("first-dies", false)).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["choices"][0]["message"]["content"], "Paris");
    let first = within(world.reports.seen.recv()).await.expect("asked");
    let second = within(world.reports.seen.recv()).await.expect("asked");
    assert_ne!(first.orchestrator, second.orchestrator);
    let resume = second.request.resume.clone().expect("another had it");
    assert_eq!(resume.lost, [world.nodes[first.orchestrator].id()]);
    assert_eq!(resume.started, None, "nothing was given");
    let mut same = second.request;
    same.resume = None;
    assert_eq!(first.request, same, "the same request, so the same work");
    // The lost link comes back by itself.
    world.metric("tether_gateway_orchestrators 2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_other_orchestrator_is_asked_where_the_first_cannot_answer() {
    let mut world = World::with(3, |_| ()).await;
    let (status, _, body) = send(world.chat("first-stops", false)).await;
    assert_eq!(status, 200, "{body}");
    let first = within(world.reports.seen.recv()).await.expect("asked");
    let second = within(world.reports.seen.recv()).await.expect("asked");
    assert_ne!(first.orchestrator, second.orchestrator);
    assert_eq!(first.request, second.request);
    // What fails everywhere is not carried to all, and who had it already is no answer.
    for (model, asked) in [("down", 2), ("fails-once", 2), ("missing", 1)] {
        let (status, _, body) = send(world.chat(model, false)).await;
        let expected = if model == "missing" { 404 } else { 503 };
        assert_eq!(status, expected, "{body}");
        for _ in 0..asked {
            within(world.reports.seen.recv()).await.expect("asked");
        }
        assert!(world.reports.seen.try_recv().is_err(), "{model}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orchestrator_of_which_nothing_is_heard_is_replaced_by_another_and_asked_again_later() {
    let mut world = World::with(2, |_| ()).await;
    let request = world.chat("first-hangs", false);
    let asking = tokio::spawn(async move { send(request).await });
    let first = within(world.reports.seen.recv()).await.expect("asked");
    let starved = world.machines[first.orchestrator].starve();
    let second = within(world.reports.seen.recv()).await.expect("asked");
    assert_ne!(first.orchestrator, second.orchestrator);
    let (status, _, body) = within(asking).await.expect("no panic");
    assert_eq!(status, 200, "{body}");
    // New requests go to the one that is heard, whatever their rank.
    for _ in 0..4 {
        let (status, _, body) = send(world.chat("tiny", false)).await;
        assert_eq!(status, 200, "{body}");
        let seen = within(world.reports.seen.recv()).await.expect("asked");
        assert_eq!(seen.orchestrator, second.orchestrator);
    }
    drop(starved);
    world.metric("tether_gateway_orchestrators 2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_lets_answers_end() {
    let world = World::with(1, |config| config.drain_timeout_ms = 300).await;
    let addr = world.gateway.addr();
    let response = within(world.chat("slow", true).send())
        .await
        .expect("a head");
    let mut pieces = response.bytes_stream();
    within(pieces.next())
        .await
        .expect("a piece")
        .expect("no error");
    let http = world.http.clone();
    // The stream never ends, so that the drain timeout cuts it.
    within(world.gateway.shutdown()).await;
    let refused = http.get(format!("http://{addr}/healthz")).send().await;
    assert!(refused.is_err(), "nobody listens any more");
    for node in world.nodes {
        node.shutdown().await;
    }
}
