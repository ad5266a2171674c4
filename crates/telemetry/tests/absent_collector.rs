//! A collector that is not there costs nothing but its spans.

use std::time::{Duration, Instant};
use tether_telemetry::{TelemetryConfig, TelemetryError};

#[tokio::test]
async fn an_absent_collector_neither_stops_nor_holds_up_the_process() {
    // Bound, so that the port is nobody else's, and then given up.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let config = TelemetryConfig {
        otlp_endpoint: Some(endpoint),
        ..TelemetryConfig::default()
    };
    let guard = tether_telemetry::init(&config).expect("set up");
    for _ in 0..10_000 {
        let _span = tracing::info_span!(target: "tether_test", "work").entered();
    }
    assert!(matches!(
        tether_telemetry::init(&config),
        Err(TelemetryError::Already)
    ));
    let started = Instant::now();
    // On a runtime of one thread, which the flush must not wait for.
    guard.shutdown();
    assert!(started.elapsed() < Duration::from_secs(20));
}
