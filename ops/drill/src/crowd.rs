//! As many real workers as the machine carries, killed and restarted all the time. (PRE-4, PRE-5)
//!
//! # Layout
//!
//! * `found` – what was seen, as a report

mod found;

use crate::SiteArgs;
use crate::cost::{self, mib};
use crate::load::{Caller, Load, Question};
use crate::mesh::{EngineSettings, Mesh, Shape, WorkerSettings};
use crate::report::{Report, progress};
use crate::views::{self, Views};
use anyhow::{Context, ensure};
use clap::Args;
use found::Found;
use rand::Rng as _;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tether_wire::beat::{EXPIRY_MS, MAX_SKEW_MS};

/// A node that a view shows for longer than this after its death is a ghost, as in the simulator.
const GHOST_AFTER: Duration = Duration::from_millis(EXPIRY_MS + MAX_SKEW_MS + 2_000);
/// How long a killed worker stays dead at least and at most: some expire, some only restart.
const DEAD_S: (u64, u64) = (1, 40);
/// Time for views to become equal once nothing changes any more.
const CONVERGE_WITHIN: Duration = Duration::from_secs(120);

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct CrowdArgs {
    /// Workers, each with a process of its engine
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(4..=2_000))]
    workers: u16,
    /// Minutes of kills and restarts
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// Seconds between two rounds of kills
    #[arg(long, default_value_t = 3.0)]
    every: f64,
    /// Workers that are killed in a round at most
    #[arg(long, default_value_t = 3)]
    at_once: usize,
    /// Requests in a second
    #[arg(long, default_value_t = 4.0)]
    rate: f64,
}

