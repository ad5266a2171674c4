//! What must hold in a run.

use super::{ScenarioError, range};
use serde::Deserialize;

/// What must hold in every run of a scenario, whatever its seed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Most times that an orchestrator showed a node as live longer after its true death than
    /// expiry, the greatest skew and `ghost_margin_ms` together.
    #[serde(default)]
    pub ghosts: u64,
    /// What a beat may be late by on its way; part of the bound of `ghosts`.
    #[serde(default = "two_seconds")]
    pub ghost_margin_ms: f64,
    /// Most times that an orchestrator let a node expire that lived and was connected with it, by
    /// sound links, for longer than the expiry.
    #[serde(default)]
    pub false_expiries: u64,
    /// Most times that an orchestrator, asked every five seconds, did not know a node that lived
    /// and was connected with it, by sound links, for two intervals of beats.
    #[serde(default)]
    pub missing: u64,
    /// Time after the last disturbance within which the view of each orchestrator is the truth, and
    /// stays so.
    pub converge_within_ms: f64,
    /// Time within which a node that died by `kill -9` is suspect in every view that shows it.
    #[serde(default)]
    pub suspect_within_ms: Option<f64>,
    /// Time from its start within which an orchestrator that joins has the whole fleet.
    #[serde(default)]
    pub newcomer_within_ms: Option<f64>,
    /// Time within which a worker whose orchestrators all died has linked with another.
    #[serde(default)]
    pub relink_within_ms: Option<f64>,
    /// Time within which a goodbye is known everywhere that can be reached.
    #[serde(default)]
    pub goodbye_within_ms: Option<f64>,
    /// Time within which a revocation is known in every view, those behind a partition included.
    #[serde(default)]
    pub revoked_within_ms: Option<f64>,
    /// Whether each clone must have been reported by an honest orchestrator: those that are linked
    /// with both see it, and pass only the higher epoch on.
    #[serde(default)]
    pub clones_reported: bool,
    /// Most bytes in a second that a worker sends, on average.
    #[serde(default)]
    pub worker_bytes_per_s: Option<f64>,
}

fn two_seconds() -> f64 {
    2_000.0
}

impl Expect {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let hour = 3_600_000.0;
        range("expect.ghost_margin_ms", self.ghost_margin_ms, 0.0, hour)?;
        range(
            "expect.converge_within_ms",
            self.converge_within_ms,
            0.0,
            hour,
        )?;
        for (field, value) in [
            ("expect.suspect_within_ms", self.suspect_within_ms),
            ("expect.newcomer_within_ms", self.newcomer_within_ms),
            ("expect.relink_within_ms", self.relink_within_ms),
            ("expect.revoked_within_ms", self.revoked_within_ms),
            ("expect.goodbye_within_ms", self.goodbye_within_ms),
            ("expect.worker_bytes_per_s", self.worker_bytes_per_s),
        ] {
            range(field, value.unwrap_or(0.0), 0.0, 1e9)?;
        }
        Ok(())
    }
}
