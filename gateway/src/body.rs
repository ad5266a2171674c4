//! Bodies: how many bytes each may have, those of a tenant and all of them together, in which time,
//! and what they are made of. Only known tenants' bodies are read at all. (GW-4)

use crate::config::GatewayConfig;
use crate::problem::{Problem, RATE_LIMIT_EXCEEDED};
use crate::shares::{Full, Share, Shares};
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::TenantId;

/// Most characters of a client's header that an error repeats.
const MAX_QUOTED_CHARS: usize = 64;

/// Reads bodies, within bounds.
pub(crate) struct Bodies {
    max_bytes: usize,
    timeout: Duration,
    /// Bytes of bodies that are held.
    room: Arc<Shares>,
    metrics: Arc<GatewayMetrics>,
}

impl Bodies {
    pub(crate) fn new(config: &GatewayConfig, metrics: Arc<GatewayMetrics>) -> Self {
        let room = Shares::new(
            config.max_body_bytes_in_flight,
            config.max_body_bytes_per_tenant(),
        );
        Self {
            max_bytes: config.max_body_bytes,
            timeout: Duration::from_millis(config.body_timeout_ms),
            room,
            metrics,
        }
    }

    /// A tenant's JSON body, and the room that it takes until the share is dropped.
    pub(crate) async fn read_json(
        &self,
        tenant: &TenantId,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, Share), Problem> {
        check_content_type(headers)?;
        check_content_encoding(headers)?;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > self.max_bytes as u64) {
            return Err(self.too_large());
        }
        tokio::time::timeout(self.timeout, self.collect(tenant, body))
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

    async fn collect(&self, tenant: &TenantId, body: Body) -> Result<(Bytes, Share), Problem> {
        let mut pieces = body.into_data_stream();
        let mut whole = Vec::new();
        let mut held = self.room.share(tenant);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| {
                Problem::invalid("incomplete_body", "The body ended before it was whole.")
            })?;
            if whole.len() + piece.len() > self.max_bytes {
                return Err(self.too_large());
            }
            // Room is taken as bytes come: an announcement alone takes none from others.
            held.take(piece.len()).map_err(|full| self.refused(full))?;
            whole.extend_from_slice(&piece);
        }
        Ok((Bytes::from(whole), held))
    }

    /// Room for as much again, `times` over: a request of which several are sent.
    pub(crate) fn hold_more(&self, held: &mut Share, times: u32) -> Result<(), Problem> {
        let times = usize::try_from(times).unwrap_or(usize::MAX);
        held.take(held.amount().saturating_mul(times))
            .map_err(|full| self.refused(full))
    }

    fn refused(&self, full: Full) -> Problem {
        match full {
            Full::Tenant => {
                self.metrics.limited("tenant-body-bytes");
                Problem::later(
                    StatusCode::TOO_MANY_REQUESTS,
                    RATE_LIMIT_EXCEEDED,
                    format!(
                        "Too much at once: requests of this tenant that wait for their answers may \
                         have {} bytes together.",
                        self.room.max_per_tenant()
                    ),
                    None,
                )
            }
            Full::Total => {
                self.metrics.limited("body-bytes");
                Problem::later(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "overloaded",
                    "This gateway holds as many bytes of requests as it can.",
                    None,
                )
            }
        }
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

    fn bodies(share_percent: u8) -> Bodies {
        let config = GatewayConfig {
            max_body_bytes: 2_048,
            max_body_bytes_in_flight: 6_000,
            max_body_share_per_tenant_percent: share_percent,
            ..GatewayConfig::default()
        };
        Bodies::new(&config, GatewayMetrics::register(&Registry::new()))
    }

    async fn read(bodies: &Bodies, tenant: &str, length: usize) -> Result<Share, Problem> {
        let tenant = tenant.parse().expect("valid");
        let body = Body::from(vec![b'x'; length]);
        let read = bodies.read_json(&tenant, &HeaderMap::new(), body).await;
        read.map(|(_, share)| share)
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_make_room_again() {
        let bodies = bodies(50);
        let first = read(&bodies, "a", 2_000).await.expect("room");
        let _second = read(&bodies, "b", 2_000).await.expect("room");
        let _third = read(&bodies, "c", 2_000).await.expect("exactly enough");
        let full = read(&bodies, "d", 1).await.expect_err("full");
        assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(full.code, "overloaded");
        assert!(full.retry_after_ms.is_some());
        drop(first);
        let too_large = read(&bodies, "d", 2_049).await.expect_err("too large");
        assert_eq!(too_large.status, StatusCode::PAYLOAD_TOO_LARGE);
        let room = read(&bodies, "d", 2_000).await;
        room.expect("what was refused holds nothing");
    }

    #[tokio::test]
    async fn one_tenants_bodies_are_bounded_and_others_go_on() {
        let bodies = bodies(50);
        let first = read(&bodies, "a", 2_000).await.expect("room");
        let _second = read(&bodies, "a", 1_000).await.expect("exactly its share");
        let full = read(&bodies, "a", 1)
            .await
            .expect_err("more than its share");
        assert_eq!(full.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(full.code, "rate_limit_exceeded");
        assert!(full.retry_after_ms.is_some() && full.message.contains("3000 bytes"));
        let _other = read(&bodies, "b", 2_000).await.expect("room for others");
        drop(first);
        let room = read(&bodies, "a", 2_000).await;
        room.expect("there is room again");
    }

    #[tokio::test]
    async fn one_body_fits_into_the_smallest_share() {
        let bodies = bodies(1);
        let _one = read(&bodies, "a", 2_048).await.expect("one always fits");
        let full = read(&bodies, "a", 1)
            .await
            .expect_err("more than its share");
        assert_eq!(full.status, StatusCode::TOO_MANY_REQUESTS);
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
