//! What was measured of deaths, as a report.

use super::{KillArgs, Requests};
use crate::figures::Distribution;
use crate::load::{self, Asked, Counts, Window};
use crate::report::Report;
use serde_json::json;
use std::time::Duration;

/// A killed worker is doubted within this time where its link breaks.
const SUSPECT_WITHIN_MS: f64 = 2_500.0;
/// One that is silent is gone within this time, and what it takes to see that.
const EXPIRED_WITHIN_MS: f64 = 15_000.0 + SEEN_WITHIN_MS;
/// Two looks, a publication and a flush of the spread.
const SEEN_WITHIN_MS: f64 = 500.0;
/// One that said goodbye is gone within this time; its last answers, of a tenth of a second, are in it.
const GONE_WITHIN_MS: f64 = 1_000.0;

/// Milliseconds in the first view and in the last one.
#[derive(Debug, Default)]
pub(super) struct Times {
    first: Vec<f64>,
    last: Vec<f64>,
    /// Views that never said so.
    never: usize,
}

impl Times {
    pub(super) fn add(&mut self, views: &[Option<Duration>]) {
        let seen: Distribution = (views.iter().flatten())
            .map(|it| it.as_secs_f64() * 1e3)
            .collect();
        self.never += views.len() - seen.len();
        self.first.extend(seen.min());
        self.last.extend(seen.max());
    }

    fn first(&self) -> Distribution {
        self.first.iter().copied().collect()
    }

    fn last(&self) -> Distribution {
        self.last.iter().copied().collect()
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) doubted: Times,
    pub(super) not_chosen: Times,
    pub(super) departed: Times,
    pub(super) exited: Vec<f64>,
    pub(super) stopped: Times,
    pub(super) stopped_gone: Times,
    pub(super) killed_gone: Times,
    /// From the moment in which several died until every view doubted all of them: a request may meet
    /// two of them then, and is given to two workers at most.
    pub(super) blind: Vec<Window>,
    /// Attempts at a dead worker: before it was doubted by who gave it the request, and after.
    pub(super) attempts_before: usize,
    pub(super) attempts_after: usize,
    /// Attempts at anybody: that the logs tell of them at all.
    pub(super) attempts: usize,
    /// Doubts that an orchestrator did not log.
    pub(super) unlogged: usize,
}

impl Found {
    pub(super) fn report(&self, args: &KillArgs, requests: &Requests) -> Report {
        let mut report = Report::new(
            "kill",
            format!(
                "3 orchestrators, a gateway, {} workers with the echo engine, {} requests in a second",
                args.workers, args.rate
            ),
        );
        self.times(args, &mut report);
        self.requests(args, requests, &mut report);
        report
    }

    fn times(&self, args: &KillArgs, report: &mut Report) {
        let rows = [
            ("`kill -9`: suspect in the first view", self.doubted.first()),
            ("`kill -9`: suspect in every view", self.doubted.last()),
            (
                "`kill -9`, not restarted: gone by silence, in every view",
                self.killed_gone.last(),
            ),
            (
                "SIGTERM: not chosen any more, in every view",
                self.not_chosen.last(),
            ),
            ("SIGTERM: gone, in every view", self.departed.last()),
            (
                "SIGTERM: its process has ended",
                self.exited.iter().copied().collect(),
            ),
            ("SIGSTOP: suspect in every view", self.stopped.last()),
            (
                "SIGSTOP: gone by silence, in every view",
                self.stopped_gone.last(),
            ),
        ];
        report.distributions("ms", 0, &rows);
        let [
            _,
            suspect,
            killed_gone,
            not_chosen,
            departed,
            _,
            stopped,
            stopped_gone,
        ] = rows.map(|(_, times)| times);
        let silent = "gone by silence in every view within 15 s (and 500 ms to see it)";
        if args.runs > 0 {
            let what = "`kill -9`: suspect in every view within 2,500 ms";
            report.promise_at_most(what, SUSPECT_WITHIN_MS, &suspect);
        }
        if killed_gone.len() > 0 {
            let what = format!("`kill -9`: {silent}");
            report.promise_at_most(&what, EXPIRED_WITHIN_MS, &killed_gone);
        }
        if args.goodbyes > 0 {
            let what = "SIGTERM: not chosen in any view after 1,000 ms";
            report.promise_at_most(what, GONE_WITHIN_MS, &not_chosen);
            let what = "SIGTERM: gone in every view within 1,000 ms";
            report.promise_at_most(what, GONE_WITHIN_MS, &departed);
        }
        if args.silences > 0 {
            let what = "SIGSTOP: suspect in every view within 2,500 ms";
            report.promise_at_most(what, SUSPECT_WITHIN_MS, &stopped);
            let what = format!("SIGSTOP: {silent}");
            report.promise_at_most(&what, EXPIRED_WITHIN_MS, &stopped_gone);
        }
        let never: usize = [
            &self.doubted,
            &self.not_chosen,
            &self.departed,
            &self.stopped,
            &self.stopped_gone,
            &self.killed_gone,
        ]
        .iter()
        .map(|it| it.never)
        .sum();
        report.promise(
            "every view saw every end",
            never == 0,
            format!("{never} missed"),
        );
    }

