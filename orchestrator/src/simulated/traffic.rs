//! Requests over simulated time: what orchestrators know is as old as the last beats, what workers
//! keep is bounded, and what comes of a way to place is counted.

use super::crowd::{Crowd, Shape};
use crate::fleet::{InFlight, Snapshot};
use crate::placement::Placement;
use crate::warmth::{Warm, Warmth};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use tether_wire::TenantId;
use tether_wire::beat::BEAT_INTERVAL_MS;
use tether_wire::infer::{Input, Output, PREFIX_BLOCK_BYTES, Prefix};

/// Blocks of a beginning that many prompts share.
const SHARED_BLOCKS: usize = 8;
/// Blocks of a prompt behind it, which no other has.
const OWN_BLOCKS: usize = 2;
/// How often an orchestrator ranks.
const RANK_MS: u64 = 500;
/// Mean time of an answer, whether its beginning was warm or not, so that loads can be compared.
const ANSWER_MS: f64 = 2_000.0;
/// Requests of a hundred that are not counted: workers and orchestrators begin with nothing.
const WARM_UP_PERCENT: usize = 20;

/// How requests are placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Anywhere.
    Random,
    /// Where the last beat said that there is the least to do, and nothing else.
    Beats,
    /// Each beginning always at the same worker, whatever that has to do.
    Pure,
    /// As dispatch does, without a weight of the prefix.
    Load,
    /// As dispatch does.
    Affinity,
}

/// Requests over a fleet.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Orchestrators, each of which knows of its own requests alone.
    pub orchestrators: usize,
    /// Whether requests that begin alike come to the same one, as gateways have it; else each gets as
    /// many.
    pub by_beginning: bool,
    /// Workers.
    pub workers: usize,
    /// Requests that a worker runs at once.
    pub slots: u32,
    /// Requests under way on average, of a hundred slots.
    pub busy_percent: u32,
    /// Beginnings of prompts, the n-th in proportion to 1 / n.
    pub beginnings: usize,
    /// Beginnings that a worker keeps warm, the last ones.
    pub kept: usize,
    /// Requests.
    pub requests: usize,
    /// From which everything is drawn.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Share of the requests whose beginning was warm where they went.
    pub warm: f64,
    /// Requests of the worker that got most, as a multiple of the mean.
    pub hottest_requests: f64,
    /// Load of the worker that has most, as a multiple of the mean, on average over the requests.
    pub hottest_load: f64,
    /// Share of the requests that found no free slot where they went.
    pub waited: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Comes,
    Ends { request: usize, worker: usize },
    Beats { worker: usize },
    Ranks,
}

struct Worker {
    load: u32,
    requests: usize,
    /// What it keeps, the last one last.
    kept: VecDeque<usize>,
}

struct Orchestrator {
    crowd: Crowd,
    fleet: Snapshot,
    warmth: Warmth,
    said: Vec<u32>,
}

struct Run<'a> {
    traffic: &'a Traffic,
    policy: Policy,
    placement: Placement,
    rng: StdRng,
    workers: Vec<Worker>,
    orchestrators: Vec<Orchestrator>,
    /// Of the requests under way.
    guards: HashMap<usize, InFlight>,
    /// By microseconds, and in the order in which they were made.
    events: BinaryHeap<Reverse<(u64, usize, Event)>>,
    made: usize,
    came: usize,
    zipf: Vec<f64>,
    warm: usize,
    waited: usize,
    hottest: f64,
    mean: f64,
}

impl Traffic {
    /// Lets the requests come, and counts.
    #[must_use]
    pub fn run(&self, policy: Policy, placement: &Placement) -> Outcome {
        let mut placement = placement.clone();
        if policy == Policy::Load {
            placement.weights.prefix = 0.0;
        }
        let mut run = Run::new(self, policy, placement);
        while run.came < self.requests {
            let Some(Reverse((at_us, _, event))) = run.events.pop() else {
                break;
            };
            run.take(at_us, event);
        }
        run.outcome()
    }
}

