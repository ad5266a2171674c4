//! What happens in a run, and when.

use super::{Scenario, ScenarioError, range, whole};
use serde::Deserialize;

/// Something that happens. Times are seconds from the start of the run; shares are of those that
/// live at that time.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Disturbance {
    /// Workers stop and start again under the same key, at random, all the time.
    Churn {
        /// From when.
        from_s: f64,
        /// Until when; who is down then still comes back.
        until_s: f64,
        /// Share of the workers that stops in a minute.
        per_minute: f64,
        /// Share of the stops that is `kill -9`; the others say goodbye.
        #[serde(default = "half")]
        crashes: f64,
        /// How long one is down.
        #[serde(default = "down")]
        down_s: [f64; 2],
    },
    /// Nodes are cut off from all others.
    Partition {
        /// From when.
        from_s: f64,
        /// Until when.
        until_s: f64,
        /// Share of the workers, and of the orchestrators, on the smaller side.
        share: f64,
    },
    /// A share of the workers stops for good.
    Leave {
        /// When.
        at_s: f64,
        /// Share of the workers.
        share: f64,
        /// Share of the stops that is `kill -9`.
        #[serde(default = "half")]
        crashes: f64,
    },
    /// All honest orchestrators are restarted, one after the other.
    RestartOrchestrators {
        /// When the first one stops.
        from_s: f64,
        /// Time between two stops.
        every_s: f64,
        /// How long each is down.
        down_s: f64,
        /// Whether they stop with a goodbye rather than by `kill -9`.
        #[serde(default)]
        graceful: bool,
    },
    /// Honest orchestrators are killed for good, all at once.
    KillOrchestrators {
        /// When.
        at_s: f64,
        /// How many.
        count: usize,
    },
    /// Honest orchestrators are new: they start only now.
    Join {
        /// When.
        at_s: f64,
        /// How many of the scenario's orchestrators.
        count: usize,
    },
    /// A second host runs under the key of a worker.
    Clone {
        /// When.
        at_s: f64,
        /// How many workers have one.
        count: usize,
        /// How long it runs, until it is killed; the first one is restarted then.
        for_s: f64,
    },
    /// Single paths fail for a short time, at random.
    FlakyLinks {
        /// From when.
        from_s: f64,
        /// Until when.
        until_s: f64,
        /// How often in a minute each link of a worker is cut, on average.
        cuts_per_minute: f64,
        /// How long it is cut.
        down_s: [f64; 2],
    },
    /// Processes of workers get no CPU for their beats, while the transport's thread still runs.
    Starve {
        /// When.
        at_s: f64,
        /// Share of the workers.
        share: f64,
        /// For how long.
        for_s: f64,
    },
    /// The operator revokes the keys of some workers, at one honest orchestrator. The workers run
    /// on and push beats as if nothing had happened.
    Revoke {
        /// When.
        at_s: f64,
        /// How many workers.
        count: usize,
    },
    /// Messages vanish and come twice, beyond what the transport ever does.
    Storm {
        /// From when.
        from_s: f64,
        /// Until when.
        until_s: f64,
        /// Probability with which a whole message vanishes without a trace.
        batch_loss: f64,
        /// Probability with which one comes twice, the second one later.
        #[serde(default)]
        duplicate: f64,
    },
    /// The attacker's orchestrators send again what they recorded.
    Replay {
        /// From when.
        from_s: f64,
        /// Until when.
        until_s: f64,
        /// Old beats that each of them sends to each of its peers, in a second.
        per_s: f64,
        /// What they say about the senders' clocks: anything between these two.
        #[serde(default)]
        lie_ms: [f64; 2],
        /// Suspicions of healthy nodes that each sends to each peer, in a second.
        #[serde(default)]
        slander_per_s: f64,
    },
}

fn half() -> f64 {
    0.5
}

fn down() -> [f64; 2] {
    [1.0, 60.0]
}

/// Cuts, replays and churn that happen more often than this have no meaning.
const MAX_RATE: f64 = 1_000_000.0;

