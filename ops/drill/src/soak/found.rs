//! What came of the requests and of the processes, as a report.

use super::SoakArgs;
use super::ask::End;
use super::mix::Kind;
use crate::figures::Distribution;
use crate::memory::{Course, Memory};
use crate::report::Report;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most complaints that are told.
const MOST_COMPLAINTS: usize = 40;
/// Looks at the memory of one process that go into the line of JSON.
const MOST_LOOKS: usize = 100;
/// Of a hundred right requests so many may fail, each with its reason: a mesh that only says why
/// it does not answer is none.
const MOST_FAILED_PERCENT: usize = 1;

/// How requests of one kind ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    whole: usize,
    refused: usize,
    hung_up: usize,
    failed: usize,
    silent: usize,
    wrong: usize,
}

impl Ends {
    fn add(&mut self, end: &End) {
        *match end {
            End::Whole => &mut self.whole,
            End::Refused => &mut self.refused,
            End::HungUp => &mut self.hung_up,
            End::Failed(_) => &mut self.failed,
            End::Silent(_) => &mut self.silent,
            End::Wrong(_) => &mut self.wrong,
        } += 1;
    }

    fn cells(&self) -> [usize; 7] {
        let all = [
            self.whole,
            self.refused,
            self.hung_up,
            self.failed,
            self.silent,
            self.wrong,
        ];
        let [a, b, c, d, e, f] = all;
        [all.iter().sum(), a, b, c, d, e, f]
    }
}

/// One of the processes.
#[derive(Debug)]
pub(super) struct Grown {
    pub(super) name: String,
    pub(super) memory: Memory,
    /// Whether it is promised that its memory is flat.
    pub(super) promised: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    ends: BTreeMap<Kind, Ends>,
    times_ms: Vec<f64>,
    complaints: Vec<String>,
    pub(super) took: Duration,
    /// Different requests whose answers were held against each other.
    pub(super) different: usize,
    pub(super) processes: Vec<Grown>,
    /// Why worker or engine is not the same as at the beginning, if it is not.
    pub(super) restarts: Vec<String>,
}

impl Found {
    /// A request has ended.
    pub(super) fn add(&mut self, kind: Kind, end: &End, took: Duration) {
        self.ends.entry(kind).or_default().add(end);
        match end {
            End::Whole => self.times_ms.push(took.as_secs_f64() * 1e3),
            End::Failed(why) | End::Silent(why) | End::Wrong(why)
                if self.complaints.len() < MOST_COMPLAINTS =>
            {
                let what = match end {
                    End::Failed(_) => "failed",
                    End::Silent(_) => "without a word",
                    _ => "wrong",
                };
                self.complaints
                    .push(format!("{}, {what}: {why}", kind.words()));
            }
            _ => {}
        }
    }

    fn sum(&self) -> Ends {
        let mut sum = Ends::default();
        for ends in self.ends.values() {
            sum.whole += ends.whole;
            sum.refused += ends.refused;
            sum.hung_up += ends.hung_up;
            sum.failed += ends.failed;
            sum.silent += ends.silent;
            sum.wrong += ends.wrong;
        }
        sum
    }

    /// What was found, for people and programs; the complaints go to standard error, too.
    pub(super) fn report(self, args: &SoakArgs) -> Report {
        let mut report = Report::new(
            "soak",
            format!(
                "an orchestrator, a gateway, 1 worker with the small model on mistral.rs in {} processes; {} requests, {} at once, seed {}, in {:.0} s",
                args.processes,
                args.requests,
                args.at_once,
                args.seed,
                self.took.as_secs_f64()
            ),
        );
        self.counts(&mut report);
        let times: Distribution = self.times_ms.iter().copied().collect();
        report.distributions("ms", 0, &[("whole answers", times)]);
        self.memory(&mut report);
        self.promises(args, &mut report);
        for complaint in &self.complaints {
            eprintln!("tether-drill soak: {complaint}");
        }
        report.sample("complaints", json!(self.complaints));
        report
    }

