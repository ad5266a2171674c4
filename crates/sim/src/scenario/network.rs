//! Delay, loss, clocks, discovery.

use super::{ScenarioError, range};
use serde::Deserialize;

/// How the network behaves. Messages travel on streams of QUIC, which loses nothing while a link
/// lives: a lost packet is sent again, so loss shows as delay.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// One-way delay of a pair of nodes, anywhere between these two.
    pub delay_ms: [f64; 2],
    /// How much longer a message may take than its pair's delay, as a part of it; messages on
    /// different links overtake one another by it.
    pub jitter: f64,
    /// Probability with which a packet is lost.
    pub loss: f64,
    /// Whether messages of one link keep their order, as those of a stream do.
    pub ordered: bool,
    /// Silence after which a link is quiet: `quiet_after` of the links.
    pub quiet_ms: f64,
    /// Silence after which it is down: `idle_timeout` of the links.
    pub idle_ms: f64,
    /// Time between two keep-alives: a path that breaks was last heard on at most this long before.
    pub keep_alive_ms: f64,
    /// Time after which a dial is given up: `dial_timeout` of the links.
    pub dial_ms: f64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            delay_ms: [2.0, 60.0],
            jitter: 0.3,
            loss: 0.0,
            ordered: true,
            quiet_ms: 2_000.0,
            idle_ms: 15_000.0,
            keep_alive_ms: 500.0,
            dial_ms: 10_000.0,
        }
    }
}

impl Network {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let [low, high] = self.delay_ms;
        range("network.delay_ms[0]", low, 0.0, 10_000.0)?;
        range("network.delay_ms[1]", high, low, 10_000.0)?;
        range("network.jitter", self.jitter, 0.0, 10.0)?;
        range("network.loss", self.loss, 0.0, 0.9)?;
        range("network.quiet_ms", self.quiet_ms, 100.0, 120_000.0)?;
        range("network.idle_ms", self.idle_ms, self.quiet_ms, 120_000.0)?;
        range(
            "network.keep_alive_ms",
            self.keep_alive_ms,
            10.0,
            self.quiet_ms,
        )?;
        range("network.dial_ms", self.dial_ms, 100.0, 120_000.0)
    }
}

/// How wrong the clocks are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clocks {
    /// A worker's clock is off by at most this, either way.
    pub worker_skew_ms: f64,
    /// An orchestrator's clock is off by at most this, either way.
    pub orchestrator_skew_ms: f64,
    /// Every clock runs too fast or slow by at most this many millionths.
    pub drift_ppm: f64,
}

impl Clocks {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let minute = 60_000.0;
        range("clocks.worker_skew_ms", self.worker_skew_ms, 0.0, minute)?;
        range(
            "clocks.orchestrator_skew_ms",
            self.orchestrator_skew_ms,
            0.0,
            minute,
        )?;
        range("clocks.drift_ppm", self.drift_ppm, 0.0, 10_000.0)
    }
}

/// The DHT, as far as it matters here: an oracle that answers late, incompletely and out of date.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// A look-up takes between these two.
    pub delay_ms: [f64; 2],
    /// Seconds after its start from which a node is found.
    pub announce_s: f64,
    /// Seconds for which a node that was killed is still found.
    pub stale_s: f64,
    /// Probability with which a look-up misses one that is there.
    pub miss: f64,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            delay_ms: [5.0, 400.0],
            announce_s: 1.0,
            stale_s: 600.0,
            miss: 0.05,
        }
    }
}

impl Discovery {
    pub(super) fn check(&self) -> Result<(), ScenarioError> {
        let [low, high] = self.delay_ms;
        range("discovery.delay_ms[0]", low, 0.0, 60_000.0)?;
        range("discovery.delay_ms[1]", high, low, 60_000.0)?;
        range("discovery.announce_s", self.announce_s, 0.0, 3_600.0)?;
        range("discovery.stale_s", self.stale_s, 0.0, 36_000.0)?;
        range("discovery.miss", self.miss, 0.0, 0.99)
    }
}
