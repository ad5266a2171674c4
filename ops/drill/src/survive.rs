//! Workers, or orchestrators, are killed under load and restarted: every answer is the one that an
//! undisturbed mesh gives, and its caller sees a pause at most. (SCH-8, REL-1)
//!
//! # Layout
//!
//! * `ask` – one streamed answer, with the times of its pieces
//! * `found` – what was measured, as a report

mod ask;
mod found;

use crate::SiteArgs;
use crate::mesh::{EngineSettings, Member, Mesh, PATIENCE, Shape, WorkerSettings};
use crate::report::{Report, progress};
use anyhow::Context as _;
use ask::{Asker, Question, Told};
use clap::{Args, ValueEnum};
use found::Found;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct SurviveArgs {
    /// Streamed requests
    #[arg(long, default_value_t = 1_000)]
    requests: usize,
    /// What is killed by `kill -9`, one after the other, and restarted
    #[arg(long, value_enum, default_value_t = Victims::Workers)]
    kill: Victims,
    /// Milliseconds from one kill to the next
    #[arg(long, default_value_t = 2_000)]
    every_ms: u64,
    /// Requests under way at once
    #[arg(long, default_value_t = 6)]
    open: usize,
    /// Workers that there are
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=64))]
    workers: u16,
}

/// What dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Victims {
    Workers,
    Orchestrators,
}

impl Victims {
    /// Orchestrators that are needed.
    fn orchestrators(self) -> usize {
        match self {
            Self::Workers => 1,
            Self::Orchestrators => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Workers => "worker",
            Self::Orchestrators => "orchestrator",
        }
    }
}

impl SurviveArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shape = Shape {
            orchestrators: self.kill.orchestrators(),
            shared_store: self.kill == Victims::Orchestrators,
            workers: usize::from(self.workers),
            models: 1,
            worker: WorkerSettings {
                slots: 8,
                engine: EngineSettings::Real {
                    // Places for one more than are under way, also while one worker is dead.
                    processes: 2,
                    // All workers share one machine: more threads would wait for each other.
                    threads: 1,
                    hang_ms: 30_000,
                    step_ms: 60_000,
                },
            },
        };
        let mut mesh = Mesh::start(site, &shape).await?;
        let asker = Asker::new(&mesh.gateway_url()?, mesh.api_key())?;
        let questions: Arc<Vec<Question>> =
            Arc::new((0..self.requests).map(Question::nth).collect());
        let undisturbed = self.ask_all(&asker, &questions, &AtomicUsize::new(0)).await;
        progress(format!(
            "{} answers of an undisturbed mesh",
            undisturbed.len()
        ));
        let answered = AtomicUsize::new(0);
        let asked = self.ask_all(&asker, &questions, &answered);
        tokio::pin!(asked);
        let mut kills = Vec::new();
        let mut every = tokio::time::interval(Duration::from_millis(self.every_ms));
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        every.tick().await;
        let disturbed = loop {
            tokio::select! {
                told = &mut asked => break told,
                _ = every.tick() => {}
            }
            let (victim, at) = self.victim(&mut mesh, kills.len());
            kills.push(Instant::now());
            victim.kill().await?;
            // It comes back while the load goes on.
            let site = &mesh.site;
            let victim = match self.kill {
                Victims::Workers => &mut mesh.workers[at],
                Victims::Orchestrators => &mut mesh.orchestrators[at],
            };
            tokio::select! {
                told = &mut asked => break told,
                started = victim.start(site) => started?,
            }
            if kills.len() % 20 == 0 {
                let answered = answered.load(Ordering::Relaxed);
                progress(format!("{} kills, {answered} answers", kills.len()));
            }
        };
        let found = Found {
            undisturbed,
            disturbed,
            kills,
            store: self.settled(&mesh).await?,
        };
        Ok(found.report(&self))
    }

    /// What the store says once no job is open any more, which those are for a while that nobody came
    /// for again.
    async fn settled(&self, mesh: &Mesh) -> anyhow::Result<Value> {
        let running = mesh
            .orchestrators
            .iter()
            .position(|it| it.process.is_some());
        let running = running.context("no orchestrator runs")?;
        let began = Instant::now();
        loop {
            let store = mesh.store(running).await?;
            if store["open_jobs"] == 0 || began.elapsed() > PATIENCE {
                return Ok(store);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// All of them, some at a time; each with its question's number.
    async fn ask_all(
        &self,
        asker: &Asker,
        questions: &Arc<Vec<Question>>,
        answered: &AtomicUsize,
    ) -> Vec<Told> {
        let room = Arc::new(Semaphore::new(self.open));
        let mut asking = JoinSet::new();
        let mut told: Vec<Option<Told>> = vec![None; questions.len()];
        for number in 0..questions.len() {
            let Ok(place) = room.clone().acquire_owned().await else {
                break;
            };
            while let Some(done) = asking.try_join_next() {
                take(&mut told, done, answered);
            }
            let (asker, questions) = (asker.clone(), questions.clone());
            asking.spawn(async move {
                let one = asker.ask(&questions[number]).await;
                drop(place);
                (number, one)
            });
        }
        while let Some(done) = asking.join_next().await {
            take(&mut told, done, answered);
        }
        told.into_iter().map(Option::unwrap_or_default).collect()
    }

    fn victim<'a>(&self, mesh: &'a mut Mesh, nth: usize) -> (&'a mut Member, usize) {
        let all = match self.kill {
            Victims::Workers => &mut mesh.workers,
            Victims::Orchestrators => &mut mesh.orchestrators,
        };
        let at = nth % all.len();
        (&mut all[at], at)
    }
}

fn take(
    told: &mut [Option<Told>],
    done: Result<(usize, Told), tokio::task::JoinError>,
    answered: &AtomicUsize,
) {
    if let Ok((number, one)) = done {
        told[number] = Some(one);
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
