//! What an operator may set. Every bound of the gateway is here, with its reason.

use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A setting outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gateway.{setting} {why}")]
pub struct ConfigError {
    setting: &'static str,
    why: String,
}

/// The gateway's section of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address for tenants' HTTP requests; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Most connections at once; more are answered 503 and closed. A connection costs some 20 kB.
    pub max_connections: usize,
    /// Most requests for inference at once; more are answered 503.
    pub max_in_flight: usize,
    /// Most requests for inference at once of one tenant; more are answered 429.
    pub max_in_flight_per_tenant: usize,
    /// Most bytes of a body; larger ones are answered 413. Not above 4 MiB, what a request on the
    /// wire may have.
    pub max_body_bytes: usize,
    /// Most bytes of all bodies that are held at once, until their answers end: each may have to be
    /// asked again; more are answered 503. Not below `max_body_bytes`, so that each body that may come can.
    pub max_body_bytes_in_flight: usize,
    /// Percent of `max_body_bytes_in_flight` that bodies of one tenant may take, so that it cannot
    /// starve the others; more are answered 429. One body of `max_body_bytes` always fits.
    pub max_body_share_per_tenant_percent: u8,
    /// Milliseconds in which the head of a request must have come. Also how long an idle
    /// connection is kept.
    pub header_timeout_ms: u64,
    /// Milliseconds in which the body of a request must have come.
    pub body_timeout_ms: u64,
    /// Milliseconds after which a client that reads nothing is dropped.
    pub write_timeout_ms: u64,
    /// Milliseconds that an answer may take in all.
    pub request_timeout_ms: u64,
    /// Milliseconds for which an answer whose orchestrator is lost waits for one that goes on with it.
    pub resume_timeout_ms: u64,
    /// Milliseconds of silence in a stream after which a comment keeps it alive.
    pub keep_alive_ms: u64,
    /// Milliseconds that answers may still take when the gateway stops.
    pub drain_timeout_ms: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            max_connections: 4_096,
            max_in_flight: 1_024,
            max_in_flight_per_tenant: 256,
            max_body_bytes: 2 * 1024 * 1024,
            max_body_bytes_in_flight: 256 * 1024 * 1024,
            max_body_share_per_tenant_percent: 25,
            header_timeout_ms: 20_000,
            body_timeout_ms: 30_000,
            write_timeout_ms: 60_000,
            request_timeout_ms: 600_000,
            resume_timeout_ms: 20_000,
            keep_alive_ms: 15_000,
            drain_timeout_ms: 30_000,
        }
    }
}

impl GatewayConfig {
    /// Checks every setting, before anything is bound.
    ///
    /// # Errors
    /// Names the setting and its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |setting, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError {
                    setting,
                    why: format!("is {value}, not between {low} and {high}"),
                })
            }
        };
        let wire = tether_wire::infer::MAX_REQUEST_BYTES as u64;
        range("max_connections", self.max_connections as u64, 1, 1 << 20)?;
        range("max_in_flight", self.max_in_flight as u64, 1, 1 << 20)?;
        let per_tenant = self.max_in_flight_per_tenant as u64;
        range("max_in_flight_per_tenant", per_tenant, 1, 1 << 20)?;
        range("max_body_bytes", self.max_body_bytes as u64, 1_024, wire)?;
        range(
            "max_body_bytes_in_flight",
            self.max_body_bytes_in_flight as u64,
            self.max_body_bytes as u64,
            1 << 40,
        )?;
        range(
            "max_body_share_per_tenant_percent",
            self.max_body_share_per_tenant_percent.into(),
            1,
            100,
        )?;
        range("header_timeout_ms", self.header_timeout_ms, 10, 600_000)?;
        range("body_timeout_ms", self.body_timeout_ms, 10, 600_000)?;
        range("write_timeout_ms", self.write_timeout_ms, 10, 3_600_000)?;
        range(
            "request_timeout_ms",
            self.request_timeout_ms,
            10,
            86_400_000,
        )?;
        range("resume_timeout_ms", self.resume_timeout_ms, 1, 3_600_000)?;
        range("keep_alive_ms", self.keep_alive_ms, 10, 600_000)?;
        range("drain_timeout_ms", self.drain_timeout_ms, 0, 86_400_000)
    }

    /// The most bytes of bodies that one tenant may hold.
    pub(crate) fn max_body_bytes_per_tenant(&self) -> usize {
        let percent = u128::from(self.max_body_share_per_tenant_percent);
        let share = self.max_body_bytes_in_flight as u128 * percent / 100;
        usize::try_from(share)
            .unwrap_or(usize::MAX)
            .max(self.max_body_bytes)
    }

    pub(crate) fn resume_timeout(&self) -> Duration {
        Duration::from_millis(self.resume_timeout_ms)
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_what_is_not_is_named() {
        assert_eq!(GatewayConfig::default().check(), Ok(()));
        let config = GatewayConfig {
            max_body_bytes: 1 << 30,
            ..GatewayConfig::default()
        };
        let error = config.check().expect_err("too large").to_string();
        assert!(error.starts_with("gateway.max_body_bytes is"), "{error}");
        let config = GatewayConfig {
            max_body_bytes_in_flight: 2 * 1024 * 1024 - 1,
            ..GatewayConfig::default()
        };
        let error = config.check().expect_err("too little for one").to_string();
        let named = error.starts_with("gateway.max_body_bytes_in_flight is");
        assert!(named, "{error}");
        for max_body_share_per_tenant_percent in [0, 101] {
            let config = GatewayConfig {
                max_body_share_per_tenant_percent,
                ..GatewayConfig::default()
            };
            let error = config.check().expect_err("no share").to_string();
            let named = error.starts_with("gateway.max_body_share_per_tenant_percent is");
            assert!(named, "{error}");
        }
    }

    #[test]
    fn a_tenants_share_of_bodies_is_exact() {
        let share = |total, percent| {
            let config = GatewayConfig {
                max_body_bytes: 1_024,
                max_body_bytes_in_flight: total,
                max_body_share_per_tenant_percent: percent,
                ..GatewayConfig::default()
            };
            config.max_body_bytes_per_tenant()
        };
        assert_eq!(share(268_435_499, 100), 268_435_499, "all of it");
        assert_eq!(share(9_999, 50), 4_999);
        assert_eq!(share(9_999, 1), 1_024, "one body always fits");
        assert_eq!(share(usize::MAX, 100), usize::MAX, "does not overflow");
    }
}
