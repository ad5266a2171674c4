//! What was measured, as a report.

use super::OverloadArgs;
use super::ask::{Asked, End};
use super::needed::{self, Told};
use crate::figures::Distribution;
use crate::memory::{Course, Memory};
use crate::report::Report;
use serde_json::json;
use std::time::{Duration, Instant};

/// How much of what the fleet can do has to come out of it.
const GOODPUT: f64 = 0.9;
/// How far a tenant's share of it may be from its weight's, in parts of the whole.
const TOLERANCE: f64 = 0.05;
/// A refusal is early that came within this part of the request's time.
const EARLY: f64 = 0.1;
/// How much less than was needed 9 of 10 refusals may tell, in parts of what was needed.
const SHORT: f64 = 0.5;
/// Looks at memory that go into the JSON for each process.
const LOOKS_TOLD: usize = 60;

/// What became of a tenant's requests.
pub(super) struct Crowd {
    pub(super) name: &'static str,
    pub(super) weight: u32,
    pub(super) deadline: Duration,
    pub(super) began: Instant,
    /// How long requests came.
    pub(super) lasted: Duration,
    pub(super) asked: Vec<Asked>,
    /// Those that were not asked, for want of room in the drill.
    pub(super) held_up: usize,
}

/// What is said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Whole, within its time.
    InTime,
    /// Refused early, and told when to come again.
    Refused,
    /// Let in, and late or without an answer; or refused without a word.
    Broken,
}

impl Crowd {
    fn fate(&self, asked: &Asked) -> Fate {
        match asked.end {
            End::Whole if asked.took <= self.deadline => Fate::InTime,
            End::Refused {
                retry_after: Some(_),
            } if asked.took <= self.deadline.mul_f64(EARLY) => Fate::Refused,
            _ => Fate::Broken,
        }
    }

    fn of(&self, fate: Fate) -> impl Iterator<Item = &Asked> {
        let asked = self.asked.iter();
        asked.filter(move |it| self.fate(it) == fate)
    }

    /// Answers in a second, while requests came.
    fn goodput(&self) -> f64 {
        let until = self.began + self.lasted;
        let whole = self.of(Fate::InTime);
        let whole = whole.filter(|it| it.at + it.took <= until).count();
        count(whole) / self.lasted.as_secs_f64()
    }

    fn row(&self, share: f64, due: f64) -> Vec<String> {
        let many = |fate| self.of(fate).count().to_string();
        vec![
            self.name.to_owned(),
            self.weight.to_string(),
            self.deadline.as_millis().to_string(),
            self.asked.len().to_string(),
            many(Fate::InTime),
            many(Fate::Refused),
            many(Fate::Broken),
            format!("{:.1}", self.goodput()),
            format!("{:.1} %", share * 100.0),
            format!("{:.1} %", due * 100.0),
        ]
    }

    fn ms(&self, fate: Fate) -> Distribution {
        self.of(fate).map(|it| ms(it.took)).collect()
    }
}

/// The memory of a process.
pub(super) struct Grown {
    pub(super) name: String,
    pub(super) memory: Memory,
}

/// What was measured.
pub(super) struct Found {
    /// Answers in a second that the fleet gives when there is always somebody who waits.
    pub(super) capacity: f64,
    pub(super) crowds: Vec<Crowd>,
    pub(super) grown: Vec<Grown>,
}

impl Found {
    pub(super) fn report(&self, args: &OverloadArgs) -> Report {
        let places = u64::from(args.workers) * u64::from(args.slots);
        let answer_ms = u64::from(args.words) * args.word_ms;
        let mut report = Report::new(
            "overload",
            format!(
                "an orchestrator, a gateway for each tenant, {} workers with the echo engine that \
                 takes {} ms for a word, {} answers of {} words at once each: at most {:.1} answers \
                 in a second; requests at {} × what was measured for {} s, half of them of each tenant",
                args.workers,
                args.word_ms,
                args.slots,
                args.words,
                count(places) * 1e3 / count(answer_ms.max(1)),
                args.times,
                args.seconds,
            ),
        );
        self.tell_crowds(&mut report);
        self.tell_times(&mut report);
        self.tell_memory(&mut report);
        let broken = |crowd: &Crowd| {
            let complaints = crowd.of(Fate::Broken);
            let complaints = complaints.map(|it| format!("{:?} after {:?}", it.end, it.took));
            json!(complaints.take(20).collect::<Vec<_>>())
        };
        for crowd in &self.crowds {
            report.sample(&format!("{}, complaints", crowd.name), broken(crowd));
        }
        report
    }

