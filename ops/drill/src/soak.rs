//! Thousands of mixed requests against one worker: none of its processes restarts, none grows, and
//! every answer is whole or explicitly failed. (WRK-1, WRK-2)
//!
//! # Layout
//!
//! * `mix` – what is asked, by a seed
//! * `ask` – asking it, hanging up, and what came of it
//! * `answer` – responses and streams, as they are written
//! * `expect` – what is right to come
//! * `found` – what was found, as a report

mod answer;
mod ask;
mod expect;
mod found;
mod mix;

use crate::SiteArgs;
use crate::cost;
use crate::memory::Watch;
use crate::mesh::{EngineSettings, MODEL, Mesh, PATIENCE, Shape, WorkerSettings};
use crate::report::{Report, progress};
use anyhow::{Context, ensure};
use ask::Caller;
use clap::Args;
use found::{Found, Grown};
use mix::Mix;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tether_net::testing;
use tether_wire::Role;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often it is told how far it is, in requests.
const TOLD: usize = 500;
/// Pause between two looks whether the worker is ready.
const LOOK: Duration = Duration::from_millis(50);
/// Slots of the worker. Whoever asks for several answers holds several, and whoever hung up holds
/// one until the engine stopped.
const SLOTS: u32 = 32;

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// Requests in all
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
    /// Requests at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    at_once: u16,
    /// Processes of the engine
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    processes: u16,
    /// Seed of the mix
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A worker and the processes of its engine.
struct Processes {
    worker: u32,
    engines: Vec<u32>,
}

impl SoakArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shape = Shape {
            orchestrators: 1,
            shared_store: false,
            workers: 1,
            models: 1,
            worker: WorkerSettings {
                slots: SLOTS,
                engine: EngineSettings::Real {
                    processes: self.processes,
                    threads: 0,
                    hang_ms: 10_000,
                    step_ms: 30_000,
                },
            },
        };
        let mesh = Mesh::start(site, &shape).await?;
        let processes = Processes::of(&mesh, self.processes).await?;
        let engines = processes.engines.iter().zip(1..);
        let engines = engines.map(|(pid, n)| (format!("engine, process {n}"), *pid, true));
        let orchestrator = mesh.orchestrators[0].process()?.pid();
        let gateway = mesh.gateway.process()?.pid();
        let watches: Vec<_> = [("worker".to_owned(), processes.worker, true)]
            .into_iter()
            .chain(engines)
            .chain([
                ("orchestrator".to_owned(), orchestrator, false),
                ("gateway".to_owned(), gateway, false),
            ])
            .map(|(name, pid, promised)| (name, Watch::start(pid), promised))
            .collect();
        let mut found = self.soak(&mesh).await?;
        found.processes = watches
            .into_iter()
            .map(|(name, watch, promised)| Grown {
                name,
                memory: watch.seen(),
                promised,
            })
            .collect();
        found.restarts = processes.changes(&mesh)?;
        Ok(found.report(&self))
    }

    /// Asks everything.
    async fn soak(&self, mesh: &Mesh) -> anyhow::Result<Found> {
        let (node, _) = mesh.site.local.config(testing::key(), Role::Worker);
        let caller = Caller::new(&mesh.gateway_url()?, mesh.api_key(), node.members.mesh())?;
        let (caller, next) = (Arc::new(caller), Arc::new(AtomicUsize::new(0)));
        let (mix, requests) = (Mix::new(self.seed, MODEL), self.requests);
        let (ended, mut ends) = mpsc::channel(usize::from(self.at_once));
        let mut callers = JoinSet::new();
        let at = Instant::now();
        for _ in 0..self.at_once {
            let (caller, next, ended) = (caller.clone(), next.clone(), ended.clone());
            callers.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        return;
                    }
                    let request = mix.request(number);
                    let (end, took) = caller.ask(&request).await;
                    if ended.send((request.kind, end, took)).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop(ended);
        let (mut found, mut count) = (Found::default(), 0);
        while let Some((kind, end, took)) = ends.recv().await {
            found.add(kind, &end, took);
            count += 1;
            if count % TOLD == 0 {
                let s = at.elapsed().as_secs_f64();
                progress(format!("{count} of {requests} requests after {s:.0} s"));
            }
        }
        while let Some(caller) = callers.join_next().await {
            caller.context("a caller of the drill")?;
        }
        found.took = at.elapsed();
        found.different = caller.different();
        Ok(found)
    }
}

impl Processes {
    /// Waits until they are all there.
    async fn of(mesh: &Mesh, engines: u16) -> anyhow::Result<Self> {
        let worker = mesh.workers[0].process()?.pid();
        let begin = Instant::now();
        while loads(mesh)? < usize::from(engines) {
            ensure!(
                begin.elapsed() < PATIENCE,
                "the worker has not loaded its model in all its processes"
            );
            tokio::time::sleep(LOOK).await;
        }
        let children = cost::children(worker);
        ensure!(
            children.len() == usize::from(engines),
            "the worker has {} children, not its engine's {engines} alone",
            children.len()
        );
        Ok(Self {
            worker,
            engines: children,
        })
    }

    /// How they are not what they were.
    fn changes(&self, mesh: &Mesh) -> anyhow::Result<Vec<String>> {
        let mut changes = Vec::new();
        if cost::resident_bytes(self.worker).is_err() {
            changes.push("the worker is gone".to_owned());
        }
        let children = cost::children(self.worker);
        if children != self.engines {
            changes.push(format!(
                "the engine was {:?}, now {children:?}",
                self.engines
            ));
        }
        // One that went and came back in between would have been logged.
        let loads = loads(mesh)?;
        if loads != self.engines.len() {
            changes.push(format!("the model was loaded {loads} times"));
        }
        Ok(changes)
    }
}

/// How often the worker loaded its model, in each of its processes.
fn loads(mesh: &Mesh) -> anyhow::Result<usize> {
    let log = std::fs::read_to_string(mesh.workers[0].seat.log())?;
    let loads = log.lines().filter(|it| it.contains("\"model loaded\""));
    Ok(loads.count())
}