impl CrowdArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shape = Shape {
            orchestrators: 3,
            shared_store: false,
            workers: usize::from(self.workers),
            models: 1,
            worker: WorkerSettings {
                slots: 4,
                engine: EngineSettings::Echo { token_ms: 5 },
            },
        };
        let mut mesh = Mesh::start(site, &shape).await?;
        let caller = Caller::new(&mesh.gateway_url()?, mesh.api_key())?;
        let load = Load::start(caller, self.rate, vec![Question::echo(10)]);
        let mut found = Found::default();
        self.churn(&mut mesh, &mut found).await?;
        self.settle(&mut mesh, &mut found).await?;
        let asked = load.stop().await;
        self.costs(&mesh, &mut found).await?;
        Ok(found.report(&self, &asked))
    }

    /// Kills and restarts until the time is over.
    async fn churn(&self, mesh: &mut Mesh, found: &mut Found) -> anyhow::Result<()> {
        let lasts = Duration::from_secs_f64(self.minutes * 60.0);
        let begin = Instant::now();
        // When each dead worker died, and when it comes back.
        let mut dead: BTreeMap<usize, (Instant, Instant)> = BTreeMap::new();
        // An orchestrator is killed after a third of the time, another one stops after two thirds.
        let mut orchestrators = vec![(lasts * 2 / 3, 2, false), (lasts / 3, 1, true)];
        let mut next_note = Duration::from_secs(60);
        while begin.elapsed() < lasts {
            let round = Instant::now();
            for _ in 0..rand::rng().random_range(1..=self.at_once) {
                let at = rand::rng().random_range(0..mesh.workers.len());
                if mesh.workers[at].process.is_some() {
                    mesh.workers[at].kill().await?;
                    let rest = Duration::from_secs(rand::rng().random_range(DEAD_S.0..=DEAD_S.1));
                    dead.insert(at, (Instant::now(), Instant::now() + rest));
                    found.kills += 1;
                }
            }
            let due: Vec<usize> = (dead.iter())
                .filter(|(_, (_, back))| *back <= Instant::now())
                .map(|(at, _)| *at)
                .collect();
            for at in due {
                dead.remove(&at);
                mesh.workers[at].start(&mesh.site).await?;
                found.restarts += 1;
            }
            if let Some((_, at, kills)) = orchestrators.pop_if(|it| begin.elapsed() >= it.0) {
                self.restart_orchestrator(mesh, at, kills).await?;
                found.orchestrator_restarts += 1;
            }
            look_for_ghosts(mesh, &dead, found).await?;
            if begin.elapsed() >= next_note {
                next_note += Duration::from_secs(60);
                progress(format!(
                    "{:.0} min: {} kills, {} restarts",
                    begin.elapsed().as_secs_f64() / 60.0,
                    found.kills,
                    found.restarts
                ));
            }
            let pause = Duration::from_secs_f64(self.every).saturating_sub(round.elapsed());
            tokio::time::sleep(pause).await;
        }
        // All but a few come back; those few stay dead and must be in no view.
        let stay = dead.len().min(mesh.workers.len() / 20);
        for at in dead.keys().skip(stay) {
            mesh.workers[*at].start(&mesh.site).await?;
            found.restarts += 1;
        }
        Ok(())
    }

    async fn restart_orchestrator(
        &self,
        mesh: &mut Mesh,
        at: usize,
        kills: bool,
    ) -> anyhow::Result<()> {
        let member = &mut mesh.orchestrators[at];
        if kills {
            member.kill().await?;
        } else {
            let mut process = member.process.take().context("it runs")?;
            process.signal(rustix::process::Signal::TERM)?;
            process.ended().await?;
        }
        member.start(&mesh.site).await?;
        progress(format!(
            "orchestrator {at} was {}",
            if kills {
                "killed and restarted"
            } else {
                "stopped and restarted"
            }
        ));
        Ok(())
    }

    /// Nothing changes any more: the views must become equal, and stay without ghosts.
    async fn settle(&self, mesh: &mut Mesh, found: &mut Found) -> anyhow::Result<()> {
        let views = mesh.views()?;
        let living: Vec<String> = (mesh.workers.iter())
            .filter(|it| it.process.is_some())
            .map(|it| it.seat.id.to_hex())
            .collect();
        let begin = Instant::now();
        loop {
            let whole = |fleet: &views::Fleet| {
                let routable = views::routable(fleet);
                routable.len() == living.len() && fleet.len() == living.len()
            };
            let fleets = views.fleets().await?;
            if found.converged.is_none() && fleets.iter().all(whole) {
                let since = begin.elapsed();
                // Whoever goes meanwhile cannot be told of in full.
                let in_full = views.fleets_in_full().await;
                if in_full.is_ok_and(|fleets| views::are_equal(&fleets)) {
                    found.converged = Some(since);
                }
            }
            // Long enough for the last death to have expired everywhere.
            if begin.elapsed() > GHOST_AFTER && found.converged.is_some()
                || begin.elapsed() > CONVERGE_WITHIN
            {
                found.ends = views.fleets_in_full().await?;
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let dead = (mesh.workers.iter()).filter(|it| it.process.is_none());
        for member in dead {
            let id = member.seat.id.to_hex();
            found.ghosts += found
                .ends
                .iter()
                .filter(|fleet| fleet.contains_key(&id))
                .count();
        }
        Ok(())
    }

    /// What a quiet crowd costs: memory, and processor time over ten seconds.
    async fn costs(&self, mesh: &Mesh, found: &mut Found) -> anyhow::Result<()> {
        let pids = |members: &[crate::mesh::Member]| -> Vec<u32> {
            members
                .iter()
                .filter_map(|it| Some(it.process.as_ref()?.pid()))
                .collect()
        };
        let (workers, orchestrators) = (pids(&mesh.workers), pids(&mesh.orchestrators));
        ensure!(!workers.is_empty(), "no worker is left");
        let spent = |pids: &[u32]| {
            pids.iter()
                .map(|pid| cost::spent(*pid))
                .collect::<anyhow::Result<Vec<_>>>()
        };
        let before = (spent(&workers)?, spent(&orchestrators)?);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let after = (spent(&workers)?, spent(&orchestrators)?);
        let shares = |after: Vec<cost::Spent>, before: Vec<cost::Spent>| -> Vec<f64> {
            after
                .iter()
                .zip(&before)
                .map(|(after, before)| after.since(before).process)
                .collect()
        };
        found.worker_cores = shares(after.0, before.0);
        found.orchestrator_cores = shares(after.1, before.1);
        let memory = |pids: &[u32]| {
            pids.iter()
                .map(|pid| Ok(mib(cost::resident_bytes(*pid)?)))
                .collect::<anyhow::Result<Vec<f64>>>()
        };
        let engines: Vec<u32> = workers
            .iter()
            .flat_map(|pid| cost::children(*pid))
            .collect();
        found.worker_mib = memory(&workers)?;
        found.engine_mib = memory(&engines)?;
        found.orchestrator_mib = memory(&orchestrators)?;
        Ok(())
    }
}

/// Counts workers that are shown although they are dead for too long.
async fn look_for_ghosts(
    mesh: &Mesh,
    dead: &BTreeMap<usize, (Instant, Instant)>,
    found: &mut Found,
) -> anyhow::Result<()> {
    let long_dead: Vec<String> = (dead.iter())
        .filter(|(_, (died, _))| died.elapsed() > GHOST_AFTER)
        .map(|(at, _)| mesh.workers[*at].seat.id.to_hex())
        .collect();
    let views: Views = mesh.views()?;
    for fleet in views.fleets().await? {
        found.ghosts += long_dead
            .iter()
            .filter(|id| fleet.contains_key(*id))
            .count();
    }
    found.looks += 1;
    Ok(())
}
