//! Every refusal has its status, OpenAI's shape and the request's id.

use crate::world::{World, send};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn error<'a>(body: &'a Value, field: &str) -> &'a Value {
    let error = body["error"].as_object().expect("OpenAI's shape");
    assert_eq!(error.len(), 4, "message, type, param and code: {body}");
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
    &body["error"][field]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_is_401_before_anything_is_read() {
    let world = World::new().await;
    let url = world.url("/v1/chat/completions");
    for (key, code) in [
        (None, "missing_api_key"),
        (Some("tk-wrong"), "invalid_api_key"),
    ] {
        let mut request = world.http.post(&url).body("no JSON at all");
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let (status, headers, body) = send(request).await;
        assert_eq!(status, 401);
        assert_eq!(error(&body, "code"), code);
        assert_eq!(headers["www-authenticate"], "Bearer");
        assert!(
            headers["x-request-id"]
                .to_str()
                .expect("ASCII")
                .starts_with("req_")
        );
    }
    let (status, _, _) = send(world.http.get(world.url("/v1/models"))).await;
    assert_eq!(status, 401);
    let twice = world.chat("tiny", false).bearer_auth("tk-wrong");
    let (status, _, body) = send(twice).await;
    assert_eq!(status, 401, "with two keys it is nobody");
    let message = error(&body, "message").as_str().expect("text");
    assert!(message.contains("more than one"), "{message}");
    world
        .metric("tether_gateway_auth_failures_total{reason=\"missing_api_key\"} 2")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_meshs_refusals_have_their_statuses() {
    let world = World::new().await;
    for stream in [false, true] {
        let (status, headers, body) = send(world.chat("missing", stream)).await;
        assert_eq!(status, 404);
        assert_eq!(error(&body, "code"), "model_not_found");
        assert_eq!(error(&body, "param"), "model");
        assert!(headers.contains_key("x-tether-correlation-id"));
        assert!(!headers.contains_key("x-tether-worker"), "nobody worked");

        let (status, _, body) = send(world.chat("secret", stream)).await;
        assert_eq!(status, 403);
        assert_eq!(error(&body, "code"), "permission_denied");
        assert_eq!(error(&body, "type"), "permission_error");
        assert_eq!(error(&body, "param"), "model");

        let (status, headers, body) = send(world.chat("down", stream)).await;
        assert_eq!(status, 503);
        assert_eq!(error(&body, "code"), "unavailable");
        assert_eq!(headers["retry-after"], "3");
        assert_eq!(headers["retry-after-ms"], "2500");

        let (status, _, body) = send(world.chat("too-long", stream)).await;
        assert_eq!(status, 400);
        assert_eq!(error(&body, "code"), "context_length_exceeded");
        assert_eq!(error(&body, "param"), "messages");
    }
    let mut wrong = json!({"model": "tiny", "messages": [{"role": "user", "content": "x"}]});
    wrong["max_tokens"] = json!(0);
    assert_eq!(send(world.post(&wrong)).await.0, 400);
    // Each by its model where the mesh knows it, and tenants make no labels of their own.
    let counted = |model: &str, error: &str, count: u32| {
        format!(
            "gen_ai_server_request_duration_seconds_count{{gen_ai_operation_name=\"chat\",gen_ai_request_model=\"{model}\",error_type=\"{error}\"}} {count}"
        )
    };
    for line in [
        counted("down@1.0", "unavailable", 2),
        counted("unknown", "model_not_found", 2),
        counted("unknown", "context_length_exceeded", 2),
        counted("tiny@1.0", "invalid_value", 1),
    ] {
        world.metric(&line).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_at_once() {
    let world = World::new().await;
    // The quickest of some: others may have had to wait for this machine.
    let mut quickest = Duration::MAX;
    for _ in 0..20 {
        let begin = Instant::now();
        let (status, _, _) = send(world.chat("limited", false)).await;
        assert_eq!(status, 429);
        quickest = quickest.min(begin.elapsed());
    }
    // As long as a link is given to break behind a call that broke.
    assert!(quickest < Duration::from_millis(100), "{quickest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_over_its_workers_quota_is_told_429_and_when_to_come_again() {
    let world = World::new().await;
    for stream in [false, true] {
        let (status, headers, body) = send(world.chat("limited", stream)).await;
        assert_eq!(status, 429);
        assert_eq!(error(&body, "code"), "rate_limit_exceeded");
        assert_eq!(error(&body, "type"), "rate_limit_error");
        assert_eq!(error(&body, "param"), &Value::Null);
        let message = error(&body, "message").as_str().expect("text");
        assert!(message.contains("too many tokens"), "{message}");
        assert_eq!(headers["retry-after"], "41");
        assert_eq!(headers["retry-after-ms"], "40100");
    }
    world
        .metric("tether_gateway_limited_total{reason=\"worker-quota\"} 2")
        .await;
    let metrics = world.registry.encode();
    assert!(!metrics.contains("tether_gateway_broken_answers_total{"));
    assert!(metrics.contains("status_class=\"4xx\"} 2"), "{metrics}");
    assert!(!metrics.contains("status_class=\"5xx\""), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_supported_is_refused_by_name() {
    let world = World::new().await;
    let request = world.post(&json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "hi"}],
        "functions": [{"name": "f"}],
    }));
    let (status, _, body) = send(request).await;
    assert_eq!(status, 400);
    assert_eq!(error(&body, "code"), "unsupported_parameter");
    assert_eq!(error(&body, "param"), "functions");
    assert_eq!(error(&body, "type"), "invalid_request_error");

    let url = world.url("/v1/chat/completions");
    let post = |kind: &'static str, body: &'static str| {
        let request = world.http.post(&url).bearer_auth(crate::world::KEY);
        request.header("content-type", kind).body(body)
    };
    let (status, _, body) = send(post("application/json", "{\"model\": oops}")).await;
    assert_eq!(status, 400);
    assert!(
        error(&body, "message")
            .as_str()
            .expect("text")
            .contains("line 1 column 11")
    );
    let (status, _, body) = send(post("text/plain", "{}")).await;
    assert_eq!(status, 415);
    assert_eq!(error(&body, "code"), "unsupported_media_type");
    let request = world.chat("tiny", false).header("content-encoding", "gzip");
    let (status, _, body) = send(request).await;
    assert_eq!(status, 415);
    let message = error(&body, "message").as_str().expect("text");
    assert!(message.contains("Content-Encoding 'gzip'"), "{message}");
    let request = world.chat("tiny", false).header("idempotency-key", "a b");
    let (status, _, body) = send(request).await;
    assert_eq!(
        (status, error(&body, "code")),
        (400, &json!("invalid_idempotency_key"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_path_or_method_is_in_the_apis_shape_too() {
    let world = World::new().await;
    let (status, _, body) = send(world.http.get(world.url("/v1/embeddings"))).await;
    assert_eq!((status, error(&body, "code")), (404, &json!("not_found")));
    let (status, headers, body) = send(world.http.get(world.url("/v1/chat/completions"))).await;
    assert_eq!(
        (status, error(&body, "code")),
        (405, &json!("method_not_allowed"))
    );
    assert_eq!(headers["allow"], "POST");
    let garbled = world.http.get(world.url("/v1/models/%FF"));
    let (status, _, body) = send(garbled.bearer_auth(crate::world::KEY)).await;
    assert_eq!(
        (status, error(&body, "param")),
        (400, &json!("model")),
        "{body}"
    );
}
