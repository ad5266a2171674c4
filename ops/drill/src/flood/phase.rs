//! One flood, and what the orchestrator and its honest users had of it.

use super::attack::Attack;
use crate::cost::{self, MemoryWatch, Share};
use crate::load::Asked;
use crate::mesh::{Mesh, Metrics};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Pause between two looks at the fleet.
const LOOK: Duration = Duration::from_millis(250);
/// Rest after a flood, for what is freed late.
const REST: Duration = Duration::from_secs(5);
const REJECTED: &str = "tether_orchestrator_heartbeats_rejected_total";
const REFUSED: &str = "tether_net_refusals_total";
const CALLS: &str = "tether_net_calls_total";

/// Resident bytes of the orchestrator.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    pub(super) before: u64,
    pub(super) most: u64,
    pub(super) after: u64,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) attack: Attack,
    begin: Instant,
    pub(super) took: Duration,
    pub(super) sent: u64,
    pub(super) looks: usize,
    /// Looks at which all honest workers were routable.
    pub(super) routable: usize,
    pub(super) memory: Memory,
    pub(super) share: Share,
    /// Heartbeats dropped, links refused, calls refused: by reason, or method.
    pub(super) rejected: BTreeMap<String, f64>,
    pub(super) refused: BTreeMap<String, f64>,
    pub(super) calls: BTreeMap<String, f64>,
}

impl Phase {
    pub(super) async fn run(mesh: &Mesh, attack: Attack, lasts: Duration) -> anyhow::Result<Self> {
        let honest: BTreeSet<String> = mesh.workers.iter().map(|it| it.seat.id.to_hex()).collect();
        let admin = &mesh.views()?.admins[0];
        let pid = mesh.orchestrators[0].process()?.pid();
        let metrics_before = admin.metrics().await?;
        let memory = MemoryWatch::start(pid);
        let before = cost::resident_bytes(pid)?;
        let running = attack.start(mesh).await?;
        let (begin, spent) = (Instant::now(), cost::spent(pid)?);
        let sent_before = running.sent.load(Ordering::Relaxed);
        let (mut looks, mut routable) = (0, 0);
        while begin.elapsed() < lasts {
            tokio::time::sleep(LOOK).await;
            let fleet = admin.fleet().await?;
            let all = (honest.iter()).all(|id| fleet.get(id).is_some_and(|row| row.is_routable()));
            (looks, routable) = (looks + 1, routable + usize::from(all));
        }
        let (took, share) = (begin.elapsed(), cost::spent(pid)?.since(&spent));
        let sent = running.stop().await.saturating_sub(sent_before);
        tokio::time::sleep(REST).await;
        let metrics = admin.metrics().await?;
        Ok(Self {
            attack,
            begin,
            took,
            sent,
            looks,
            routable,
            memory: Memory {
                before,
                most: memory.most(),
                after: cost::resident_bytes(pid)?,
            },
            share,
            rejected: metrics.added(REJECTED, &metrics_before),
            refused: metrics.added(REFUSED, &metrics_before),
            calls: forbidden(&metrics, &metrics_before),
        })
    }

    /// Whether a request was asked while it went on.
    pub(super) fn covers(&self, asked: &Asked) -> bool {
        asked.at >= self.begin && asked.at < self.begin + self.took
    }

    /// Messages, or dials, in a second.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 messages")]
    pub(super) fn rate(&self) -> f64 {
        self.sent as f64 / self.took.as_secs_f64()
    }

    /// The share of what was sent that the metrics tell of.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 messages")]
    pub(super) fn counted_share(&self) -> f64 {
        let counted = match self.attack {
            Attack::None => return 1.0,
            Attack::Stranger => &self.refused,
            Attack::Pushes => &self.rejected,
            Attack::Spread => &self.calls,
        };
        counted.values().sum::<f64>() / (self.sent.max(1) as f64)
    }
}

/// Calls that peers were refused, by method.
fn forbidden(now: &Metrics, before: &Metrics) -> BTreeMap<String, f64> {
    let count = |metrics: &Metrics| -> BTreeMap<String, f64> {
        (metrics.series(CALLS))
            .filter(|(labels, _)| {
                labels.contains("outcome=\"forbidden\"")
                    && labels.contains("direction=\"incoming\"")
            })
            .filter_map(|(labels, value)| {
                let method = labels.split_once("method=\"")?.1.split('"').next()?;
                Some((method.to_owned(), value))
            })
            .collect()
    };
    let before = count(before);
    let now = count(now).into_iter();
    now.map(|(method, value)| (method.clone(), value - before.get(&method).unwrap_or(&0.0)))
        .filter(|(_, added)| *added > 0.0)
        .collect()
}
