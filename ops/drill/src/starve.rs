//! Healthy workers get no CPU for a while. [T-LIV-2], [T-LNK-5]
//!
//! # Layout
//!
//! * `hold` – how it is taken from them

mod hold;

use crate::SiteArgs;
use crate::cost;
use crate::load::{self, Asked, Caller, Counts, End, Load, Question, Window};
use crate::mesh::{EngineSettings, Mesh, Row, Shape, WorkerSettings};
use crate::report::{Report, progress};
use crate::views::{Fleet, Views};
use anyhow::ensure;
use clap::Args;
use hold::{By, Held};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// A beat is due at the latest then, and takes a moment to be seen.
const WELL_WITHIN_MS: f64 = 5_000.0 + 500.0;
/// Pause between two looks while they are starved.
const LOOK: Duration = Duration::from_millis(50);
/// Time to get long answers under way on all workers.
const SPREAD_WITHIN: Duration = Duration::from_secs(30);
/// Guard for what must happen within a beat.
const LONG: Duration = Duration::from_secs(30);

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct StarveArgs {
    /// Workers that are starved in all
    #[arg(long, default_value_t = 21)]
    runs: usize,
    /// Workers that are starved at once
    #[arg(long, default_value_t = 3)]
    at_once: usize,
    /// How their CPU is taken
    #[arg(long, value_enum, default_value_t = By::Stop)]
    by: By,
    /// Seconds without CPU
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Workers that there are
    #[arg(long, default_value_t = 6)]
    workers: usize,
}

#[derive(Debug, Default)]
struct Found {
    well: Vec<f64>,
    chosen: Vec<f64>,
    never: usize,
    gone: BTreeSet<String>,
    on_starved: Vec<Asked>,
    others: Vec<Asked>,
    /// Short requests: asked before every view doubted the starved ones, and after.
    blind: Vec<Asked>,
    sighted: Vec<Asked>,
}

