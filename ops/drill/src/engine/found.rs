//! What was measured of engines that ended, as a report.

use super::EngineArgs;
use super::fates::Fate;
use crate::figures::Distribution;
use crate::load::{self, Asked, Counts, End};
use crate::report::Report;
use serde_json::json;
use std::time::{Duration, Instant};

/// An engine whose process ended is known within this time.
const DETECTED_WITHIN_MS: f64 = 1_000.0;

/// An engine that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) fate: Fate,
    pub(super) model: String,
    pub(super) at: Instant,
    /// Until its worker said so.
    pub(super) detected: Duration,
    /// Until its caller was told.
    pub(super) told: Duration,
    /// Until the model was loaded again.
    pub(super) back: Duration,
    /// Whether the worker gave the right cause and reason.
    pub(super) is_told_rightly: bool,
    pub(super) reason: String,
    /// The answer that it was making.
    pub(super) answer: Asked,
}

impl Ended {
    /// Whether a request was for the model while that was gone, or in its engine when it ended.
    fn concerns(&self, asked: &Asked) -> bool {
        let until = self.at + self.back;
        asked.model == self.model && asked.at <= until && asked.at + asked.took >= self.at
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) ended: Vec<Ended>,
    /// The load, by what happened during it.
    load: Vec<(Fate, Asked)>,
}

impl Found {
    pub(super) fn asked(&mut self, fate: Fate, asked: Vec<Asked>) {
        self.load.extend(asked.into_iter().map(|it| (fate, it)));
    }

    fn times(&self, fate: Fate, of: fn(&Ended) -> Duration) -> Distribution {
        let ended = self.ended.iter().filter(|it| it.fate == fate);
        ended.map(|it| of(it).as_secs_f64() * 1e3).collect()
    }

    /// Requests of the load: those for a model that was gone, and all others.
    fn parted(&self, fate: Fate) -> (Vec<&Asked>, Vec<&Asked>) {
        let asked = self.load.iter().filter(|(when, _)| *when == fate);
        asked
            .map(|(_, asked)| asked)
            .partition(|asked| self.ended.iter().any(|it| it.concerns(asked)))
    }

    pub(super) fn report(&self, args: &EngineArgs) -> Report {
        let mut report = Report::new(
            "engine",
            format!(
                "1 orchestrator, a gateway, 1 worker with {} models of the small model on mistral.rs, each in {} processes, {} short requests in a second over all of them; a sign of life is due every {} ms, a step every {} ms",
                args.models, args.processes, args.rate, args.hang_ms, args.step_ms
            ),
        );
        for fate in Fate::ALL {
            self.fate(fate, args, &mut report);
        }
        let asked = self.load.iter().map(|(_, asked)| asked);
        report.sample("complaints", json!(load::complaints(asked)));
        report.sample("reasons", json!(self.reasons()));
        report
    }

    fn fate(&self, fate: Fate, args: &EngineArgs, report: &mut Report) {
        let words = fate.words();
        let detected = self.times(fate, |it| it.detected);
        report.distributions(
            &format!("ms, {words}"),
            0,
            &[
                ("until the worker said so", detected.clone()),
                ("until its caller was told", self.times(fate, |it| it.told)),
                (
                    "until the model was loaded again",
                    self.times(fate, |it| it.back),
                ),
            ],
        );
        let (concerned, others) = self.parted(fate);
        let answers = self.ended.iter().filter(|it| it.fate == fate);
        let answers: Vec<&Asked> = answers.map(|it| &it.answer).collect();
        let (lost, others) = (Counts::of(answers.iter().copied()), Counts::of(others));
        let concerned = Counts::of(concerned);
        report.table(
            &Counts::HEADS,
            &[
                lost.row("long answers that the engine was making"),
                concerned.row("short ones, for the same model meanwhile"),
                others.row("short ones, for the other models"),
            ],
        );
        let within = match fate {
            Fate::Stopped => args.step_ms as f64,
            _ => DETECTED_WITHIN_MS,
        };
        let what = format!("{words}: known within {within} ms");
        report.promise_at_most(&what, within, &detected);
        let ended: Vec<&Ended> = self.ended.iter().filter(|it| it.fate == fate).collect();
        let right = ended.iter().filter(|it| it.is_told_rightly).count();
        report.promise(
            &format!("{words}: each counted with its cause"),
            right == args.runs,
            format!("{right} of {}", args.runs),
        );
        let failed = others.all() - others.whole;
        report.promise(
            &format!("{words}: no request of another model was harmed"),
            failed == 0 && others.whole > 0,
            format!("{failed} of {}", others.all()),
        );
        if args.processes > 1 {
            let failed = concerned.all() - concerned.whole;
            report.promise(
                &format!("{words}: what else the model was asked, its other process answered"),
                failed == 0 && concerned.whole > 0,
                format!("{failed} of {}", concerned.all()),
            );
        }
        let wrong = answers.iter().filter(|it| matches!(it.end, End::Wrong(_)));
        let wrong = wrong.count();
        report.promise(
            &format!("{words}: no lost answer was presented as whole"),
            wrong == 0,
            wrong,
        );
    }

    /// Each reason that was given, once.
    fn reasons(&self) -> Vec<&str> {
        let mut reasons: Vec<&str> = self.ended.iter().map(|it| it.reason.as_str()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        reasons
    }
}
