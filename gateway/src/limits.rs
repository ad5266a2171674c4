//! How many requests at once, in all and per tenant. (GW-4)

use crate::config::GatewayConfig;
use crate::problem::Problem;
use axum::http::StatusCode;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tether_telemetry::metrics::GatewayMetrics;
use tether_wire::TenantId;

/// Counts requests that are being answered.
pub(crate) struct Limits {
    max_total: usize,
    max_per_tenant: usize,
    /// Tenants with requests in flight; never more than `max_total`.
    in_flight: Mutex<InFlight>,
    metrics: Arc<GatewayMetrics>,
}

#[derive(Default)]
struct InFlight {
    total: usize,
    tenants: HashMap<TenantId, usize>,
}

impl Limits {
    pub(crate) fn new(config: &GatewayConfig, metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        Arc::new(Self {
            max_total: config.max_in_flight,
            max_per_tenant: config.max_in_flight_per_tenant,
            in_flight: Mutex::default(),
            metrics,
        })
    }

    /// A place for one request of this tenant; dropping it gives it back.
    pub(crate) fn admit(self: &Arc<Self>, tenant: &TenantId) -> Result<Permit, Problem> {
        let mut in_flight = self
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let of_tenant = in_flight.tenants.get(tenant).copied().unwrap_or(0);
        if of_tenant >= self.max_per_tenant {
            self.metrics.limited("tenant-concurrency");
            return Err(Problem::later(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                format!(
                    "Too many requests at once: this tenant may have {} in flight.",
                    self.max_per_tenant
                ),
                None,
            ));
        }
        if in_flight.total >= self.max_total {
            self.metrics.limited("total-concurrency");
            return Err(Problem::later(
                StatusCode::SERVICE_UNAVAILABLE,
                "overloaded",
                "This gateway answers as many requests as it can.",
                None,
            ));
        }
        in_flight.total += 1;
        in_flight.tenants.insert(tenant.clone(), of_tenant + 1);
        self.metrics.in_flight().inc();
        Ok(Permit {
            limits: self.clone(),
            tenant: tenant.clone(),
        })
    }
}

/// A place for one request.
pub(crate) struct Permit {
    limits: Arc<Limits>,
    tenant: TenantId,
}

impl std::fmt::Debug for Permit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Permit({})", self.tenant)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut in_flight = self
            .limits
            .in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        in_flight.total = in_flight.total.saturating_sub(1);
        if let Some(count) = in_flight.tenants.get_mut(&self.tenant) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                in_flight.tenants.remove(&self.tenant);
            }
        }
        self.limits.metrics.in_flight().dec();
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
        let refused = limits.admit(&a).expect_err("at its limit");
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.retry_after_ms.is_some());
        let _third = limits.admit(&b).expect("room for others");
        let full = limits.admit(&b).expect_err("full");
        assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
        drop(first);
        assert!(limits.admit(&a).is_ok());
        assert_eq!(
            limits.in_flight.lock().expect("not poisoned").tenants.len(),
            2
        );
    }
}
