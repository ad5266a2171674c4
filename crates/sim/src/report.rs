//! Tables for people.

use crate::outcome::{Distribution, Outcome, Samples};
use serde::Serialize;
use std::fmt::Write as _;

/// What came out of all seeds of a scenario.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// The scenario.
    pub scenario: String,
    /// Nodes of each run.
    pub nodes: usize,
    /// Runs.
    pub seeds: usize,
    /// Runs in which all held that was expected.
    pub held: usize,
    /// Over all runs.
    pub ghosts: u64,
    /// Over all runs.
    pub false_expiries: u64,
    /// Over all runs.
    pub missing: u64,
    /// Living nodes that expired in a view, those behind a partition among them.
    pub expired_alive: u64,
    /// Time to converge, over runs.
    pub converged: Option<Distribution>,
    /// Runs that never converged.
    pub not_converged: usize,
    /// From `kill -9` until suspect.
    pub suspect: Option<Distribution>,
    /// From a revocation until gone.
    pub revocation: Option<Distribution>,
    /// From `kill -9` until gone, over all views and runs.
    pub expiry: Option<Distribution>,
    /// From a goodbye until gone.
    pub goodbye: Option<Distribution>,
    /// From a start until shown.
    pub appear: Option<Distribution>,
    /// From the start of a joining orchestrator until it had the fleet.
    pub newcomer: Option<Distribution>,
    /// From the death of a worker's last orchestrator until it had another.
    pub relink: Option<Distribution>,
    /// Of a worker, mean over runs.
    pub worker_messages_per_s: f64,
    /// Of a worker, mean over runs.
    pub worker_bytes_per_s: f64,
    /// Of an orchestrator, mean over runs.
    pub orchestrator_messages_per_s: f64,
    /// Of an orchestrator, mean over runs.
    pub orchestrator_bytes_per_s: f64,
    /// Seconds of one run in truth, mean.
    pub wall_s: f64,
    /// Seconds of one core for one run, mean.
    pub cpu_s: f64,
}

impl Summary {
    /// Sums up runs.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    pub fn of(scenario: &str, outcomes: &[Outcome]) -> Self {
        let count = outcomes.len().max(1) as f64;
        let mean = |value: fn(&Outcome) -> f64| outcomes.iter().map(value).sum::<f64>() / count;
        let sum = |value: fn(&Outcome) -> u64| outcomes.iter().map(value).sum();
        let times = |value: fn(&Outcome) -> &Samples| {
            let mut all = Samples::default();
            for outcome in outcomes {
                all.extend(value(outcome));
            }
            all.distribution()
        };
        let mut converged = Samples::default();
        for ms in outcomes.iter().filter_map(|it| it.converged_ms) {
            converged.add(ms);
        }
        Self {
            scenario: scenario.to_owned(),
            nodes: outcomes.first().map_or(0, |it| it.nodes),
            seeds: outcomes.len(),
            held: outcomes.iter().filter(|it| it.holds()).count(),
            ghosts: sum(|it| it.ghosts),
            false_expiries: sum(|it| it.false_expiries),
            missing: sum(|it| it.missing),
            expired_alive: sum(|it| it.expired_alive),
            converged: converged.distribution(),
            not_converged: (outcomes.iter())
                .filter(|it| it.converged_ms.is_none())
                .count(),
            suspect: times(|it| &it.suspect),
            revocation: times(|it| &it.revocation),
            expiry: times(|it| &it.expiry),
            goodbye: times(|it| &it.goodbye),
            appear: times(|it| &it.appear),
            newcomer: times(|it| &it.newcomer),
            relink: times(|it| &it.relink),
            worker_messages_per_s: mean(|it| it.worker.messages_per_s),
            worker_bytes_per_s: mean(|it| it.worker.bytes_per_s),
            orchestrator_messages_per_s: mean(|it| it.orchestrator.messages_per_s),
            orchestrator_bytes_per_s: mean(|it| it.orchestrator.bytes_per_s),
            wall_s: mean(|it| it.wall_s),
            cpu_s: mean(|it| it.cpu_s),
        }
    }

    /// As a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut row = |what: &str, value: String| {
            writeln!(out, "{what:<46} {value}").expect("writing to a String cannot fail");
        };
        row(
            &format!("{}, {} nodes", self.scenario, self.nodes),
            format!("{} of {} seeds held", self.held, self.seeds),
        );
        row("ghosts", self.ghosts.to_string());
        row("false expiries", self.false_expiries.to_string());
        row("missing though connected", self.missing.to_string());
        row(
            "living that expired (cut off)",
            self.expired_alive.to_string(),
        );
        row("runs that did not converge", self.not_converged.to_string());
        let times = [
            ("converged after the last disturbance", self.converged),
            ("kill -9 until suspect", self.suspect),
            ("kill -9 until gone", self.expiry),
            ("revoked until gone", self.revocation),
            ("goodbye until gone", self.goodbye),
            ("start until shown", self.appear),
            ("newcomer until it has the fleet", self.newcomer),
            ("all orchestrators dead until relinked", self.relink),
        ];
        for (what, times) in times {
            if let Some(times) = times {
                row(what, words(times));
            }
        }
        row(
            "a worker sends",
            format!(
                "{:.2} messages/s, {:.0} B/s",
                self.worker_messages_per_s, self.worker_bytes_per_s
            ),
        );
        row(
            "an orchestrator sends",
            format!(
                "{:.1} messages/s, {:.0} B/s",
                self.orchestrator_messages_per_s, self.orchestrator_bytes_per_s
            ),
        );
        row(
            "time of a run",
            format!("{:.2} s of a core, {:.2} s in all", self.cpu_s, self.wall_s),
        );
        out
    }
}

