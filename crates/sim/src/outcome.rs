//! What came out of a run.

use crate::scenario::Expect;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Times of one kind, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<u32>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, ms: u64) {
        self.0.push(u32::try_from(ms).unwrap_or(u32::MAX));
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// Their distribution.
    #[must_use]
    pub fn distribution(&self) -> Option<Distribution> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |part: usize| sorted[(sorted.len() - 1) * part / 100];
        let max_ms = *sorted.last()?;
        Some(Distribution {
            count: sorted.len(),
            p50_ms: at(50),
            p99_ms: at(99),
            max_ms,
        })
    }
}

/// A distribution in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Distribution {
    /// How many there were.
    pub count: usize,
    /// Half took no longer.
    pub p50_ms: u32,
    /// Of a hundred, ninety-nine took no longer.
    pub p99_ms: u32,
    /// None took longer.
    pub max_ms: u32,
}

/// What must not be, and was.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Simulated milliseconds from the start.
    pub at_ms: u64,
    /// Whose view was wrong, by its number.
    pub viewer: Option<u32>,
    /// The host that it is about, by its number.
    pub subject: Option<u32>,
    /// In words.
    pub what: String,
}

/// Traffic that the nodes of one kind sent.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Traffic {
    /// Messages of a node in a second.
    pub messages_per_s: f64,
    /// Bytes of a node in a second.
    pub bytes_per_s: f64,
}

/// What came out of the run of one seed.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Nodes that take part.
    pub nodes: usize,
    /// Nodes that live at the end.
    pub living: usize,
    /// Times that a view showed a dead node for too long.
    pub ghosts: u64,
    /// Times that a view let a node expire that lived and was soundly connected with it.
    pub false_expiries: u64,
    /// Times that a view let a living node expire, whatever its connections: those behind a
    /// partition belong here.
    pub expired_alive: u64,
    /// Times that a view did not show a node that lived and was soundly connected with it.
    pub missing: u64,
    /// Goodbyes that did not come through; the node expired instead.
    pub unheard_goodbyes: u64,
    /// Suspicions, all views together.
    pub suspicions: u64,
    /// Suspects at the end.
    pub suspects: usize,
    /// Reports of clones, all views together.
    pub clone_reports: u64,
    /// Milliseconds from the last disturbance until all views were the truth, for good; nothing if
    /// they never were.
    pub converged_ms: Option<u64>,
    /// From a death by `kill -9` until it was suspect in a view.
    #[serde(serialize_with = "as_distribution")]
    pub suspect: Samples,
    /// From a revocation until the key was gone in a view.
    #[serde(serialize_with = "as_distribution")]
    pub revocation: Samples,
    /// From a death by `kill -9` until it was gone in a view.
    #[serde(serialize_with = "as_distribution")]
    pub expiry: Samples,
    /// From a goodbye until the node was gone in a view.
    #[serde(serialize_with = "as_distribution")]
    pub goodbye: Samples,
    /// From a start until the node was shown in a view.
    #[serde(serialize_with = "as_distribution")]
    pub appear: Samples,
    /// From the start of an orchestrator that joins until it had the whole fleet.
    #[serde(serialize_with = "as_distribution")]
    pub newcomer: Samples,
    /// Orchestrators that joined and never had it.
    pub incomplete_newcomers: usize,
    /// From the death of a worker's last orchestrator until it had linked with another.
    #[serde(serialize_with = "as_distribution")]
    pub relink: Samples,
    /// What was dropped, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// What a worker sends.
    pub worker: Traffic,
    /// What an orchestrator sends.
    pub orchestrator: Traffic,
    /// Events of the simulation.
    pub events: u64,
    /// A hash of all that happened: the same seed gives the same.
    pub trace: String,
    /// Seconds that the run took in truth.
    pub wall_s: f64,
    /// Seconds of one core that it took: the same on a machine that is busy with other things.
    pub cpu_s: f64,
    /// The first things that were wrong, word for word.
    pub violations: Vec<Violation>,
    /// What was expected and did not hold.
    pub failures: Vec<String>,
}

fn as_distribution<S: serde::Serializer>(samples: &Samples, to: S) -> Result<S::Ok, S::Error> {
    samples.distribution().serialize(to)
}

impl Outcome {
    /// Whether all held that was expected.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    /// Compares with what was expected.
    pub(crate) fn judge(&mut self, expect: &Expect) {
        let mut failures = Vec::new();
        for (what, count, most) in [
            ("ghosts", self.ghosts, expect.ghosts),
            ("false expiries", self.false_expiries, expect.false_expiries),
            ("missing", self.missing, expect.missing),
            (
                "newcomers that never had the fleet",
                self.incomplete_newcomers as u64,
                0,
            ),
        ] {
            if count > most {
                failures.push(format!("{what}: {count}, at most {most} expected"));
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a day at most")]
        match self.converged_ms {
            Some(ms) if ms as f64 <= expect.converge_within_ms => {}
            Some(ms) => failures.push(format!(
                "converged after {ms} ms, {} ms expected",
                expect.converge_within_ms
            )),
            None => failures.push("views are not the truth at the end".to_owned()),
        }
        for (what, samples, most) in [
            ("suspect", &self.suspect, expect.suspect_within_ms),
            ("revocation", &self.revocation, expect.revoked_within_ms),
            ("newcomer", &self.newcomer, expect.newcomer_within_ms),
            ("relink", &self.relink, expect.relink_within_ms),
            ("goodbye", &self.goodbye, expect.goodbye_within_ms),
        ] {
            let Some(most) = most else { continue };
            match samples.distribution() {
                Some(times) if f64::from(times.max_ms) <= most => {}
                Some(times) => failures.push(format!(
                    "{what}: {} ms at worst, {most} ms expected",
                    times.max_ms
                )),
                None => failures.push(format!("{what}: never happened, so nothing was shown")),
            }
        }
        if let Some(most) = expect.worker_bytes_per_s
            && self.worker.bytes_per_s > most
        {
            failures.push(format!(
                "a worker sends {:.0} bytes in a second, {most} expected",
                self.worker.bytes_per_s
            ));
        }
        self.failures.extend(failures);
    }

    pub(crate) fn set_cost(&mut self, wall: Duration, cpu: Duration) {
        self.wall_s = wall.as_secs_f64();
        self.cpu_s = cpu.as_secs_f64();
    }
}
