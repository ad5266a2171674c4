//! Bodies: how many bytes each may have and all of them together, in which time, and what they are
//! made of. (GW-4)

use crate::config::GatewayConfig;
use crate::problem::Problem;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::GatewayMetrics;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most characters of a client's header that an error repeats.
const MAX_QUOTED_CHARS: usize = 64;

/// Reads bodies, within bounds.
pub(crate) struct Bodies {
    max_bytes: usize,
    timeout: Duration,
    /// One permit is one byte of a body that is held.
    room: Arc<Semaphore>,
    metrics: Arc<GatewayMetrics>,
}

impl Bodies {
    pub(crate) fn new(config: &GatewayConfig, metrics: Arc<GatewayMetrics>) -> Self {
        let room = config.max_body_bytes_in_flight.min(Semaphore::MAX_PERMITS);
        Self {
            max_bytes: config.max_body_bytes,
            timeout: Duration::from_millis(config.body_timeout_ms),
            room: Arc::new(Semaphore::new(room)),
            metrics,
        }
    }

    /// A JSON body, and the room that it takes until the permit is dropped.
    pub(crate) async fn read_json(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
        check_content_type(headers)?;
        check_content_encoding(headers)?;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_bytes as u64) {
            return Err(self.too_large());
        }
        tokio::time::timeout(self.timeout, self.collect(body))
            .await
            .unwrap_or_else(|_| {
                Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "request_timeout",
                    format!(
                        "The body did not come within {} ms.",
                        self.timeout.as_millis()
                    ),
                ))
            })
    }

    async fn collect(&self, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
        let mut pieces = body.into_data_stream();
        let mut whole = Vec::new();
        let mut held = self.take(0)?;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| {
                Problem::invalid("incomplete_body", "The body ended before it was whole.")
            })?;
            if whole.len() + piece.len() > self.max_bytes {
                return Err(self.too_large());
            }
            // Room is taken as bytes come: an announcement alone takes none from others.
            held.merge(self.take(piece.len())?);
            whole.extend_from_slice(&piece);
        }
        Ok((Bytes::from(whole), held))
    }

    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.room
            .clone()
            .try_acquire_many_owned(bytes)
            .map_err(|_| {
                self.metrics.limited("body-bytes");
                Problem::later(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "overloaded",
                    "This gateway holds as many bytes of requests as it can.",
                    None,
                )
            })
    }

    fn too_large(&self) -> Problem {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_too_large",
            format!("The body has more than {} bytes.", self.max_bytes),
        )
    }
}

/// JSON, or unnamed: many a client says nothing.
fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let mime = value.to_str().unwrap_or_default();
    let mime = mime.split(';').next().unwrap_or_default().trim();
    if mime.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(unsupported(
        "The body must be JSON: send 'Content-Type: application/json'.",
    ))
}

/// As it is: what is unpacked could be far larger than what came.
fn check_content_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    for value in headers.get_all(header::CONTENT_ENCODING) {
        let value = String::from_utf8_lossy(value.as_bytes());
        for coding in value.split(',').map(str::trim) {
            if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
                let coding: String = coding.chars().take(MAX_QUOTED_CHARS).collect();
                return Err(unsupported(&format!(
                    "The body has Content-Encoding '{coding}': send it as it is, without one."
                )));
            }
        }
    }
    Ok(())
}

fn unsupported(message: &str) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use tether_telemetry::metrics::Registry;

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_make_room_again() {
        let config = GatewayConfig {
            max_body_bytes: 2_048,
            max_body_bytes_in_flight: 3_000,
            ..GatewayConfig::default()
        };
        let bodies = Bodies::new(&config, GatewayMetrics::register(&Registry::new()));
        let headers = HeaderMap::new();
        let read = |length: usize| bodies.read_json(&headers, Body::from(vec![b'x'; length]));
        let (_, first) = read(2_000).await.expect("room");
        let (_, _second) = read(1_000).await.expect("exactly enough");
        let full = read(1).await.expect_err("full");
        assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(full.code, "overloaded");
        assert!(full.retry_after_ms.is_some());
        drop(first);
        let too_large = read(2_049).await.expect_err("too large");
        assert_eq!(too_large.status, StatusCode::PAYLOAD_TOO_LARGE);
        let _third = read(2_000).await.expect("what was refused holds nothing");
    }

    #[test]
    fn only_a_body_as_it_is_can_be_read() {
        let check = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            check_content_encoding(&headers)
        };
        for fine in [&[][..], &["identity"], &["Identity, identity"], &[""]] {
            assert_eq!(check(fine), Ok(()), "{fine:?}");
        }
        for packed in [&["gzip"][..], &["identity, gzip"], &["identity", "gzip"]] {
            let problem = check(packed).expect_err("packed");
            assert_eq!(problem.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
            assert!(problem.message.contains("'gzip'"), "{problem}");
        }
    }
}