    fn tell_crowds(&self, report: &mut Report) {
        let goodput: f64 = self.crowds.iter().map(Crowd::goodput).sum();
        let weights: u32 = self.crowds.iter().map(|it| it.weight).sum();
        let shares: Vec<(f64, f64)> = (self.crowds.iter())
            .map(|it| {
                let due = f64::from(it.weight) / f64::from(weights.max(1));
                (it.goodput() / goodput.max(f64::MIN_POSITIVE), due)
            })
            .collect();
        let rows = self.crowds.iter().zip(&shares);
        let rows: Vec<_> = rows
            .map(|(it, (share, due))| it.row(*share, *due))
            .collect();
        report.table(
            &[
                "tenant",
                "weight",
                "deadline, ms",
                "requests",
                "whole in time",
                "refused early, with `Retry-After`",
                "late, cut, or refused late",
                "whole in time in a second",
                "share",
                "share by weight",
            ],
            &rows,
        );
        let part = goodput / self.capacity.max(f64::MIN_POSITIVE);
        report.promise(
            "goodput is at least 0.9 of what the fleet can do, as measured",
            self.capacity > 0.0 && part >= GOODPUT,
            format!(
                "{part:.2}: {goodput:.1} of {:.1} in a second",
                self.capacity
            ),
        );
        let broken: usize = (self.crowds.iter())
            .map(|it| it.of(Fate::Broken).count())
            .sum();
        let what = "every request is answered whole within its deadline, or refused within a tenth of \
                    it with 429 or 503 and `Retry-After`";
        report.promise(what, broken == 0, format!("{broken} were not"));
        for (crowd, (share, due)) in self.crowds.iter().zip(&shares) {
            report.promise(
                &format!("{}: its share is its weight's, ± 5 points", crowd.name),
                (share - due).abs() <= TOLERANCE,
                format!("{:.1} % of {:.1} %", share * 100.0, due * 100.0),
            );
        }
        let held_up: usize = self.crowds.iter().map(|it| it.held_up).sum();
        report.promise("every request came at its time", held_up == 0, held_up);
    }

    fn tell_times(&self, report: &mut Report) {
        let told: Vec<Vec<Told>> = (self.crowds.iter())
            .map(|it| needed::told(&it.asked))
            .collect();
        let mut rows = Vec::new();
        for (crowd, told) in self.crowds.iter().zip(&told) {
            let name = |what: &str| format!("{}: {what}", crowd.name);
            let of = |of: fn(&Told) -> f64| told.iter().map(of).collect::<Distribution>();
            rows.extend([
                (name("until its whole answer"), crowd.ms(Fate::InTime)),
                (name("until it was refused"), crowd.ms(Fate::Refused)),
                (name("`Retry-After`"), of(|it| ms(it.told))),
                (
                    name("until all had their turn that waited then"),
                    of(|it| ms(it.needed)),
                ),
                (
                    name("`Retry-After` beyond that"),
                    of(|it| ms(it.told) - ms(it.needed)),
                ),
            ]);
        }
        let rows: Vec<_> = (rows.iter())
            .map(|(name, found)| (name.as_str(), found.clone()))
            .collect();
        report.distributions("ms", 0, &rows);
        let all = || told.iter().flatten();
        let short = all()
            .filter(|it| it.told < it.needed.mul_f64(SHORT))
            .count();
        report.promise(
            "`Retry-After` is at least half of what was needed, in 9 of 10 refusals",
            all().count() > 0 && short * 10 <= all().count(),
            format!("{short} of {} told less", all().count()),
        );
    }

