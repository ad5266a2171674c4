//! A span reaches a real receiver over OTLP/HTTP, with its trace, its parent and its attributes.

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::time::Duration;
use tether_telemetry::{LogFormat, TelemetryConfig, trace};
use tokio::sync::mpsc;
use tracing::Instrument;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// A hang guard, not a measure.
const PATIENCE: Duration = Duration::from_secs(30);

async fn collector() -> (String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let take = async move |body: Bytes| {
        let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
        sender.send(request).expect("the test listens");
        ExportTraceServiceResponse::default().encode_to_vec()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (endpoint, receiver)
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_is_whole_at_its_collector() {
    let (endpoint, mut received) = collector().await;
    let guard = tether_telemetry::init(&TelemetryConfig {
        log_format: LogFormat::Json,
        otlp_endpoint: Some(endpoint),
        service_instance: "node-1".to_owned(),
        ..TelemetryConfig::default()
    })
    .expect("set up");

    let request = tracing::info_span!(
        target: "tether_gateway",
        "gateway.request",
        tether.role = "gateway",
        tether.correlation_id = tracing::field::Empty,
    );
    trace::set_parent(&request, Some(&format!("00-{TRACE}-{PARENT}-01")));
    request.record("tether.correlation_id", "c0ffee");
    let sent = async {
        // A library's span is not ours to export.
        let _noise = tracing::info_span!(target: "iroh", "noise").entered();
        trace::current_traceparent()
    }
    .instrument(request.clone())
    .await
    .expect("inside of a trace");
    assert_eq!(trace::trace_id(&request).as_deref(), Some(TRACE));

    // The other process: its span hangs below the one that was sent along.
    let infer =
        tracing::info_span!(target: "tether_worker", "worker.infer", tether.role = "worker");
    trace::set_parent(&infer, Some(&sent));
    infer.in_scope(|| {
        trace::record_finished(
            "engine.prefill",
            1_000_000_000,
            3_000_000_000,
            &[("gen_ai.usage.input_tokens", 12_i64.into())],
        );
    });
    drop((infer, request));
    guard.shutdown();

    let mut spans: Vec<Span> = Vec::new();
    while spans.len() < 3 {
        let batch = tokio::time::timeout(PATIENCE, received.recv())
            .await
            .expect("the spans come")
            .expect("the collector runs");
        for resource in batch.resource_spans {
            let attributes = resource.resource.expect("a resource").attributes;
            assert_eq!(text(&attributes, "service.name").as_deref(), Some("tether"));
            assert_eq!(
                text(&attributes, "service.instance.id").as_deref(),
                Some("node-1")
            );
            spans.extend(
                resource
                    .scope_spans
                    .into_iter()
                    .flat_map(|scope| scope.spans),
            );
        }
    }
    let named = |name: &str| {
        let found = spans.iter().find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("{name} is missing"))
    };
    let (gateway, worker, engine) = (
        named("gateway.request"),
        named("worker.infer"),
        named("engine.prefill"),
    );
    assert_eq!(spans.len(), 3, "and nothing else");
    for span in &spans {
        assert_eq!(hex(&span.trace_id), TRACE, "{}", span.name);
    }
    assert_eq!(hex(&gateway.parent_span_id), PARENT);
    assert_eq!(worker.parent_span_id, gateway.span_id);
    assert_eq!(engine.parent_span_id, worker.span_id);
    assert_eq!(
        engine.end_time_unix_nano - engine.start_time_unix_nano,
        2_000_000_000
    );
    assert_eq!(
        text(&engine.attributes, "gen_ai.usage.input_tokens").as_deref(),
        Some("12")
    );
    assert_eq!(
        text(&gateway.attributes, "tether.role").as_deref(),
        Some("gateway")
    );
    assert_eq!(
        text(&gateway.attributes, "tether.correlation_id").as_deref(),
        Some("c0ffee")
    );
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes text");
        text
    })
}