    fn requests(&self, args: &KillArgs, requests: &Requests, report: &mut Report) {
        let (blind, sighted): (Vec<&Asked>, Vec<&Asked>) = (requests.silences.iter())
            .partition(|asked| self.blind.iter().any(|blind| blind.covers(asked)));
        let parts = [
            (
                "while one after the other was killed by `kill -9`",
                Counts::of(&requests.kills),
            ),
            (
                "while one after the other said goodbye",
                Counts::of(&requests.goodbyes),
            ),
            (
                "just as half of all workers fell silent, until all views doubted those",
                Counts::of(blind),
            ),
            ("while they were silent, and doubted", Counts::of(sighted)),
        ];
        let rows: Vec<Vec<String>> = (parts.iter())
            .map(|(what, counts)| counts.row(what))
            .collect();
        report.table(&Counts::HEADS, &rows);
        report.table(
            &["requests that were given to a dead worker", "count"],
            &[
                vec![
                    "before it was suspect".to_owned(),
                    self.attempts_before.to_string(),
                ],
                vec![
                    "after it was suspect".to_owned(),
                    self.attempts_after.to_string(),
                ],
            ],
        );
        let all = [&requests.kills, &requests.goodbyes, &requests.silences];
        let all = || all.iter().copied().flatten();
        report.sample("complaints", json!(load::complaints(all())));
        if args.runs + args.silences > 0 {
            let found = format!("{} missing, {} attempts", self.unlogged, self.attempts);
            let logged = self.unlogged == 0 && self.attempts > 0;
            report.promise(
                "the logs tell of every doubt, and of attempts",
                logged,
                found,
            );
            let what = "no request was given to a worker after it was suspect";
            report.promise(what, self.attempts_after == 0, self.attempts_after);
        }
        let [kills, goodbyes, _, sighted] = parts.map(|(_, counts)| counts);
        if args.runs > 0 {
            let what = "`kill -9`: no request failed whose answer had not begun";
            report.promise(what, kills.refused == 0, kills.refused);
        }
        if args.goodbyes > 0 {
            let failed = goodbyes.all() - goodbyes.whole;
            report.promise("SIGTERM: no request failed", failed == 0, failed);
        }
        if args.silences > 0 {
            let failed = sighted.all() - sighted.whole;
            let what =
                "silence: no request failed that was asked when all views doubted the silent";
            report.promise(what, failed == 0, failed);
        }
        let wrong = Counts::of(all()).wrong;
        report.promise(
            "no answer was presented as whole that was not",
            wrong == 0,
            wrong,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_never_say_so_are_counted_and_no_time() {
        let ms = |it| Some(Duration::from_millis(it));
        let mut times = Times::default();
        times.add(&[ms(10), ms(30), ms(20)]);
        times.add(&[ms(40), None, ms(5)]);
        assert_eq!(times.first(), [5.0, 10.0].into_iter().collect());
        assert_eq!(times.last(), [30.0, 40.0].into_iter().collect());
        assert_eq!(times.never, 1);
    }
}
