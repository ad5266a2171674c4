//! Bodies, heads, connections and concurrency past their bounds.

use crate::world::{KEY, OTHER_KEY, World, send, within};
use futures_util::StreamExt;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends bytes on a connection of its own; what comes back until the gateway closes it.
async fn raw(world: &World, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(world.gateway.addr())
        .await
        .expect("connected");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ = within(stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).expect("UTF-8")
}

pub(crate) fn head(extra: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: application/json\r\n{extra}\r\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_too_large_is_413_whether_announced_or_not() {
    let world = World::with(1, |config| config.max_body_bytes = 2_048).await;
    let body =
        json!({"model": "tiny", "messages": [{"role": "user", "content": "x".repeat(4_096)}]});
    let (status, _, answer) = send(world.post(&body)).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (413, &json!("request_too_large"))
    );
    let piece = "x".repeat(1_024);
    let chunk = format!("400\r\n{piece}\r\n");
    let request = head("transfer-encoding: chunked\r\nconnection: close\r\n") + &chunk.repeat(3);
    assert!(
        raw(&world, request.as_bytes())
            .await
            .starts_with("HTTP/1.1 413 ")
    );
}

/// A streamed request with a body of some 1,700 bytes.
fn long_chat(world: &World, model: &str) -> reqwest::RequestBuilder {
    world.post(&json!({
        "model": model,
        "messages": [{"role": "user", "content": "x".repeat(1_600)}],
        "stream": true,
    }))
}

/// The request as the other tenant sends it.
fn by_other(request: reqwest::RequestBuilder) -> reqwest::Request {
    let mut request = request.build().expect("a request");
    let value = format!("Bearer {OTHER_KEY}").parse().expect("a header");
    request.headers_mut().insert("authorization", value);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_bodies_take_its_share_waits_and_others_do_not() {
    let mut world = World::with(1, |config| {
        config.max_body_bytes = 2_048;
        config.max_body_bytes_in_flight = 8_192;
    })
    .await;
    let waiting = tokio::spawn(long_chat(&world, "never-begins").send());
    within(world.reports.seen.recv()).await.expect("it arrives");
    let (status, headers, body) = send(long_chat(&world, "tiny")).await;
    assert_eq!(
        (status, &body["error"]["code"], &body["error"]["type"]),
        (
            429,
            &json!("rate_limit_exceeded"),
            &json!("rate_limit_error")
        )
    );
    assert!(headers.contains_key("retry-after"));
    world
        .metric("tether_gateway_limited_total{reason=\"tenant-body-bytes\"} 1")
        .await;
    let other = by_other(long_chat(&world, "tiny"));
    let response = within(world.http.execute(other)).await.expect("an answer");
    assert_eq!(response.status(), 200);
    waiting.abort();
    within(world.reports.cancelled.recv())
        .await
        .expect("cancelled");
    world.metric("tether_gateway_requests_in_flight 0").await;
    let response = within(long_chat(&world, "tiny").send()).await;
    let status = response.expect("an answer").status();
    assert_eq!(status, 200, "there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_told_so_before_a_byte_of_the_body_is_asked_for() {
    let world = World::new().await;
    for key in ["", "authorization: Bearer tk-wrong\r\n"] {
        // No byte of the body ever comes; who waited for it would wait for longer than this test.
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{key}content-length: 100000\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n"
        );
        let answer = raw(&world, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_bodies_together_are_bounded_until_their_answers_end() {
    let mut world = World::with(1, |config| {
        config.max_body_bytes = 2_048;
        config.max_body_bytes_in_flight = 3_000;
    })
    .await;
    let second = by_other(long_chat(&world, "tiny"));
    let third = second.try_clone().expect("its body is here");
    let waiting = tokio::spawn(long_chat(&world, "never-begins").send());
    within(world.reports.seen.recv()).await.expect("it arrives");
    let refused = within(world.http.execute(second)).await.expect("an answer");
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let text = within(refused.text()).await.expect("a body");
    assert!(text.contains("\"overloaded\""), "{text}");
    waiting.abort();
    within(world.reports.cancelled.recv())
        .await
        .expect("cancelled");
    world.metric("tether_gateway_requests_in_flight 0").await;
    let answered = within(world.http.execute(third)).await.expect("an answer");
    assert_eq!(answered.status(), 200, "there is room again");
    // One whose answer has begun is held: it may have to be asked again.
    let open = within(long_chat(&world, "slow").send())
        .await
        .expect("a head");
    assert_eq!(open.status(), 200);
    let other = by_other(long_chat(&world, "tiny"));
    let refused = within(world.http.execute(other)).await.expect("an answer");
    assert_eq!(refused.status(), 503);
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_and_slow_bodies_are_given_up() {
    let world = World::with(1, |config| {
        config.header_timeout_ms = 100;
        config.body_timeout_ms = 100;
    })
    .await;
    let answer = raw(
        &world,
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-slow: ",
    )
    .await;
    assert!(!answer.contains("200 OK"), "{answer}");
    let request = head("content-length: 100\r\nconnection: close\r\n") + "{";
    let answer = raw(&world, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("request_timeout"));
    let huge = format!(
        "GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n",
        "x".repeat(200 * 1_024)
    );
    assert!(
        raw(&world, huge.as_bytes())
            .await
            .starts_with("HTTP/1.1 431 ")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_at_its_limit_waits_and_others_do_not() {
    let mut world = World::with(1, |config| config.max_in_flight_per_tenant = 2).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let response = within(world.chat("slow", true).send())
            .await
            .expect("a head");
        assert_eq!(response.status(), 200);
        open.push(response);
    }
    let (status, headers, body) = send(world.chat("tiny", false)).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    assert!(headers.contains_key("retry-after"));
    let other = by_other(world.chat("tiny", false));
    let response = within(world.http.execute(other)).await.expect("an answer");
    assert_eq!(response.status(), 200);
    drop(open.pop());
    within(world.reports.cancelled.recv())
        .await
        .expect("cancelled");
    world.metric("tether_gateway_requests_in_flight 1").await;
    let (status, _, _) = send(world.chat("tiny", false)).await;
    assert_eq!(status, 200, "there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told_so() {
    let world = World::with(1, |config| config.max_connections = 1).await;
    let response = within(world.chat("slow", true).send())
        .await
        .expect("a head");
    assert_eq!(response.status(), 200);
    let answer = raw(&world, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(response);
    let again = async {
        while !raw(
            &world,
            b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await
        .starts_with("HTTP/1.1 200 ")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(again).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_still_slows_its_answer_and_is_dropped_in_the_end() {
    let mut world = World::with(1, |config| config.write_timeout_ms = 300).await;
    let response = within(world.chat("floods", true).send())
        .await
        .expect("a head");
    // One piece is read and then nothing, while the orchestrator writes without end: it is held
    // up by the windows between, and cancelled once the gateway gives the client up.
    let mut pieces = response.bytes_stream();
    within(pieces.next())
        .await
        .expect("a piece")
        .expect("no error");
    within(world.reports.cancelled.recv())
        .await
        .expect("cancelled");
    world.metric("tether_gateway_disconnects_total 1").await;
}