    fn counts(&self, report: &mut Report) {
        let rows = self.ends.iter().map(|(kind, ends)| (kind.words(), *ends));
        let rows: Vec<Vec<String>> = (rows.chain([("all", self.sum())]))
            .map(|(name, ends)| {
                let cells = ends.cells();
                let cells = cells.iter().map(ToString::to_string);
                std::iter::once(name.to_owned()).chain(cells).collect()
            })
            .collect();
        report.table(
            &[
                "requests",
                "asked",
                "whole and right",
                "refused, and had to be",
                "left by their caller",
                "failed, and told why",
                "failed without a word",
                "wrong",
            ],
            &rows,
        );
    }

    fn memory(&self, report: &mut Report) {
        let rows: Vec<Vec<String>> = (self.processes.iter())
            .map(|process| {
                let course = process.memory.course();
                let cells = course.map(|it| [it.first, it.warm, it.most, it.end]);
                let cells = cells.map(|it| it.map(|it| format!("{it:.1}")));
                let cells = cells.unwrap_or([const { String::new() }; 4]);
                [vec![process.name.to_owned()], cells.to_vec()].concat()
            })
            .collect();
        report.table(
            &[
                "resident MiB",
                "at first",
                "median of the second tenth",
                "most",
                "median of the last tenth",
            ],
            &rows,
        );
        for process in &self.processes {
            let name = format!("resident MiB, {}", process.name);
            report.sample(&name, json!(process.memory.some(MOST_LOOKS)));
        }
    }

    fn promises(&self, args: &SoakArgs, report: &mut Report) {
        let sum = self.sum();
        report.promise(
            "worker and engine are the processes that they were",
            self.restarts.is_empty(),
            match self.restarts.as_slice() {
                [] => "no restart".to_owned(),
                restarts => restarts.join("; "),
            },
        );
        for process in self.processes.iter().filter(|it| it.promised) {
            let course = process.memory.course();
            report.promise(
                &format!(
                    "the memory of the {} is flat: {}",
                    process.name,
                    Course::RULE
                ),
                course.is_some_and(|it| it.is_flat()),
                course.map_or("too few looks".to_owned(), |it| {
                    format!("{:+.1} MiB", it.end - it.warm)
                }),
            );
        }
        let asked = sum.cells()[0];
        report.promise(
            "every request ended: whole, refused, left by its caller, or failed and told why",
            sum.silent == 0 && asked == args.requests,
            format!(
                "{} without a word, {asked} of {} ended",
                sum.silent, args.requests
            ),
        );
        report.promise(
            "every whole answer is the one that its worker signed, in the form asked for, counted exactly, and the same as before; every wrong request is refused by its name",
            sum.wrong == 0 && sum.whole > 0,
            format!(
                "{} wrong; {} whole, to {} different requests; {} refused",
                sum.wrong, sum.whole, self.different, sum.refused
            ),
        );
        report.promise(
            "at most 1 of 100 requests failed that were right",
            sum.failed * 100 <= (sum.whole + sum.failed) * MOST_FAILED_PERCENT,
            sum.failed,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_cut_breaks_a_promise_and_a_told_failure_does_not() {
        let args = SoakArgs {
            processes: 2,
            requests: 200,
            at_once: 1,
            seed: 0,
        };
        let found = |odd: End| {
            let mut found = Found::default();
            for _ in 0..args.requests - 1 {
                found.add(Kind::Whole, &End::Whole, Duration::ZERO);
            }
            found.add(Kind::Stream, &odd, Duration::ZERO);
            found.report(&args).broken_names()
        };
        assert_eq!(found(End::Failed("503".to_owned())), Vec::<String>::new());
        assert!(found(End::Silent("cut".to_owned()))[0].starts_with("every request ended"));
        assert!(found(End::Wrong("x".to_owned()))[0].starts_with("every whole answer"));
    }
}