impl StarveArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        ensure!(
            self.at_once > 0 && self.at_once < self.workers,
            "--at-once must leave a worker to serve"
        );
        let shape = Shape {
            orchestrators: 3,
            shared_store: false,
            workers: self.workers,
            models: 1,
            worker: WorkerSettings {
                slots: 8,
                engine: EngineSettings::Echo { token_ms: 60 },
            },
        };
        let mesh = Mesh::start(site, &shape).await?;
        let views = mesh.views()?;
        let mut found = Found::default();
        let mut at = 0;
        while at < self.runs {
            let some = self.at_once.min(self.runs - at);
            let places: Vec<usize> = (at..at + some).map(|it| it % self.workers).collect();
            self.starve(&mesh, &views, &places, &mut found).await?;
            at += some;
            progress(format!("{at} of {} starved", self.runs));
        }
        Ok(self.report(found))
    }

    async fn starve(
        &self,
        mesh: &Mesh,
        views: &Views,
        places: &[usize],
        found: &mut Found,
    ) -> anyhow::Result<()> {
        let caller = Caller::new(&mesh.gateway_url()?, mesh.api_key())?;
        let ids: BTreeSet<String> = (places.iter())
            .map(|at| mesh.workers[*at].seat.id.to_hex())
            .collect();
        let mut streams = self.streams_on(&ids, &caller).await?;
        let mut pids = Vec::new();
        for at in places {
            let pid = mesh.workers[*at].process()?.pid();
            pids.extend(cost::children(pid));
            pids.push(pid);
        }
        let load = Load::start(caller.clone(), 10.0, vec![Question::echo(2)]);
        let from = Instant::now();
        let held = Held::hold(self.by, pids)?;
        let mut blind = Window { from, until: from };
        let is_routable = |fleet: &Fleet, id: &str| fleet.get(id).is_some_and(Row::is_routable);
        while from.elapsed() < Duration::from_secs(self.seconds) {
            tokio::time::sleep(LOOK).await;
            for fleet in views.fleets().await? {
                let gone = ids.iter().filter(|id| !fleet.contains_key(*id));
                found.gone.extend(gone.cloned());
                if ids.iter().any(|id| is_routable(&fleet, id)) {
                    blind.until = Instant::now();
                }
            }
        }
        let begin = Instant::now();
        held.release();
        let ids: Vec<String> = ids.into_iter().collect();
        let says = |fleet: &Fleet, id: &String| is_routable(fleet, id);
        for views in views.first(begin, LONG, &ids, says).await? {
            let times: Vec<f64> = views
                .iter()
                .flatten()
                .map(|it| it.as_secs_f64() * 1e3)
                .collect();
            found.never += views.len() - times.len();
            found.well.extend(times.into_iter().reduce(f64::max));
        }
        while let Some(asked) = streams.join_next().await {
            let asked = asked?;
            let starved = asked.worker.as_ref().is_some_and(|it| ids.contains(it));
            if starved {
                &mut found.on_starved
            } else {
                &mut found.others
            }
            .push(asked);
        }
        let short = load.stop().await;
        for id in &ids {
            let given = short
                .iter()
                .filter(|it| it.at >= begin && it.worker.as_ref() == Some(id));
            let first = given.map(|it| it.at.duration_since(begin).as_secs_f64() * 1e3);
            found.chosen.extend(first.reduce(f64::min));
        }
        let (early, later) = short.into_iter().partition(|asked| blind.covers(asked));
        let (early, later): (Vec<Asked>, Vec<Asked>) = (early, later);
        found.blind.extend(early);
        found.sighted.extend(later);
        Ok(())
    }

    /// Long answers, until each of some workers gives one.
    async fn streams_on(
        &self,
        ids: &BTreeSet<String>,
        caller: &Caller,
    ) -> anyhow::Result<JoinSet<Asked>> {
        let mut streams = JoinSet::new();
        let (began, mut begun) = mpsc::channel(1_024);
        let mut missing = ids.clone();
        let begin = Instant::now();
        // Long enough to be under way after the starvation.
        let words = usize::try_from(self.seconds)? * 1_000 / 60 + 30;
        while !missing.is_empty() {
            ensure!(
                begin.elapsed() < SPREAD_WITHIN,
                "no long answer is given by {missing:?}"
            );
            for _ in 0..missing.len() {
                let (caller, began) = (caller.clone(), began.clone());
                streams.spawn(async move {
                    let told = |worker: &str| {
                        let _ = began.try_send(worker.to_owned());
                    };
                    caller.ask(&Question::echo(words), told).await
                });
            }
            for _ in 0..missing.len() {
                let worker = tokio::time::timeout(Duration::from_secs(2), begun.recv()).await;
                if let Ok(Some(worker)) = worker {
                    missing.remove(&worker);
                }
            }
        }
        Ok(streams)
    }

    fn report(&self, found: Found) -> Report {
        let mut report = Report::new(
            "starve",
            format!(
                "3 orchestrators, a gateway, {} workers with the echo engine; worker and engine {} for {} s, {} workers at once",
                self.workers,
                self.by.words(),
                self.seconds,
                self.at_once
            ),
        );
        let (well, chosen) = (
            found.well.iter().copied().collect(),
            found.chosen.iter().copied().collect(),
        );
        let rows = [
            ("from its first CPU to being routable in every view", well),
            (
                "from its first CPU to its first new request, of 10 in a second over all",
                chosen,
            ),
        ];
        report.distributions("ms", 0, &rows);
        let [(_, well), _] = rows;
        let starved = Counts::of(&found.on_starved);
        let (others, blind) = (Counts::of(&found.others), Counts::of(&found.blind));
        let sighted = Counts::of(&found.sighted);
        report.table(
            &Counts::HEADS,
            &[
                starved.row("long answers under way on starved workers"),
                others.row("long answers on others"),
                blind.row("short ones, until all views doubted the starved workers"),
                sighted.row("short ones after that"),
            ],
        );
        let long = found.on_starved.iter().chain(&found.others);
        let all = long.chain(&found.blind).chain(&found.sighted);
        report.sample("complaints", json!(load::complaints(all)));
        report.promise_at_most(
            "chosen again within a beat, 5,000 ms (and 500 ms to see it)",
            WELL_WITHIN_MS,
            &well,
        );
        report.promise(
            "every view has every starved worker again",
            found.never == 0,
            format!("{} missed", found.never),
        );
        report.promise(
            "no starved worker went from a view",
            found.gone.is_empty(),
            found.gone.len(),
        );
        let cut = found
            .on_starved
            .iter()
            .filter(|it| it.end != End::Whole)
            .count();
        report.promise(
            "every answer under way on a starved worker came whole",
            cut == 0 && starved.whole >= self.runs,
            format!("{} of {}", starved.whole, starved.all()),
        );
        let failed = sighted.all() - sighted.whole + others.all() - others.whole;
        let what = "no request failed that was on another worker, or asked when all views doubted";
        report.promise(what, failed == 0, failed);
        report
    }
}
