//! What an SDK does: list models, chat, stream.

use crate::world::{OTHER_KEY, WORKER, World, events, send, within};
use serde_json::{Value, json};
use tether_gateway::saved::fingerprint;
use tether_wire::infer::{Input, Message, Speaker};
use tether_wire::{CorrelationId, Digest, TenantId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_is_answered_whole_and_says_who_answered() {
    let mut world = World::new().await;
    let request = world
        .post(&json!({
            "model": "tiny",
            "messages": [
                {"role": "developer", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "Capital of France?"}]},
            ],
            "seed": -1,
            "temperature": 0,
            "max_completion_tokens": 9,
            "user": "u-1",
        }))
        .header("idempotency-key", "order-7")
        .header("x-request-id", "mine-1");
    let (status, headers, body) = send(request).await;
    assert_eq!(status, 200, "{body}");

    let acme: TenantId = "acme".parse().expect("valid");
    let correlation = CorrelationId::derive(&acme, "order-7");
    assert_eq!(body["id"], format!("chatcmpl-{correlation}"));
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["model"], "tiny");
    let made_with = fingerprint(&Digest([0xab; 32]), "class-1");
    assert_eq!(body["system_fingerprint"], made_with);
    assert_eq!(body["created"], 1_700_000_000, "when it was first taken");
    let choice = &body["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], "Paris");
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["index"], 0);
    assert_eq!(
        body["usage"],
        json!({"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14})
    );
    let added = json!({
        "mesh": world.gateway_mesh(),
        "worker": WORKER.to_hex(),
        "model": "tiny@1.0",
        "seed": -1,
        "receipt": "YSByZWNlaXB0",
    });
    assert_eq!(body["tether"], added, "passed on unchanged");
    assert_eq!(headers["x-tether-worker"], WORKER.to_hex());
    assert_eq!(headers["x-tether-model"], "tiny@1.0");
    assert_eq!(headers["x-tether-correlation-id"], correlation.to_hex());
    assert_eq!(headers["x-request-id"], "mine-1");
    assert_eq!(headers["content-type"], "application/json");
    assert!(headers.contains_key("openai-processing-ms"));

    let seen = world.reports.seen.recv().await.expect("it arrived").request;
    assert_eq!(
        (&seen.tenant, seen.retry_token.as_str()),
        (&acme, "order-7")
    );
    assert_eq!(seen.sampling.seed, Some(u64::MAX));
    assert_eq!(seen.sampling.max_tokens, Some(9));
    let message = |role, content: &str| Message::new(role, content);
    assert_eq!(
        seen.input,
        Input::Chat(vec![
            message(Speaker::System, "Be short."),
            message(Speaker::User, "Capital of France?"),
        ])
    );
    world
        .metric("tether_gateway_tokens_total{gen_ai_request_model=\"tiny@1.0\",gen_ai_token_type=\"output\"} 3")
        .await;
    // A whole answer is a call that ended well, not one that was cancelled.
    world
        .metric("tether_net_calls_total{method=\"submit\",direction=\"outgoing\",outcome=\"ok\"} 1")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_has_one_event_per_piece_and_ends_with_its_usage() {
    let world = World::new().await;
    let request = world.post(&json!({
        "model": "tiny@1.0",
        "messages": [{"role": "user", "content": "Capital of France?"}],
        "stream": true,
        "stream_options": {"include_usage": true},
    }));
    let response = within(request.send()).await.expect("an answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-tether-worker"], WORKER.to_hex());
    let kind = response.headers()["content-type"].to_str().expect("ASCII");
    assert!(kind.starts_with("text/event-stream"));
    let mut events = events(response).await;
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).expect("JSON"))
        .collect();
    let deltas: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]["delta"]).collect();
    assert_eq!(chunks.len(), 5);
    assert_eq!(
        deltas[0],
        &json!({"role": "assistant", "content": "", "refusal": null})
    );
    assert_eq!(deltas[1], &json!({"content": "Par"}));
    assert_eq!(deltas[2], &json!({"content": "is"}));
    assert_eq!(deltas[3], &json!({}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[3]["tether"]["receipt"], "YSByZWNlaXB0");
    let added = chunks.iter().filter(|chunk| !chunk["tether"].is_null());
    assert_eq!(added.count(), 1, "once, with the end");
    assert_eq!(chunks[4]["choices"], json!([]));
    assert_eq!(chunks[4]["usage"]["total_tokens"], 14);
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["model"], "tiny@1.0");
        assert_eq!(chunk["id"], chunks[0]["id"]);
    }
    for chunk in &chunks[..4] {
        let usage = chunk.as_object().expect("an object").get("usage");
        assert_eq!(usage, Some(&Value::Null));
    }
    assert!(chunks[1]["choices"][0]["finish_reason"].is_null());

    // Without the option there is no usage at all.
    let response = within(world.chat("tiny", true).send())
        .await
        .expect("an answer");
    let plain = crate::world::events(response).await;
    assert_eq!(plain.len(), 5);
    assert!(plain.iter().all(|event| !event.contains("usage")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_listed_and_shown() {
    let world = World::new().await;
    let list: Value = world.get("/v1/models").await.json().await.expect("JSON");
    let tiny =
        json!({"id": "tiny", "object": "model", "created": 1_700_000_000, "owned_by": "tether"});
    assert_eq!(list, json!({"object": "list", "data": [tiny]}));
    let shown: Value = world
        .get("/v1/models/tiny")
        .await
        .json()
        .await
        .expect("JSON");
    assert_eq!(shown, tiny);
    let known = world.get("/v1/models/down@1.0").await;
    assert_eq!(known.status(), 200, "known, though nothing serves it now");
    let (status, _, body) = send(
        world
            .http
            .get(world.url("/v1/models/none"))
            .bearer_auth(OTHER_KEY),
    )
    .await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (404, &json!("model_not_found"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_another_tenant_is_another_request() {
    let mut world = World::new().await;
    for key in [crate::world::KEY, OTHER_KEY, OTHER_KEY] {
        let request = world.chat("tiny", false).header("idempotency-key", "same");
        // The last `authorization` counts for nothing: there must be one.
        let mut request = request.build().expect("a request");
        let value = format!("Bearer {key}").parse().expect("a header");
        request.headers_mut().insert("authorization", value);
        let response = within(world.http.execute(request))
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
    }
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(
            world
                .reports
                .seen
                .recv()
                .await
                .expect("it arrived")
                .request
                .correlation,
        );
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[1], ids[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_orchestrator_it_says_so_and_with_one_it_is_ready() {
    let world = World::with(0, |_| ()).await;
    assert!(!world.gateway.ready());
    assert_eq!(world.get("/healthz").await.status(), 200);
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    assert!(ready.text().await.expect("text").contains("directory"));
    let (status, headers, body) = send(world.chat("tiny", false)).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (503, &json!("unavailable"))
    );
    assert!(headers.contains_key("retry-after"));

    let world = World::new().await;
    assert_eq!(world.get("/readyz").await.status(), 200);
    let metrics = world.get("/metrics").await;
    let kind = metrics.headers()["content-type"]
        .to_str()
        .expect("ASCII")
        .to_owned();
    assert!(kind.starts_with("application/openmetrics-text"));
    assert!(metrics.text().await.expect("text").ends_with("# EOF\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_trace_goes_on_through_the_mesh() {
    // Without a collector, which the trace must not need.
    let guard = tether_telemetry::init(&tether_telemetry::TelemetryConfig {
        log_filter: "off".to_owned(),
        ..Default::default()
    })
    .expect("the only test of this binary that sets it up");
    let mut world = World::new().await;
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let request = world.chat("tiny", false);
    let request = request.header("traceparent", format!("00-{trace}-{span}-01"));
    assert_eq!(send(request).await.0, 200);
    let seen = world.reports.seen.recv().await.expect("it arrived");
    let sent = seen.traceparent.expect("a trace goes along");
    assert!(sent.starts_with(&format!("00-{trace}-")), "{sent}");
    assert!(!sent.contains(span), "below the gateway's own span");
    guard.shutdown();
}
