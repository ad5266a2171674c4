//! One request is one trace, from the gateway to the engine, in whatever collector the operator
//! has. (OBS-1)
//!
//! The collector here is a real OTLP/HTTP receiver. The spans come from two processes: `tether up`
//! with gateway and orchestrator, and its worker, which speaks for its engine.

mod support;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use support::{Mesh, PATIENCE, eventually, runtime};

/// The caller's trace and span, as the example of the W3C recommendation has them.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    async fn listen(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let app = axum::Router::new()
            .route("/v1/traces", post(receive))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        addr
    }

    /// The spans of the caller's trace.
    fn spans(&self) -> Vec<Span> {
        let spans = self.0.lock().expect("not poisoned");
        let of_trace = |span: &&Span| hex::encode(&span.trace_id) == TRACE;
        spans.iter().filter(of_trace).cloned().collect()
    }

    fn named(&self, name: &str) -> Option<Span> {
        self.spans().into_iter().find(|span| span.name == name)
    }
}

async fn receive(State(collector): State<Collector>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let spans = request
        .resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans)
        .flat_map(|scope| scope.spans);
    collector.0.lock().expect("not poisoned").extend(spans);
    StatusCode::OK
}

#[test]
fn a_request_is_one_trace_from_gateway_to_engine() {
    let collector = Collector::default();
    let addr = runtime().block_on(collector.listen());
    let mesh = Mesh::start(&["--otlp-endpoint", &format!("http://{addr}")]);

    let answer = runtime().block_on(async {
        let response = support::client()
            .post(format!("{}/v1/chat/completions", mesh.gateway()))
            .bearer_auth(mesh.api_key())
            .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
            .json(&json!({
                "model": mesh.model(),
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
                "temperature": 0,
            }))
            .timeout(PATIENCE)
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 200);
        response.text().await.expect("a whole body")
    });
    assert!(answer.contains("Paris"), "{answer}");

    // Each span and the one that it must hang below.
    let expected = [
        ("gateway.request", None),
        ("orchestrator.dispatch", Some("gateway.request")),
        ("orchestrator.attempt", Some("orchestrator.dispatch")),
        ("worker.infer", Some("orchestrator.attempt")),
        ("engine.prefill", Some("worker.infer")),
        ("engine.decode", Some("worker.infer")),
    ];
    eventually("every span of the trace is exported", || {
        expected
            .iter()
            .all(|(name, _)| collector.named(name).is_some())
    });
    for (name, parent) in expected {
        let span = collector.named(name).expect("exported");
        let above = match parent {
            Some(parent) => hex::encode(collector.named(parent).expect("exported").span_id),
            None => CALLER.to_owned(),
        };
        assert_eq!(hex::encode(&span.parent_span_id), above, "parent of {name}");
        assert!(
            span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano,
            "{name} has its times"
        );
    }
    let exactly_once =
        |name: &str| collector.spans().iter().filter(|s| s.name == name).count() == 1;
    for (name, _) in expected {
        assert!(exactly_once(name), "{name} once");
    }
    let secrets = format!("{:?}", collector.spans());
    assert!(
        !secrets.contains("capital of France"),
        "no prompt in a trace"
    );
    assert!(!secrets.contains(mesh.api_key()), "no key in a trace");
    mesh.stop();
}
