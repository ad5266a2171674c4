//! How many answers at once, in all and per tenant. (GW-4)

use crate::config::GatewayConfig;
use crate::problem::{Problem, RATE_LIMIT_EXCEEDED};
use crate::shares::{Full, Share, Shares};
use axum::http::StatusCode;
use std::sync::Arc;
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::TenantId;

/// Counts requests that are being answered.
pub(crate) struct Limits {
    /// One for each answer.
    places: Arc<Shares>,
    metrics: Arc<GatewayMetrics>,
}

impl Limits {
    pub(crate) fn new(config: &GatewayConfig, metrics: Arc<GatewayMetrics>) -> Self {
        Self {
            places: Shares::new(config.max_in_flight, config.max_in_flight_per_tenant),
            metrics,
        }
    }

    /// A place for one request of this tenant; dropping it gives it back.
    pub(crate) fn admit(&self, tenant: &TenantId) -> Result<Permit, Problem> {
        let mut place = self.places.share(tenant);
        place.take(1).map_err(|full| self.refused(full))?;
        self.metrics.in_flight().inc();
        Ok(Permit {
            metrics: self.metrics.clone(),
            place,
        })
    }

    /// Places for more answers to the same request: each is a request of its own to the mesh.
    pub(crate) fn admit_more(&self, permit: &mut Permit, more: u32) -> Result<(), Problem> {
        let more = usize::try_from(more).unwrap_or(usize::MAX);
        permit.place.take(more).map_err(|full| self.refused(full))
    }

    /// The workers hold this tenant to limits of their own, which it has reached.
    pub(crate) fn refused_by_workers(&self) {
        self.metrics.limited("worker-quota");
    }

    /// Answers that are being given.
    pub(crate) fn in_flight(&self) -> usize {
        self.places.total()
    }

    fn refused(&self, full: Full) -> Problem {
        match full {
            Full::Tenant => {
                self.metrics.limited("tenant-concurrency");
                Problem::later(
                    StatusCode::TOO_MANY_REQUESTS,
                    RATE_LIMIT_EXCEEDED,
                    format!(
                        "Too many requests at once: this tenant may have {} in flight.",
                        self.places.max_per_tenant()
                    ),
                    None,
                )
            }
            Full::Total => {
                self.metrics.limited("total-concurrency");
                Problem::later(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "overloaded",
                    "This gateway answers as many requests as it can.",
                    None,
                )
            }
        }
    }
}

/// A place for one request.
pub(crate) struct Permit {
    metrics: Arc<GatewayMetrics>,
    place: Share,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.metrics.in_flight().dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_telemetry::metrics::Registry;

    #[test]
    fn a_tenant_at_its_limit_leaves_room_for_others() {
        let config = GatewayConfig {
            max_in_flight: 3,
            max_in_flight_per_tenant: 2,
            ..GatewayConfig::default()
        };
        let limits = Limits::new(&config, GatewayMetrics::register(&Registry::new()));
        let (a, b): (TenantId, TenantId) =
            ("a".parse().expect("valid"), "b".parse().expect("valid"));
        let first = limits.admit(&a).expect("room");
        let _second = limits.admit(&a).expect("room");
        let refused = limits.admit(&a).err().expect("at its limit");
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.retry_after_ms.is_some());
        let _third = limits.admit(&b).expect("room for others");
        let full = limits.admit(&b).err().expect("full");
        assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert_eq!(limits.in_flight(), 2);
        assert!(limits.admit(&a).is_ok());
    }

    #[test]
    fn each_answer_of_a_request_counts() {
        let config = GatewayConfig {
            max_in_flight: 5,
            max_in_flight_per_tenant: 4,
            ..GatewayConfig::default()
        };
        let limits = Limits::new(&config, GatewayMetrics::register(&Registry::new()));
        let a = "a".parse().expect("valid");
        let mut permit = limits.admit(&a).expect("room");
        let refused = limits.admit_more(&mut permit, 4).expect_err("one too many");
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(limits.admit_more(&mut permit, u32::MAX).is_err());
        limits.admit_more(&mut permit, 3).expect("room for four");
        assert_eq!(limits.in_flight(), 4);
        assert!(limits.admit(&a).is_err());
        drop(permit);
        assert_eq!(limits.in_flight(), 0);
    }
}
