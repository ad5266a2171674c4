//! Drives an orchestrator's intake and fleet with a population.

use super::measure::{percentile, time_on_core};
use super::population::{Population, Sealed, now_ms};
use super::round::{PUSHES, Round};
use anyhow::{Context, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use std::time::{Duration, Instant};
use tether_orchestrator::discovery::judge;
use tether_orchestrator::fleet::keeper::{Fleet, FleetSettings, Outgoing};
use tether_orchestrator::place::{Query, place};
use tether_orchestrator::placement::Placement;
use tether_orchestrator::warmth::Warm;
use tether_presence::{Event, Input, Settings, Signatures};
use tether_telemetry::metrics::{OrchestratorMetrics, Registry};
use tether_wire::beat::NodeState;
use tether_wire::spread::Batch;
use tether_wire::{Digest, Membership, NodeId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Lookups that are timed in a fleet.
const LOOKUPS: usize = 100_000;
/// Rounds of heartbeats that are taken in and verified in turns. Each takes long enough for the
/// keeper to do what it does from time to time.
const ROUNDS: usize = 8;
/// Time for the keeper to do what is due.
const PAUSE: Duration = Duration::from_millis(300);
/// Changes that are published, one after the other.
const PUBLISHED: usize = 15;
/// What is silent for longer than this would be doubted, and a benchmark has not a hundred thousand
/// machines to beat with: meanwhile the last beats come again, as they would over lively links.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const MARGIN: usize = 1_024;

/// A fleet under load.
pub(super) struct Load {
    population: Population,
    verifier: Signatures,
    fleet: Fleet,
    /// Held open; nobody is linked.
    _outgoing: mpsc::Receiver<Outgoing>,
    registry: Registry,
    /// Each worker that is there and the card that it showed.
    workers: Vec<(NodeId, Digest)>,
    seq: u64,
    round: Round,
    kept_alive: Instant,
    rng: StdRng,
}

/// Lookups of one fleet.
pub(super) struct Times {
    pub(super) lookup_p50_us: f64,
    pub(super) lookup_p99_us: f64,
    pub(super) place_p99_us: f64,
}

/// How many in a second.
pub(super) struct Rates {
    pub(super) accepted_per_s: u64,
    pub(super) verified_per_s: u64,
}

impl Rates {
    #[expect(clippy::cast_precision_loss, reason = "some ten thousand in a second")]
    pub(super) fn ratio(&self) -> f64 {
        let ratio = self.accepted_per_s as f64 / self.verified_per_s as f64;
        (ratio * 1e3).round() / 1e3
    }
}

impl Load {
    pub(super) fn start(population: Population, workers: usize) -> Self {
        let registry = Registry::new();
        let (fleet, outgoing) = Fleet::start(FleetSettings {
            id: NodeId([1; 32]),
            presence: Settings {
                max_nodes: workers + MARGIN,
                ..Settings::default()
            },
            placement: Placement::default().in_force(),
            seed: 1,
            metrics: OrchestratorMetrics::register(&registry),
            stop: CancellationToken::new(),
        });
        Self {
            verifier: Signatures {
                members: Membership::new(population.mesh()).into(),
            },
            population,
            fleet,
            _outgoing: outgoing,
            registry,
            workers: Vec::with_capacity(workers),
            seq: 1,
            round: Round::new(),
            kept_alive: Instant::now(),
            rng: StdRng::seed_from_u64(1),
        }
    }

    /// Touches what is set up once: tables of the curve, the queue, a page of this and that.
    pub(super) async fn warm_up(&mut self) -> anyhow::Result<()> {
        let (first, goodbye) = (self.join(0)?, NodeState::Leaving);
        let card = self.workers.pop().context("it joined")?.1;
        let again = self.population.push(0, 2, goodbye, card, None)?;
        self.take_in(&[first, again]).await?;
        self.seq = 3;
        Ok(())
    }

    /// Lets workers join until there are so many.
    pub(super) async fn grow_to(&mut self, size: usize) -> anyhow::Result<()> {
        while self.workers.len() < size {
            let some = (size - self.workers.len()).min(256);
            for _ in 0..some {
                let joins = self.join(self.workers.len())?;
                self.take_in(&[joins]).await?;
            }
            self.keep_alive().await;
        }
        self.settle().await?;
        // The keeper has its own pace of publishing and ranking.
        let mut rounds = 0;
        while self.fleet.snapshot().len() < size {
            tokio::time::sleep(Duration::from_millis(20)).await;
            rounds += 1;
            ensure!(rounds < 500, "not all workers were taken in");
        }
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        self.keep_alive().await;
        Ok(())
    }

    fn join(&mut self, n: usize) -> anyhow::Result<Sealed> {
        let card = self.population.card(n)?;
        let digest = Digest::of(card.as_bytes());
        let (seq, serving) = (self.seq, NodeState::Serving);
        let push = (self.population).push(n, seq, serving, digest, Some(&card))?;
        self.workers.push((push.worker, digest));
        Ok(push)
    }

    async fn take_in(&self, pushes: &[Sealed]) -> anyhow::Result<()> {
        for push in pushes {
            self.take(push.worker, &push.item).await?;
        }
        Ok(())
    }

    /// The way of each push from its link into the fleet.
    async fn take(&self, worker: NodeId, item: &[u8]) -> anyhow::Result<()> {
        match judge(item, worker, &self.verifier, now_ms()) {
            Ok((event, None)) => self.fleet.tell(Input::Own(event)).await,
            Ok((_, Some(reason))) | Err(reason) => bail!("refused: {}", reason.as_str()),
        }
        Ok(())
    }

    /// Waits until everything that was told is in the fleet.
    async fn settle(&self) -> anyhow::Result<()> {
        let sifted = self.fleet.sift(Batch::default()).await;
        sifted.map(drop).context("the keeper ended")
    }

    async fn keep_alive(&mut self) {
        if self.kept_alive.elapsed() < KEEP_ALIVE {
            return;
        }
        self.kept_alive = Instant::now();
        for (worker, _) in &self.workers {
            let again = Event::Again(*worker);
            self.fleet.tell(Input::Own(again)).await;
        }
    }

    fn accepted(&self) -> anyhow::Result<usize> {
        let text = self.registry.encode();
        let name = "tether_orchestrator_heartbeats_accepted_total ";
        let count = text.lines().find_map(|line| line.strip_prefix(name));
        Ok(count.context("the count of heartbeats")?.parse()?)
    }

    /// Looks for workers for requests for any model, from any region.
    pub(super) async fn lookups(&mut self) -> anyhow::Result<Times> {
        let (placement, cold) = (Placement::default(), Warm::default());
        let (mut lookups, mut places) = (Vec::new(), Vec::new());
        for n in 0..LOOKUPS {
            if n % 10_000 == 0 {
                self.keep_alive().await;
                self.settle().await?;
            }
            let (model, digest) = self.population.model(self.rng.random_range(0..1_000))?;
            let region = self.population.region(self.rng.random_range(0..1_000))?;
            let query = Query {
                region: &region,
                gpu_class: None,
                numerics_class: None,
                orchestrators: 1,
                now_mono_ms: 0,
                left_at: None,
            };
            let begun = Instant::now();
            let fleet = self.fleet.snapshot();
            let found = fleet.candidates((&model, &digest), &region, &cold, &mut self.rng);
            let took = begun.elapsed();
            ensure!(!found.is_empty(), "nobody serves {model}");
            let ranked = place(found, &query, &placement, &mut self.rng);
            let in_all = begun.elapsed();
            black_box(ranked);
            lookups.push(took.as_secs_f64() * 1e6);
            places.push(in_all.as_secs_f64() * 1e6);
        }
        Ok(Times {
            lookup_p50_us: rounded(percentile(&mut lookups, 50)),
            lookup_p99_us: rounded(percentile(&mut lookups, 99)),
            place_p99_us: rounded(percentile(&mut places, 99)),
        })
    }

    /// Lets one worker in a hundred change its state, and waits until readers see it. The median,
    /// in milliseconds on the core.
    pub(super) async fn publish(&mut self) -> anyhow::Result<f64> {
        let step = 100;
        let mut samples = Vec::new();
        for round in 0..PUBLISHED {
            self.seq += 1;
            let state = [NodeState::Draining, NodeState::Serving][round % 2];
            let mut events = Vec::new();
            for n in (0..self.workers.len()).step_by(step) {
                let card = self.workers[n].1;
                let push = self.population.push(n, self.seq, state, card, None)?;
                let judged = judge(&push.item, push.worker, &self.verifier, now_ms());
                events.push(judged.map_err(|it| anyhow::anyhow!("{}", it.as_str()))?.0);
            }
            self.keep_alive().await;
            // Until the keeper is quiet and may publish at once.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let last = self.workers.len().saturating_sub(1) / step * step;
            let last = self.workers[last].0;
            let begun = time_on_core();
            for event in events {
                self.fleet.tell(Input::Own(event)).await;
            }
            let is_seen = |fleet: &Fleet| {
                let snapshot = fleet.snapshot();
                (snapshot.worker(&last)).is_some_and(|worker| worker.state == state)
            };
            let mut changes = self.fleet.changes();
            while !is_seen(&self.fleet) {
                changes.changed().await?;
            }
            samples.push((time_on_core() - begun).as_secs_f64() * 1e3);
        }
        Ok(rounded(percentile(&mut samples, 50)))
    }

    /// Takes heartbeats in and verifies the same ones bare, in turns.
    pub(super) async fn heartbeats(&mut self) -> anyhow::Result<Rates> {
        let (mut taking, mut verifying) = (Duration::ZERO, Duration::ZERO);
        for round in 0..ROUNDS {
            self.prepare(round)?;
            self.keep_alive().await;
            tokio::time::sleep(PAUSE).await;
            self.settle().await?;
            let before = self.accepted()?;

            let begun = time_on_core();
            let good = self.round.verify_bare();
            verifying += time_on_core() - begun;
            ensure!(good == self.round.len(), "a signature is wrong");

            let begun = time_on_core();
            for (worker, item) in self.round.items() {
                self.take(worker, item).await?;
            }
            self.settle().await?;
            taking += time_on_core() - begun;
            let accepted = self.accepted()? - before;
            ensure!(accepted == PUSHES, "only {accepted} were accepted");
        }
        let per_s = |took: Duration| -> anyhow::Result<u64> {
            let nanos = u64::try_from(took.as_nanos())?.max(1);
            Ok(u64::try_from(ROUNDS * PUSHES)? * 1_000_000_000 / nanos)
        };
        Ok(Rates {
            accepted_per_s: per_s(taking)?,
            verified_per_s: per_s(verifying)?,
        })
    }

    /// The next beats of so many workers, one after the other.
    fn prepare(&mut self, round: usize) -> anyhow::Result<()> {
        self.round.clear();
        let mesh = self.population.mesh().id;
        for n in (0..PUSHES).map(|n| round * PUSHES + n) {
            self.seq += 1;
            let worker = n % self.workers.len();
            let (seq, card) = (self.seq, self.workers[worker].1);
            let push = (self.population).push(worker, seq, NodeState::Serving, card, None)?;
            self.round.add(&push, &mesh)?;
        }
        Ok(())
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