    fn tell_memory(&self, report: &mut Report) {
        let mut rows = Vec::new();
        for Grown { name, memory } in &self.grown {
            let course = memory.course();
            let cells = course.map_or_else(
                || vec!["–".to_owned(); 4],
                |it| {
                    let cells = [it.first, it.warm, it.most, it.end];
                    cells.iter().map(|mib| format!("{mib:.1}")).collect()
                },
            );
            rows.push([vec![name.clone()], cells].concat());
            report.sample(&format!("{name}, MiB"), json!(memory.some(LOOKS_TOLD)));
        }
        let heads = [
            "resident MiB",
            "at first",
            "median of the second tenth",
            "most",
            "median of the last tenth",
        ];
        report.table(&heads, &rows);
        for Grown { name, memory } in &self.grown {
            let course = memory.course();
            report.promise(
                &format!("the memory of the {name} is flat: {}", Course::RULE),
                course.is_some_and(|it| it.is_flat()),
                course.map_or("nothing was seen".to_owned(), |it| {
                    format!("{:+.1} MiB", it.end - it.warm)
                }),
            );
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(many: impl TryInto<u64>) -> f64 {
    many.try_into().unwrap_or(u64::MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(name: &'static str, weight: u32, whole: usize) -> Crowd {
        let began = Instant::now();
        let asked = |end, took_ms| Asked {
            at: began,
            first: Some(Duration::from_millis(10)),
            took: Duration::from_millis(took_ms),
            end,
        };
        let retry_after = Some(Duration::from_millis(20));
        let refused = [asked(End::Refused { retry_after }, 5)];
        let whole = (0..whole).map(|_| asked(End::Whole, 500));
        Crowd {
            name,
            weight,
            deadline: Duration::from_secs(2),
            began,
            lasted: Duration::from_secs(10),
            asked: whole.chain(refused).collect(),
            held_up: 0,
        }
    }

    fn broken(change: impl FnOnce(&mut Found)) -> Vec<String> {
        let memory = || (0..100).map(|_| 50.0).collect();
        let mut found = Found {
            capacity: 10.0,
            crowds: vec![crowd("gold", 3, 75), crowd("bronze", 1, 25)],
            grown: vec![Grown {
                name: "gateway".to_owned(),
                memory: memory(),
            }],
        };
        change(&mut found);
        let args = OverloadArgs {
            seconds: 10,
            times: 3.0,
            workers: 4,
            slots: 4,
            words: 25,
            word_ms: 20,
            weights: vec![3, 1],
            deadlines_ms: vec![2_000, 2_000],
            seed: 1,
        };
        found.report(&args).broken_names()
    }

    #[test]
    fn a_fleet_that_does_what_it_can_for_whom_it_should_keeps_every_promise() {
        assert_eq!(broken(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn what_is_lost_late_unfair_dishonest_or_growing_is_told() {
        let one = |change: fn(&mut Found)| broken(change).len();
        assert_eq!(one(|it| it.capacity = 12.0), 1);
        assert_eq!(one(|it| it.crowds[0].asked[0].took *= 5), 1, "late");
        assert_eq!(
            one(|it| it.crowds[1].asked[0].end = End::Broken("504".to_owned())),
            1
        );
        assert_eq!(one(|it| it.crowds[1].weight = 3), 2, "both shares");
        assert_eq!(one(|it| it.crowds[1].held_up = 1), 1);
        let last = |it: &mut Found, retry_after| {
            for crowd in &mut it.crowds {
                let last = crowd.asked.last_mut().expect("refused");
                last.end = End::Refused { retry_after };
            }
        };
        assert_eq!(broken(|it| last(it, Some(Duration::ZERO))).len(), 1);
        assert_eq!(broken(|it| last(it, None)).len(), 2, "without a word");
        let grows = |it: &mut Found| it.grown[0].memory = (0..100).map(f64::from).collect();
        assert_eq!(broken(grows).len(), 1);
    }
}