impl Disturbance {
    pub(super) fn check(&self, scenario: &Scenario) -> Result<(), ScenarioError> {
        let end = scenario.duration_s;
        let honest = scenario.orchestrators - scenario.attackers;
        let during = |name: &str, from: f64, until: f64| {
            range(&format!("{name}.from_s"), from, 0.0, end)?;
            range(&format!("{name}.until_s"), until, from, end)
        };
        let span = |field: &str, [low, high]: [f64; 2]| {
            range(field, low, 0.0, end)?;
            range(field, high, low, end)
        };
        match *self {
            Self::Churn {
                from_s,
                until_s,
                per_minute,
                crashes,
                down_s,
            } => {
                during("churn", from_s, until_s)?;
                range("churn.per_minute", per_minute, 0.0, 60.0)?;
                range("churn.crashes", crashes, 0.0, 1.0)?;
                span("churn.down_s", down_s)
            }
            Self::Partition {
                from_s,
                until_s,
                share,
            } => {
                during("partition", from_s, until_s)?;
                range("partition.share", share, 0.0, 1.0)
            }
            Self::Leave {
                at_s,
                share,
                crashes,
            } => {
                range("leave.at_s", at_s, 0.0, end)?;
                range("leave.share", share, 0.0, 1.0)?;
                range("leave.crashes", crashes, 0.0, 1.0)
            }
            Self::RestartOrchestrators {
                from_s,
                every_s,
                down_s,
                ..
            } => {
                range("restart-orchestrators.from_s", from_s, 0.0, end)?;
                range("restart-orchestrators.every_s", every_s, 0.0, end)?;
                range("restart-orchestrators.down_s", down_s, 0.0, end)
            }
            Self::KillOrchestrators { at_s, count } => {
                range("kill-orchestrators.at_s", at_s, 0.0, end)?;
                whole("kill-orchestrators.count", count, 1, honest)
            }
            Self::Join { at_s, count } => {
                range("join.at_s", at_s, 0.0, end)?;
                whole("join.count", count, 1, honest)
            }
            Self::Clone { at_s, count, for_s } => {
                range("clone.at_s", at_s, 0.0, end)?;
                range("clone.for_s", for_s, 0.0, end)?;
                whole("clone.count", count, 1, scenario.nodes)
            }
            Self::FlakyLinks {
                from_s,
                until_s,
                cuts_per_minute,
                down_s,
            } => {
                during("flaky-links", from_s, until_s)?;
                range("flaky-links.cuts_per_minute", cuts_per_minute, 0.0, 600.0)?;
                span("flaky-links.down_s", down_s)
            }
            Self::Starve { at_s, share, for_s } => {
                range("starve.at_s", at_s, 0.0, end)?;
                range("starve.share", share, 0.0, 1.0)?;
                range("starve.for_s", for_s, 0.0, end)
            }
            Self::Revoke { at_s, count } => {
                range("revoke.at_s", at_s, 0.0, end)?;
                whole("revoke.count", count, 1, scenario.nodes)
            }
            Self::Storm {
                from_s,
                until_s,
                batch_loss,
                duplicate,
            } => {
                during("storm", from_s, until_s)?;
                range("storm.batch_loss", batch_loss, 0.0, 1.0)?;
                range("storm.duplicate", duplicate, 0.0, 1.0)
            }
            Self::Replay {
                from_s,
                until_s,
                per_s,
                lie_ms,
                slander_per_s,
            } => {
                during("replay", from_s, until_s)?;
                whole("attackers", scenario.attackers, 1, scenario.orchestrators)?;
                range("replay.per_s", per_s, 0.0, MAX_RATE)?;
                range("replay.slander_per_s", slander_per_s, 0.0, MAX_RATE)?;
                let most = 5_000.0;
                range("replay.lie_ms[0]", lie_ms[0], -most, most)?;
                range("replay.lie_ms[1]", lie_ms[1], lie_ms[0], most)
            }
        }
    }
}