impl<'a> Run<'a> {
    fn new(traffic: &'a Traffic, policy: Policy, placement: Placement) -> Self {
        let shape = Shape {
            workers: traffic.workers,
            artifacts: 1,
            regions: 1,
            slots: traffic.slots,
        };
        let among = u32::try_from(traffic.orchestrators).unwrap_or(u32::MAX);
        let orchestrators = (0..traffic.orchestrators).map(|n| {
            let crowd = Crowd::new(shape, &placement, n as u64 + traffic.seed).among(among);
            // The beginning that comes most often was somewhere already, and all of them know where.
            let mut warmth = Warmth::default();
            let home = crowd.home(crowd.id(0));
            warmth.sent(&crowd.artifact(0), &prompt(0, 0), home, 0);
            Orchestrator {
                fleet: crowd.snapshot(),
                crowd,
                warmth,
                said: vec![0; traffic.workers],
            }
        });
        let worker = || Worker {
            load: 0,
            requests: 0,
            kept: VecDeque::new(),
        };
        let mut sum = 0.0;
        let zipf = (1..=traffic.beginnings).map(|n| {
            sum += 1.0 / n as f64;
            sum
        });
        let mut run = Self {
            zipf: zipf.collect(),
            orchestrators: orchestrators.collect(),
            workers: std::iter::repeat_with(worker)
                .take(traffic.workers)
                .collect(),
            rng: StdRng::seed_from_u64(traffic.seed),
            traffic,
            policy,
            placement,
            guards: HashMap::new(),
            events: BinaryHeap::new(),
            made: 0,
            came: 0,
            warm: 0,
            waited: 0,
            hottest: 0.0,
            mean: 0.0,
        };
        run.later(0, Event::Comes);
        run.later(0, Event::Ranks);
        for worker in 0..traffic.workers {
            // Beats are spread over their interval.
            let at_us = run.rng.random_range(0..BEAT_INTERVAL_MS * 1_000);
            run.later(at_us, Event::Beats { worker });
        }
        run
    }

    fn later(&mut self, at_us: u64, event: Event) {
        self.made += 1;
        self.events.push(Reverse((at_us, self.made, event)));
    }

    fn take(&mut self, at_us: u64, event: Event) {
        match event {
            Event::Comes => {
                self.comes(at_us);
                let slots = self.traffic.workers as f64 * f64::from(self.traffic.slots);
                let busy = slots * f64::from(self.traffic.busy_percent) / 100.0;
                let next_us = self.exponential_us(ANSWER_MS / busy);
                self.later(at_us + next_us, Event::Comes);
            }
            Event::Ends { request, worker } => {
                self.guards.remove(&request);
                self.workers[worker].load -= 1;
            }
            Event::Beats { worker } => {
                let load = self.workers[worker].load;
                for it in &mut self.orchestrators {
                    it.crowd.says(worker, load, at_us / 1_000);
                    it.said[worker] = load;
                }
                self.later(at_us + BEAT_INTERVAL_MS * 1_000, event);
            }
            Event::Ranks => {
                for it in &mut self.orchestrators {
                    it.crowd.rank(at_us / 1_000);
                    it.fleet = it.crowd.snapshot();
                }
                self.later(at_us + RANK_MS * 1_000, event);
            }
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "some seconds"
    )]
    fn exponential_us(&mut self, mean_ms: f64) -> u64 {
        let drawn: f64 = self.rng.random();
        (-(1.0 - drawn).ln() * mean_ms * 1_000.0) as u64
    }

