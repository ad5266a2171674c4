//! What was seen of a crowd, as a report.

use super::CrowdArgs;
use crate::figures::Distribution;
use crate::load::{self, Asked, Counts};
use crate::report::Report;
use crate::views;
use serde_json::json;
use std::time::Duration;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) kills: usize,
    pub(super) restarts: usize,
    pub(super) orchestrator_restarts: usize,
    pub(super) looks: usize,
    pub(super) ghosts: usize,
    pub(super) worker_mib: Vec<f64>,
    pub(super) engine_mib: Vec<f64>,
    pub(super) orchestrator_mib: Vec<f64>,
    pub(super) worker_cores: Vec<f64>,
    pub(super) orchestrator_cores: Vec<f64>,
    pub(super) converged: Option<Duration>,
    pub(super) ends: Vec<views::Fleet>,
}

impl Found {
    pub(super) fn report(&self, args: &CrowdArgs, asked: &[Asked]) -> Report {
        let mut report = Report::new(
            "crowd",
            format!(
                "3 orchestrators, a gateway, {} workers with an engine's process each; {} minutes of kills and restarts, {} requests in a second",
                args.workers, args.minutes, args.rate
            ),
        );
        let counts = Counts::of(asked);
        let dead = usize::from(args.workers) - self.worker_mib.len();
        let row = |what: &str, found: String| vec![what.to_owned(), found];
        report.table(
            &["", "count"],
            &[
                row("workers killed by `kill -9`", self.kills.to_string()),
                row("workers restarted", self.restarts.to_string()),
                row(
                    "orchestrators restarted",
                    self.orchestrator_restarts.to_string(),
                ),
                row("workers left dead at the end", dead.to_string()),
                row("looks at all three views", self.looks.to_string()),
                row("ghosts seen", self.ghosts.to_string()),
                row(
                    "seconds from the last restart until the views were equal",
                    self.converged
                        .map_or("never".to_owned(), |it| format!("{:.1}", it.as_secs_f64())),
                ),
                row("requests asked", counts.all().to_string()),
                row("requests answered whole", counts.whole.to_string()),
                row(
                    "requests failed before anything of an answer was given",
                    counts.refused.to_string(),
                ),
                row(
                    "requests cut off in the middle of their answer, and told so",
                    counts.cut.to_string(),
                ),
                row(
                    "requests presented as whole and not",
                    counts.wrong.to_string(),
                ),
            ],
        );
        let of = |samples: &[f64]| samples.iter().copied().collect::<Distribution>();
        let thousandths = |samples: &[f64]| samples.iter().map(|it| it * 1e3).collect();
        report.distributions(
            "resident MiB",
            1,
            &[
                ("worker", of(&self.worker_mib)),
                ("its engine", of(&self.engine_mib)),
                ("orchestrator", of(&self.orchestrator_mib)),
            ],
        );
        report.distributions(
            "thousandths of a core, over 10 s without requests",
            1,
            &[
                ("worker", thousandths(&self.worker_cores)),
                ("orchestrator", thousandths(&self.orchestrator_cores)),
            ],
        );
        report.sample("complaints", json!(load::complaints(asked)));
        report.sample("differences", json!(views::differences(&self.ends)));
        let states: Vec<String> = self.ends.iter().map(views::states).collect();
        report.promise(
            "the views of all orchestrators are equal at the end: the same workers in the same runs",
            views::are_equal(&self.ends) && self.converged.is_some(),
            states.join("; "),
        );
        report.promise(
            "no view shows a worker that is dead for longer than 22 s",
            self.ghosts == 0,
            self.ghosts,
        );
        report.promise(
            "no answer was presented as whole that was not",
            counts.wrong == 0,
            counts.wrong,
        );
        report.promise(
            "no request failed before its answer began",
            counts.refused == 0,
            counts.refused,
        );
        report
    }
}
