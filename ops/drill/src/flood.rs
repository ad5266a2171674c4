//! A flood of forged heartbeats, by a stranger and by a member. (PRE-3, SEC-1) [T-PUS-5], [T-LIV-9]
//!
//! # Layout
//!
//! * `attack` – what is sent, as fast as this process can
//! * `phase` – what is measured meanwhile

mod attack;
mod phase;

use crate::SiteArgs;
use crate::cost::mib;
use crate::load::{self, Asked, Caller, Counts, Load, Question};
use crate::mesh::{EngineSettings, Mesh, Shape, WorkerSettings};
use crate::report::{Report, progress};
use attack::Attack;
use clap::Args;
use phase::Phase;
use serde_json::json;
use std::time::Duration;

/// By how much the orchestrator may grow under a flood: its bounds of queues together.
const GROWS_AT_MOST_MIB: f64 = 128.0;
/// Share of what was sent that must be found in the metrics. Something may be under way at the end.
const COUNTED_AT_LEAST: f64 = 0.95;

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct FloodArgs {
    /// Seconds of each flood
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Honest workers
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Honest requests in a second
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
}

impl FloodArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shape = Shape {
            orchestrators: 1,
            shared_store: false,
            workers: self.workers,
            models: 1,
            worker: WorkerSettings {
                slots: 4,
                engine: EngineSettings::Echo { token_ms: 2 },
            },
        };
        let mesh = Mesh::start(site, &shape).await?;
        let caller = Caller::new(&mesh.gateway_url()?, mesh.api_key())?;
        let load = Load::start(caller, self.rate, vec![Question::echo(10)]);
        let mut phases = Vec::new();
        for attack in Attack::ALL {
            let phase = Phase::run(&mesh, attack, Duration::from_secs(self.seconds)).await?;
            progress(format!(
                "{}: {:.0} in a second",
                attack.name(),
                phase.rate()
            ));
            phases.push(phase);
        }
        let asked = load.stop().await;
        Ok(self.report(&phases, &asked))
    }

    fn report(&self, phases: &[Phase], asked: &[Asked]) -> Report {
        let mut report = Report::new(
            "flood",
            format!(
                "an orchestrator, a gateway, {} workers with the echo engine, {} honest requests in a second; each flood by one process on the same machine for {} s",
                self.workers, self.rate, self.seconds
            ),
        );
        let mut rows = Vec::new();
        for phase in phases {
            let during = asked.iter().filter(|it| phase.covers(it));
            let (times, counts) = (load::times(during.clone()), Counts::of(during));
            let ms = |it: Option<f64>| it.map_or("–".to_owned(), |it| format!("{it:.1}"));
            rows.push(vec![
                phase.attack.name().to_owned(),
                format!("{:.0}", phase.rate()),
                format!("{} of {}", counts.whole, counts.all()),
                format!(
                    "{} / {}",
                    ms(times.percentile(50.0)),
                    ms(times.percentile(99.0))
                ),
                format!("{} of {}", phase.routable, phase.looks),
                format!(
                    "{:.0} / {:.0} / {:.0}",
                    mib(phase.memory.before),
                    mib(phase.memory.most),
                    mib(phase.memory.after)
                ),
                format!("{:.2}", phase.share.process),
                format!("{:.2} ({})", phase.share.busiest.1, phase.share.busiest.0),
            ]);
            report.sample(
                phase.attack.name(),
                json!({
                    "sent": phase.sent, "seconds": phase.took.as_secs_f64(), "per_s": phase.rate(),
                    "honest_ms": times.to_json(),
                    "rejected": phase.rejected, "refused": phase.refused, "calls": phase.calls,
                    "memory_bytes": [phase.memory.before, phase.memory.most, phase.memory.after],
                    "cpu": phase.share.process, "busiest_thread": phase.share.busiest.1,
                }),
            );
        }
        report.table(
            &[
                "flood",
                "sent in a second",
                "honest requests whole",
                "p50 / p99, ms",
                "looks at which all honest workers were routable",
                "orchestrator MiB before / most / after",
                "its cores",
                "its busiest thread",
            ],
            &rows,
        );
        let counted: Vec<Vec<String>> = (phases.iter())
            .filter(|phase| phase.sent > 0)
            .map(|phase| {
                let list = |counts: &std::collections::BTreeMap<String, f64>| {
                    let counts: Vec<String> = (counts.iter())
                        .map(|(reason, n)| format!("{reason} {n:.0}"))
                        .collect();
                    counts.join(", ")
                };
                vec![
                    phase.attack.name().to_owned(),
                    phase.sent.to_string(),
                    list(&phase.rejected),
                    list(&phase.refused),
                    list(&phase.calls),
                ]
            })
            .collect();
        report.table(
            &[
                "flood",
                "sent",
                "heartbeats rejected, by reason",
                "links refused, by reason",
                "calls refused, by method",
            ],
            &counted,
        );
        let counts = Counts::of(asked);
        report.sample("complaints", json!(load::complaints(asked)));
        for phase in phases.iter().filter(|phase| phase.attack != Attack::None) {
            let name = phase.attack.name();
            report.promise(
                &format!("{name}: honest workers stay routable"),
                phase.routable == phase.looks && phase.looks > 0,
                format!("at {} of {} looks", phase.routable, phase.looks),
            );
            let grown = mib(phase.memory.most.saturating_sub(phase.memory.before));
            report.promise(
                &format!("{name}: the orchestrator grows by {GROWS_AT_MOST_MIB} MiB at most"),
                grown <= GROWS_AT_MOST_MIB,
                format!("{grown:.0} MiB"),
            );
            report.promise(
                &format!("{name}: what was sent is counted by reason"),
                phase.counted_share() >= COUNTED_AT_LEAST,
                format!("{:.1} %", 100.0 * phase.counted_share()),
            );
        }
        let failed = counts.all() - counts.whole;
        report.promise(
            "every honest request is answered",
            failed == 0,
            format!("{failed} of {} failed", counts.all()),
        );
        report
    }
}