    fn comes(&mut self, at_us: u64) {
        let (request, counts) = (self.came, self.counts());
        self.came += 1;
        let drawn = self.rng.random::<f64>() * self.zipf.last().copied().unwrap_or_default();
        let beginning = self.zipf.partition_point(|sum| *sum < drawn);
        let comes_by = if self.traffic.by_beginning {
            spread(beginning)
        } else {
            request
        };
        let by = comes_by % self.orchestrators.len();
        let worker = self.place(by, beginning, at_us / 1_000);
        if counts {
            let loads = self.workers.iter().map(|it| it.load);
            self.hottest += f64::from(loads.clone().max().unwrap_or_default());
            self.mean += f64::from(loads.sum::<u32>()) / self.workers.len() as f64;
            self.workers[worker].requests += 1;
            self.warm += usize::from(self.workers[worker].kept.contains(&beginning));
            self.waited += usize::from(self.workers[worker].load >= self.traffic.slots);
        }
        let it = &mut self.workers[worker];
        it.load += 1;
        it.kept.retain(|kept| *kept != beginning);
        it.kept.push_back(beginning);
        if it.kept.len() > self.traffic.kept {
            it.kept.pop_front();
        }
        if let Some(guard) = self.orchestrators[by].crowd.gives(worker) {
            self.guards.insert(request, guard);
        }
        let took_us = self.exponential_us(ANSWER_MS);
        self.later(at_us + took_us, Event::Ends { request, worker });
    }

    fn counts(&self) -> bool {
        self.came * 100 >= self.traffic.requests * WARM_UP_PERCENT
    }

    fn place(&mut self, by: usize, beginning: usize, now_ms: u64) -> usize {
        let (it, rng) = (&mut self.orchestrators[by], &mut self.rng);
        match self.policy {
            Policy::Random => rng.random_range(0..self.traffic.workers),
            Policy::Pure => spread(beginning) % self.traffic.workers,
            Policy::Beats => {
                let least = (it.said.iter().enumerate()).min_by_key(|(_, said)| **said);
                least.map_or(0, |(worker, _)| worker)
            }
            Policy::Load => {
                let cold = Warm::default();
                let placed =
                    (it.crowd).place(&it.fleet, (0, 0, now_ms), &cold, &self.placement, rng);
                let best = placed.best().map(|it| it.candidate.worker.id());
                best.and_then(|it_is| it.crowd.number(&it_is)).unwrap_or(0)
            }
            Policy::Affinity => {
                let (artifact, prefix) = (it.crowd.artifact(0), prompt(beginning, self.came));
                let warm = it.warmth.find(&artifact, &prefix, now_ms);
                let placed =
                    (it.crowd).place(&it.fleet, (0, 0, now_ms), &warm, &self.placement, rng);
                let Some(best) = placed.best().map(|it| it.candidate.worker.id()) else {
                    return 0;
                };
                let home = it.crowd.home(best);
                it.warmth.sent(&artifact, &prefix, home, now_ms);
                it.crowd.number(&best).unwrap_or(0)
            }
        }
    }

    fn outcome(&self) -> Outcome {
        let most = self.workers.iter().map(|it| it.requests).max();
        let all: usize = self.workers.iter().map(|it| it.requests).sum();
        let share = |part: usize| part as f64 / all.max(1) as f64;
        Outcome {
            warm: share(self.warm),
            hottest_requests: share(most.unwrap_or_default()) * self.workers.len() as f64,
            hottest_load: self.hottest / self.mean.max(f64::MIN_POSITIVE),
            waited: share(self.waited),
        }
    }
}

/// A prompt with one of the beginnings, and an end of its own.
pub(super) fn prompt(beginning: usize, own: usize) -> Prefix {
    let mut text = String::with_capacity((SHARED_BLOCKS + OWN_BLOCKS) * PREFIX_BLOCK_BYTES);
    for (number, blocks) in [(beginning, SHARED_BLOCKS), (own, OWN_BLOCKS)] {
        for _ in 0..blocks {
            text.push_str(&format!("{number:0width$}", width = PREFIX_BLOCK_BYTES));
        }
    }
    let tenant = TenantId::new("acme").expect("valid");
    Prefix::of(&tenant, &Input::Text(text), &Output::default())
}

/// A hash of a number.
fn spread(number: usize) -> usize {
    let digest = tether_wire::Digest::of(&number.to_be_bytes());
    usize::from_be_bytes(
        digest.0[..size_of::<usize>()]
            .try_into()
            .expect("of its size"),
    )
}
