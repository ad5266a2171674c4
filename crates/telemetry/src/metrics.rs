//! The metrics of each role: every name, help and unit is here and nowhere else. (OBS-2)
//!
//! Names follow Prometheus and OpenMetrics: base units, the unit as a suffix, `_total` on counters;
//! where OpenTelemetry's conventions for generative AI have a name, it is used. Labels come from
//! the code (`&'static str`) or pass a [`labels::BoundedLabels`], so that no peer and no tenant can
//! grow memory by naming things.

pub mod gateway;
pub mod labels;
pub mod net;
pub mod orchestrator;
pub mod registry;
pub mod worker;

pub use gateway::GatewayMetrics;
pub use net::{DhtOperation, Direction, NetMetrics};
pub use orchestrator::OrchestratorMetrics;
pub use registry::Registry;
pub use worker::{WorkerMetrics, WorkerTotals};

/// Content type of what [`Registry::encode`] gives.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