/// Summaries of several scenarios, as a table of Markdown: a row for each.
#[must_use]
pub fn markdown(summaries: &[Summary]) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut out = format!(
        "Version {}, seeds from 0 on, times in simulated ms; {cores} cores.\n\n\
         | scenario | nodes | seeds held | ghosts | false expiries | missing | converged, p50 / max | `kill -9` until suspect, p50 / p99 / max | `kill -9` until gone, p50 / max | core s of a run |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
        env!("CARGO_PKG_VERSION"),
    );
    let at = |times: Option<Distribution>, words: fn(Distribution) -> String| {
        times.map_or("–".to_owned(), words)
    };
    for it in summaries {
        writeln!(
            out,
            "| {} | {} | {} of {} | {} | {} | {} | {} | {} | {} | {:.1} |",
            it.scenario,
            it.nodes,
            it.held,
            it.seeds,
            it.ghosts,
            it.false_expiries,
            it.missing,
            at(it.converged, |it| format!("{} / {}", it.p50_ms, it.max_ms)),
            at(it.suspect, |it| {
                format!("{} / {} / {}", it.p50_ms, it.p99_ms, it.max_ms)
            }),
            at(it.expiry, |it| format!("{} / {}", it.p50_ms, it.max_ms)),
            it.cpu_s,
        )
        .expect("writing to a String cannot fail");
    }
    out
}

fn words(times: Distribution) -> String {
    format!(
        "p50 {}, p99 {}, max {} ms ({})",
        times.p50_ms, times.p99_ms, times.max_ms, times.count
    )
}

/// One line about one run.
#[must_use]
pub fn line(outcome: &Outcome) -> String {
    let converged = outcome
        .converged_ms
        .map_or("never".to_owned(), |ms| format!("{ms} ms"));
    format!(
        "seed {:>6}  {}  ghosts {}  false expiries {}  missing {}  converged {converged}  {:.2} s of a core  trace {}",
        outcome.seed,
        if outcome.holds() { "held  " } else { "FAILED" },
        outcome.ghosts,
        outcome.false_expiries,
        outcome.missing,
        outcome.cpu_s,
        outcome.trace,
    )
}
