//! Several answers to one request: side by side, each by itself, and all or none.

use crate::world::{World, events, send, within};
use futures_util::StreamExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tether_wire::{CorrelationId, TenantId};

fn several(model: &str, answers: u32, stream: bool) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "Capital of France?"}],
        "n": answers,
        "seed": 41,
        "stream": stream,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_answers_come_whole_with_one_usage() {
    let mut world = World::new().await;
    let request = world.post(&several("tiny", 3, false));
    let (status, headers, body) = send(request.header("idempotency-key", "order-7")).await;
    assert_eq!(status, 200, "{body}");
    let choices = body["choices"].as_array().expect("a list");
    for (index, choice) in (0..).zip(choices) {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], "Paris");
        assert_eq!(choice["finish_reason"], "stop");
        assert_eq!(choice["tether"]["seed"], 41 + index, "each has its receipt");
        assert_eq!(choice["tether"]["receipt"], "YSByZWNlaXB0");
    }
    assert_eq!(choices.len(), 3);
    assert!(body.get("tether").is_none());
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 11, "completion_tokens": 9, "total_tokens": 20})
    );
    let acme: TenantId = "acme".parse().expect("valid");
    let first = CorrelationId::derive(&acme, "order-7");
    assert_eq!(body["id"], format!("chatcmpl-{first}"));
    assert_eq!(headers["x-tether-correlation-id"], first.to_hex());
    let mut seen = BTreeMap::new();
    for _ in 0..3 {
        let one = world.reports.seen.recv().await.expect("it arrived").request;
        assert_eq!(
            one.correlation,
            CorrelationId::derive(&acme, &one.retry_token)
        );
        assert_eq!(
            one.answers, 3,
            "another number under this key is a conflict"
        );
        seen.insert(one.retry_token, one.sampling.seed);
    }
    let expected = [("order-7", 41), ("order-7 1", 42), ("order-7 2", 43)];
    let expected = expected.map(|(token, seed)| (token.to_owned(), Some(seed)));
    assert_eq!(seen, expected.into());
    world.metric("tether_gateway_requests_in_flight 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_answers_are_streamed_with_one_usage_at_the_end() {
    let world = World::new().await;
    let mut body = several("tiny", 3, true);
    body["stream_options"] = json!({"include_usage": true});
    let response = within(world.post(&body).send()).await.expect("a head");
    let events = events(response).await;
    let (last, chunks) = events.split_last().expect("events");
    assert_eq!(last, "[DONE]");
    let chunks: Vec<Value> = chunks
        .iter()
        .map(|event| serde_json::from_str(event).expect("JSON"))
        .collect();
    let (usage, chunks) = chunks.split_last().expect("chunks");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["prompt_tokens"], 11);
    assert_eq!(usage["usage"]["completion_tokens"], 9);
    let mut texts = [const { String::new() }; 3];
    let (mut roles, mut ends) = ([0; 3], [0; 3]);
    for chunk in chunks {
        assert!(chunk["usage"].is_null());
        assert_eq!(chunk["id"], usage["id"]);
        let [choice] = chunk["choices"].as_array().expect("a list").as_slice() else {
            panic!("one choice in a chunk: {chunk}");
        };
        let index = choice["index"].as_u64().expect("a number") as usize;
        assert_eq!(ends[index], 0, "nothing comes behind its end");
        roles[index] += usize::from(choice["delta"]["role"] == "assistant");
        texts[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        assert_eq!(
            choice.get("tether").is_some(),
            choice["finish_reason"] == "stop"
        );
        ends[index] += usize::from(choice["finish_reason"] == "stop");
    }
    assert_eq!(texts, ["Paris", "Paris", "Paris"]);
    assert_eq!((roles, ends), ([1; 3], [1; 3]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_fails_before_anything_was_said_is_the_answer_and_the_others_are_cancelled() {
    let mut world = World::new().await;
    for stream in [false, true] {
        let (status, _, body) = send(world.post(&several("others-fail", 2, stream))).await;
        assert_eq!(status, 404, "{body}");
        assert_eq!(body["error"]["code"], "model_not_found");
        within(world.reports.cancelled.recv())
            .await
            .expect("cancelled");
    }
    world.metric("tether_gateway_requests_in_flight 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_breaks_later_ends_all_in_an_error_and_the_others_are_cancelled() {
    let mut world = World::new().await;
    let (status, _, body) = send(world.post(&several("others-break", 2, false))).await;
    assert_eq!(status, 503, "{body}");
    let cancelled = within(world.reports.cancelled.recv()).await;
    assert!(cancelled.is_some());
    let request = world.post(&several("others-break", 2, true));
    let response = within(request.send()).await.expect("a head");
    let events = events(response).await;
    let last: Value = serde_json::from_str(events.last().expect("events")).expect("JSON");
    assert_eq!(last["error"]["code"], "unavailable", "{last}");
    let cancelled = within(world.reports.cancelled.recv()).await;
    assert!(cancelled.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_is_streamed_while_the_others_wait_and_leaving_cancels_those() {
    let mut world = World::new().await;
    let request = world.post(&several("others-wait", 3, true));
    let response = within(request.send()).await.expect("a head");
    let mut pieces = response.bytes_stream();
    let mut text = String::new();
    while !text.contains("\"finish_reason\":\"stop\"") {
        let piece = within(pieces.next())
            .await
            .expect("more")
            .expect("no error");
        text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
    }
    assert!(
        text.contains("\"Par\"") && !text.contains("[DONE]"),
        "{text}"
    );
    drop(pieces);
    for _ in 0..2 {
        within(world.reports.cancelled.recv())
            .await
            .expect("cancelled");
    }
    world.metric("tether_gateway_requests_in_flight 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_takes_a_place_of_the_tenant_and_room_for_its_request() {
    let mut world = World::with(1, |config| config.max_in_flight_per_tenant = 3).await;
    let (status, headers, body) = send(world.post(&several("tiny", 4, false))).await;
    assert_eq!(status, 429, "{body}");
    assert!(headers.contains_key("retry-after"));
    assert!(world.reports.seen.try_recv().is_err(), "none was sent");
    let (status, _, body) = send(world.post(&several("tiny", 3, false))).await;
    assert_eq!(status, 200, "{body}");

    let world = World::with(1, |config| {
        config.max_body_bytes = 2_048;
        config.max_body_bytes_in_flight = 8_192;
        config.max_body_share_per_tenant_percent = 50;
    })
    .await;
    let mut long = several("tiny", 3, false);
    long["user"] = json!("x".repeat(500));
    long["messages"][0]["content"] = json!("x".repeat(1_000));
    let (status, _, body) = send(world.post(&long)).await;
    assert_eq!(status, 429, "{body}");
    long["n"] = json!(2);
    let (status, _, body) = send(world.post(&long)).await;
    assert_eq!(status, 200, "{body}");
}
