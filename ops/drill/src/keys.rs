//! One client sends one `Idempotency-Key` many times at once, its orchestrator is killed while the
//! answer streams, and the client comes again: one run, one bill, equal answers. (RSV-1, RSV-5, SCH-8)
//!
//! # Layout
//!
//! * `ask` – a request under a key, and all that is told of its answer
//! * `found` – what was measured, as a report

mod ask;
mod found;

use crate::SiteArgs;
use crate::mesh::{EngineSettings, Mesh, PATIENCE, Shape, WorkerSettings};
use crate::report::{Report, progress};
use anyhow::Context as _;
use ask::{Asker, Question, Told};
use clap::Args;
use found::{Form, Found, Key};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Barrier, Notify};
use tokio::task::JoinSet;

/// Orchestrators where they share a store.
const SHARED: usize = 3;
/// Workers: one more than answers that run.
const WORKERS: usize = 2;
/// How often something that is to come is looked for.
const LOOK: Duration = Duration::from_millis(5);

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    /// Keys, one after the other, with each form of the store
    #[arg(long, default_value_t = 20)]
    keys: usize,
    /// Times that a key is sent at once, streamed and not, in turns
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=200))]
    times: u16,
}

/// What many requests under one key were told.
struct Wave {
    told: Vec<Told>,
    /// Whether the kill came when something of the answer was given, and not all of it to anybody.
    struck: bool,
}

impl KeysArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let shared = self.form(site, "three orchestrators, PostgreSQL", SHARED);
        let shared = Box::pin(shared).await?;
        let own = Box::pin(self.form(site, "one orchestrator, SQLite, restarted", 1)).await?;
        let found = Found {
            times: usize::from(self.times),
            forms: vec![shared, own],
        };
        Ok(found.report(WORKERS))
    }

    /// All keys, with one form of the store.
    async fn form(
        &self,
        site: &SiteArgs,
        name: &'static str,
        orchestrators: usize,
    ) -> anyhow::Result<Form> {
        let shape = Shape {
            orchestrators,
            shared_store: orchestrators > 1,
            workers: WORKERS,
            models: 1,
            worker: WorkerSettings {
                slots: 4,
                engine: EngineSettings::Real {
                    processes: 1,
                    threads: 0,
                    hang_ms: 30_000,
                    step_ms: 60_000,
                },
            },
        };
        let mut mesh = Mesh::start(site, &shape).await?;
        let asker = Asker::new(&mesh.gateway_url()?, mesh.api_key())?;
        let mut keys = Vec::new();
        for number in 0..self.keys {
            let question = Question::nth(number);
            let first = self.killed(&mut mesh, &asker, &question).await?;
            mesh.until_ready(&mesh.gateway).await?;
            let again = self.wave(&asker, &question, &Arc::default()).join_all();
            let again = again.await;
            let other = asker.ask(&question.other(), false, &Notify::new()).await;
            keys.push(Key {
                first: first.told,
                struck: first.struck,
                again,
                other,
            });
            if keys.len() % 5 == 0 {
                progress(format!("{name}: {} keys", keys.len()));
            }
        }
        let store = settled(&mesh).await?;
        Ok(Form { name, keys, store })
    }

    /// The key many times at once; its orchestrator is killed while the answer streams, and started
    /// again.
    async fn killed(
        &self,
        mesh: &mut Mesh,
        asker: &Asker,
        question: &Question,
    ) -> anyhow::Result<Wave> {
        let events = Arc::new(Events::default());
        let asking = self.wave(asker, question, &events);
        // Known before the first piece comes: a short answer is soon over.
        let at = owner(mesh, &events.ended).await?;
        tokio::time::timeout(PATIENCE, events.piece.notified())
            .await
            .context("no answer begins")?;
        let victim = &mut mesh.orchestrators[at];
        victim.kill().await?;
        let struck = !events.ended.load(Ordering::SeqCst);
        victim.start(&mesh.site).await?;
        let told = asking.join_all().await;
        Ok(Wave { told, struck })
    }

    /// All of them at once, each second one streamed.
    fn wave(&self, asker: &Asker, question: &Question, events: &Arc<Events>) -> JoinSet<Told> {
        let begin = Arc::new(Barrier::new(usize::from(self.times)));
        let mut asking = JoinSet::new();
        for n in 0..self.times {
            let (asker, question) = (asker.clone(), question.clone());
            let (begin, events) = (begin.clone(), events.clone());
            asking.spawn(async move {
                begin.wait().await;
                let told = asker.ask(&question, n % 2 == 0, &events.piece).await;
                events.ended.store(true, Ordering::SeqCst);
                told
            });
        }
        asking
    }
}

/// What happened to any of the requests.
#[derive(Default)]
struct Events {
    /// The first piece of an answer came.
    piece: Notify,
    /// One of them ended.
    ended: AtomicBool,
}

/// The orchestrator that has the run; any where it is over already.
async fn owner(mesh: &Mesh, ended: &AtomicBool) -> anyhow::Result<usize> {
    let begin = Instant::now();
    loop {
        for (at, orchestrator) in mesh.orchestrators.iter().enumerate() {
            let admin = orchestrator.seat.admin(orchestrator.process()?)?;
            let metrics = admin.metrics().await?;
            let in_flight = metrics.sum("tether_orchestrator_requests_in_flight");
            if in_flight > 0.0 || ended.load(Ordering::SeqCst) {
                return Ok(at);
            }
        }
        anyhow::ensure!(begin.elapsed() < PATIENCE, "nobody has the request");
        tokio::time::sleep(LOOK).await;
    }
}

/// What the store says once no job is open any more.
async fn settled(mesh: &Mesh) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        let store = mesh.store(0).await?;
        if store["open_jobs"] == 0 || began.elapsed() > PATIENCE {
            return Ok(store);
        }
        tokio::time::sleep(LOOK * 100).await;
    }
}
