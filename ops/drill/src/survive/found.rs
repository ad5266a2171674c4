//! What was measured, as a report.

use super::SurviveArgs;
use super::ask::Told;
use crate::figures::Distribution;
use crate::report::Report;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::time::{Instant, SystemTime};

/// The longest pause that a caller should see, for 99 of 100 answers.
const GAP_MS: f64 = 1_000.0;

/// Answers with the longest pauses that are named, to be looked up in the logs.
const NAMED: usize = 20;

/// What was measured.
pub(super) struct Found {
    /// What each question was told by a mesh to which nothing happened, and while it did.
    pub(super) undisturbed: Vec<Told>,
    pub(super) disturbed: Vec<Told>,
    pub(super) kills: Vec<Instant>,
    /// What `tether store check` says at the end.
    pub(super) store: Value,
}

impl Found {
    pub(super) fn report(&self, args: &SurviveArgs) -> Report {
        let victim = args.kill.word();
        let mut report = Report::new(
            "survive",
            format!(
                "{} orchestrators, a gateway, {} workers with the real engine (two processes of one \
                 thread each), {} requests at once; a {victim} killed by `kill -9` every {} ms and \
                 restarted, {} in all",
                args.kill.orchestrators(),
                args.workers,
                args.open,
                args.every_ms,
                self.kills.len(),
            ),
        );
        let ms = |of: fn(&Told) -> Option<f64>, told: &[Told]| -> Distribution {
            told.iter().filter_map(of).collect()
        };
        let gap = |told: &Told| Some(told.gap.as_secs_f64() * 1e3);
        let first = |told: &Told| told.first.map(|it| it.as_secs_f64() * 1e3);
        let gaps = ms(gap, &self.disturbed);
        report.distributions(
            "ms",
            0,
            &[
                (
                    "longest pause in an answer, undisturbed",
                    ms(gap, &self.undisturbed),
                ),
                ("longest pause in an answer, under kills", gaps.clone()),
                ("first piece, undisturbed", ms(first, &self.undisturbed)),
                ("first piece, under kills", ms(first, &self.disturbed)),
            ],
        );
        let failed: Vec<_> = (self.disturbed.iter())
            .filter_map(|it| it.error.clone())
            .collect();
        let unready = self
            .undisturbed
            .iter()
            .filter(|it| it.error.is_some())
            .count();
        let pairs = || self.undisturbed.iter().zip(&self.disturbed);
        let whole = || pairs().filter(|(_, it)| it.error.is_none());
        let other: Vec<usize> = (pairs().enumerate())
            .filter(|(_, (one, other))| other.error.is_none() && one.content() != other.content())
            .map(|(number, _)| number)
            .collect();
        let tokens = |told: &mut dyn Iterator<Item = &Told>| -> u64 {
            told.map(|it| it.completion_tokens).sum()
        };
        report.table(
            &["requests", "asked", "whole", "equal", "failed", "tokens"],
            &[
                vec![
                    "undisturbed".to_owned(),
                    self.undisturbed.len().to_string(),
                    (self.undisturbed.len() - unready).to_string(),
                    "–".to_owned(),
                    unready.to_string(),
                    tokens(&mut self.undisturbed.iter()).to_string(),
                ],
                vec![
                    "under kills".to_owned(),
                    self.disturbed.len().to_string(),
                    whole().count().to_string(),
                    (whole().count() - other.len()).to_string(),
                    failed.len().to_string(),
                    tokens(&mut self.disturbed.iter()).to_string(),
                ],
            ],
        );
        report.sample("longest pauses", self.longest_pauses());
        report.sample(
            "complaints",
            json!(failed.iter().take(20).collect::<Vec<_>>()),
        );
        let show = |number: &usize| {
            json!([
                number,
                self.undisturbed[*number].text,
                self.disturbed[*number].text
            ])
        };
        report.sample(
            "other",
            json!(other.iter().take(5).map(show).collect::<Vec<_>>()),
        );
        report.promise("every undisturbed answer is whole", unready == 0, unready);
        report.promise(
            "every answer under kills is whole",
            failed.is_empty(),
            failed.len(),
        );
        let what = "every answer under kills equals the undisturbed one, with finish and usage";
        report.promise(what, other.is_empty(), other.len());
        let p99 = gaps.percentile(99.0).unwrap_or(f64::INFINITY);
        let what = "99 of 100 answers have no pause above 1,000 ms";
        report.promise(what, p99 <= GAP_MS, format!("{p99:.0}"));
        // Each request is one job, whoever ran it and however often.
        let all = || self.undisturbed.iter().chain(&self.disturbed);
        let sum = |of: fn(&Told) -> u64| all().map(of).sum::<u64>();
        let told = json!({
            "jobs": all().count(),
            "open_jobs": 0,
            "done_jobs": all().filter(|it| it.error.is_none()).count(),
            "billed": {
                "prompt_tokens": sum(|it| it.prompt_tokens),
                "completion_tokens": sum(|it| it.completion_tokens),
            },
            "problems": [],
        });
        let agrees = (told.as_object().into_iter().flatten())
            .all(|(name, value)| self.store[name] == *value);
        report.sample("store", json!({"told": told, "found": self.store}));
        let what = "the store has each request once, whole, billed as its caller was told";
        report.promise(what, agrees, &self.store["billed"]["completion_tokens"]);
        report.promise(
            "something was killed",
            !self.kills.is_empty(),
            self.kills.len(),
        );
        report
    }

    /// The longest pauses under kills, each with its answer's name in the logs and its end.
    fn longest_pauses(&self) -> Value {
        let mut told: Vec<&Told> = self.disturbed.iter().collect();
        told.sort_by_key(|it| Reverse(it.gap));
        let named = told.into_iter().take(NAMED).map(|it| {
            let until = it.gap_until?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(json!({
                "correlation": it.correlation,
                "ms": it.gap.as_millis(),
                "until_unix_ms": until.as_millis(),
            }))
        });
        named.flatten().collect()
    }
}
