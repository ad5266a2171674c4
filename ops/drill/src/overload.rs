//! Three times what a fleet can do, for a minute, by two tenants: how much of what it can do comes out
//! of it in time, for whom, and what the others are told. (SCH-5, SCH-7)
//!
//! The echo engine takes a fixed time for each word, so that what the fleet can do is known; it is
//! measured first, by callers who ask anew as soon as they have an answer. Then requests come at their
//! times, whatever became of those before.
//!
//! # Layout
//!
//! * `ask` – one streamed answer, or why there is none
//! * `arrivals` – when requests come
//! * `found` – what was measured, as a report; `needed` – what a refusal should have told

mod arrivals;
mod ask;
mod found;
mod needed;

use crate::SiteArgs;
use crate::load::Question;
use crate::memory::Watch;
use crate::mesh::{EngineSettings, Member, Mesh, Shape, WorkerSettings};
use crate::report::{Report, progress};
use arrivals::Arrivals;
use ask::{Asked, Asker, End};
use clap::Args;
use found::{Crowd, Found, Grown};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Most requests of a tenant under way at once; what comes beyond is held up, and counted.
const MOST_OPEN: usize = 2_048;
/// How often more callers than places ask while it is measured what the fleet can do.
const CALLERS_PER_PLACE: usize = 2;
/// How long that is measured before it counts, and in all.
const WARM: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(15);

/// See [`crate::Drill`].
#[derive(Debug, Args)]
pub(crate) struct OverloadArgs {
    /// Seconds of overload
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    seconds: u64,
    /// Times what the fleet can do
    #[arg(long, default_value_t = 3.0)]
    times: f64,
    /// Workers that there are
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Answers that a worker gives at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: u32,
    /// Words of an answer
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u16).range(1..=500))]
    words: u16,
    /// Milliseconds that the engine takes for a word
    #[arg(long, default_value_t = 20)]
    word_ms: u64,
    /// Weights of the two tenants
    #[arg(long, num_args = 2, default_values_t = [3, 1])]
    weights: Vec<u32>,
    /// Milliseconds after which an answer is of no use to the tenant
    #[arg(long, num_args = 2, default_values_t = [3_000, 6_000])]
    deadlines_ms: Vec<u64>,
    /// Where the times of requests are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A tenant, and the gateway that gives its requests their time.
struct Tenant {
    name: &'static str,
    weight: u32,
    deadline: Duration,
    asker: Asker,
    gateway: Member,
}

impl OverloadArgs {
    pub(crate) async fn run(self, site: &SiteArgs) -> anyhow::Result<Report> {
        let worker = WorkerSettings {
            slots: self.slots,
            engine: EngineSettings::Echo {
                token_ms: self.word_ms,
            },
        };
        let shape = Shape {
            orchestrators: 1,
            shared_store: false,
            workers: usize::from(self.workers),
            models: 1,
            worker,
        };
        let mesh = Mesh::start(site, &shape).await?;
        let mut tenants = Vec::new();
        for (at, name) in ["gold", "bronze"].into_iter().enumerate() {
            tenants.push(self.tenant(&mesh, &worker, name, at).await?);
        }
        let patient = Asker::new(&mesh.gateway_url()?, mesh.api_key())?;
        let capacity = self.capacity(&patient).await;
        progress(format!("{capacity:.1} answers in a second"));
        let mut watches = vec![watch("orchestrator", &mesh.orchestrators[0])?];
        for (name, member) in ["gateway, gold", "gateway, bronze"].iter().zip(&tenants) {
            watches.push(watch(name, &member.gateway)?);
        }
        for (n, worker) in mesh.workers.iter().enumerate() {
            watches.push(watch(&format!("worker {n}"), worker)?);
        }
        let crowds = self.overload(&tenants, capacity).await;
        let grown = watches.into_iter().map(|(name, watch)| Grown {
            name,
            memory: watch.seen(),
        });
        let found = Found {
            capacity,
            crowds,
            grown: grown.collect(),
        };
        Ok(found.report(&self))
    }

