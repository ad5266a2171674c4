//! Thousands of mixed requests against one worker: none of its processes restarts, none grows, and
//! every answer is whole or explicitly failed. (WRK-1, WRK-2)
//!
//! # Layout
//!
//! * `mix` – what is asked, by a seed
//! * `ask` – asking it, hanging up, and what came of it
//! * `answer` – responses and streams, as they are written
//! * `expect` – what is right to come
//! * `memory` – whether memory is flat
//! * `found` – what was found, as a report

mod answer;
mod ask;
mod expect;
mod found;
mod memory;
mod mix;

use crate::SiteArgs;
use crate::cost;
use crate::mesh::{EngineSettings, MODEL, Mesh, Shape, WorkerSettings};
use crate::report::{Report, progress};
use anyhow::{Context, ensure};
use ask::Caller;
use clap::Args;
use found::{Found, Grown};
use memory::Watch;
use mix::Mix;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tether_net::testing;
use tether_wire::Role;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How often it is told how far it is, in requests.
const TOLD: usize = 500;
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
    /// Seed of the mix
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A worker and its engine, as processes.
struct Processes {
    worker: u32,
    engine: u32,
}

impl SoakArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shape = Shape {
            orchestrators: 1,
            workers: 1,
            models: 1,
            worker: WorkerSettings {
                slots: SLOTS,
                engine: EngineSettings::Real {
                    hang_ms: 10_000,
                    step_ms: 30_000,
                },
            },
        };
        let mesh = Mesh::start(site, &shape).await?;
        let processes = Processes::of(&mesh)?;
        let watches = [
            ("worker", processes.worker, true),
            ("engine", processes.engine, true),
            (
                "orchestrator",
                mesh.orchestrators[0].process()?.pid(),
                false,
            ),
            ("gateway", mesh.gateway.process()?.pid(), false),
        ]
        .map(|(name, pid, promised)| (name, Watch::start(pid), promised));
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
    fn of(mesh: &Mesh) -> anyhow::Result<Self> {
        let worker = mesh.workers[0].process()?.pid();
        let children = cost::children(worker);
        ensure!(
            children.len() == 1,
            "the worker has {} children, not its engine alone",
            children.len()
        );
        Ok(Self {
            worker,
            engine: children[0],
        })
    }

    /// How they are not what they were.
    fn changes(&self, mesh: &Mesh) -> anyhow::Result<Vec<String>> {
        let mut changes = Vec::new();
        if cost::resident_bytes(self.worker).is_err() {
            changes.push("the worker is gone".to_owned());
        }
        let children = cost::children(self.worker);
        if children != [self.engine] {
            changes.push(format!("the engine was {}, now {children:?}", self.engine));
        }
        // One that went and came back in between would have been logged.
        let log = std::fs::read_to_string(mesh.workers[0].seat.log())?;
        let loads = log
            .lines()
            .filter(|it| it.contains("\"model loaded\""))
            .count();
        if loads != 1 {
            changes.push(format!("the model was loaded {loads} times"));
        }
        Ok(changes)
    }
}