    /// One of the tenants.
    async fn tenant(
        &self,
        mesh: &Mesh,
        worker: &WorkerSettings,
        name: &'static str,
        at: usize,
    ) -> anyhow::Result<Tenant> {
        let (weight, deadline_ms) = (self.weights[at], self.deadlines_ms[at]);
        let key = mesh.site.tenant(name, weight).await?;
        let settings = format!("request_timeout_ms = {deadline_ms}\n");
        let gateway = mesh.further_gateway(name, worker, &settings).await?;
        let url = gateway.process()?.said("gateway")?;
        let asker = Asker::new(&url, &key)?;
        asker.until_known().await?;
        Ok(Tenant {
            name,
            weight,
            deadline: Duration::from_millis(deadline_ms),
            asker,
            gateway,
        })
    }

    fn question(&self) -> Question {
        Question::echo(usize::from(self.words))
    }

    /// Whole answers in a second while there is always somebody who waits.
    async fn capacity(&self, asker: &Asker) -> f64 {
        let places = usize::from(self.workers) * usize::try_from(self.slots).unwrap_or(usize::MAX);
        let (began, mut callers) = (Instant::now(), JoinSet::new());
        for _ in 0..places * CALLERS_PER_PLACE {
            let (asker, question) = (asker.clone(), self.question());
            callers.spawn(async move {
                let mut whole = 0_u32;
                while began.elapsed() < MEASURED {
                    let asked = asker.ask(&question).await;
                    let counts = (WARM..MEASURED).contains(&(asked.at + asked.took - began));
                    whole += u32::from(counts && asked.end == End::Whole);
                }
                whole
            });
        }
        let whole: u32 = callers.join_all().await.into_iter().sum();
        f64::from(whole) / (MEASURED - WARM).as_secs_f64()
    }

    /// All requests of both, at their times.
    async fn overload(&self, tenants: &[Tenant], capacity: f64) -> Vec<Crowd> {
        let began = Instant::now();
        let each = capacity * self.times / 2.0;
        let crowds = tenants.iter().zip(0_u64..).map(|(tenant, nth)| async move {
            let rng = StdRng::seed_from_u64(self.seed.wrapping_mul(2).wrapping_add(nth));
            let arrivals = Arrivals::new(each, Duration::from_secs(self.seconds), rng);
            let (asked, held_up) = self.ask_all(tenant, arrivals, began).await;
            Crowd {
                name: tenant.name,
                weight: tenant.weight,
                deadline: tenant.deadline,
                began,
                lasted: Duration::from_secs(self.seconds),
                asked,
                held_up,
            }
        });
        futures_util::future::join_all(crowds).await
    }

    /// What became of each, and how many were held up here.
    async fn ask_all(
        &self,
        tenant: &Tenant,
        arrivals: Arrivals,
        began: Instant,
    ) -> (Vec<Asked>, usize) {
        let room = Arc::new(Semaphore::new(MOST_OPEN));
        let (mut asking, mut asked, mut held_up) = (JoinSet::new(), Vec::new(), 0);
        let question = Arc::new(self.question());
        for after in arrivals {
            tokio::time::sleep_until((began + after).into()).await;
            while let Some(done) = asking.try_join_next() {
                asked.extend(done.ok());
            }
            let Ok(place) = room.clone().try_acquire_owned() else {
                held_up += 1;
                continue;
            };
            let (asker, question) = (tenant.asker.clone(), question.clone());
            asking.spawn(async move {
                let one = asker.ask(&question).await;
                drop(place);
                one
            });
        }
        asked.extend(asking.join_all().await);
        (asked, held_up)
    }
}

fn watch(name: &str, member: &Member) -> anyhow::Result<(String, Watch)> {
    let watch = Watch::start(member.process()?.pid());
    Ok((name.to_owned(), watch))
}
