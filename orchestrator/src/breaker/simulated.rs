//! Breakers among workers that die, flap and fail, for simulated minutes; each claim over many
//! seeds, and the seed that breaks one is printed.

use super::*;
use crate::testing::region;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

/// Length of a tick.
const TICK_MS: u64 = 10;
/// What a breaker that stayed closed opened at.
const NEVER: [u64; 0] = [];
/// Runs of each scenario.
const SEEDS: u64 = 8;

/// What a worker does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    /// Answers it.
    Well,
    /// Fails this share of them, at the end.
    Fails(f64),
    /// Is dead: what is sent there fails at once.
    Dead,
}

struct Worker {
    id: NodeId,
    epoch: u64,
    models: Vec<usize>,
    region: usize,
    mood: Mood,
    /// Requests that were sent there, and those that failed.
    sent: u32,
    failed: u32,
}

struct Running {
    worker: usize,
    pass: Pass,
    piece_ms: u64,
    piece_came: bool,
    ends_ms: u64,
}

/// A mesh with one orchestrator.
struct World {
    rng: StdRng,
    now_ms: u64,
    breakers: Breakers,
    models: Arc<[ModelRef]>,
    regions: Arc<[Region]>,
    workers: Vec<Worker>,
    running: Vec<Running>,
    /// Requests in a second for each model.
    per_second: f64,
    /// Time of an answer, and until its first piece.
    answer_ms: u64,
    changes: Vec<(u64, Change)>,
    /// Requests for which there was nobody.
    refused: u32,
}

impl World {
    fn new(seed: u64, models: usize, regions: usize) -> Self {
        let model = |n: usize| format!("m{n}@1.0").parse().expect("valid");
        Self {
            rng: StdRng::seed_from_u64(seed),
            now_ms: 50_000,
            breakers: Breakers::new(BreakerSettings::default()),
            models: (0..models).map(model).collect(),
            regions: (0..regions).map(|n| region(&format!("r{n}"))).collect(),
            workers: Vec::new(),
            running: Vec::new(),
            per_second: 50.0,
            answer_ms: 200,
            changes: Vec::new(),
            refused: 0,
        }
    }

    fn with(mut self, count: usize, models: &[usize], region: usize) -> Self {
        for _ in 0..count {
            let mut id = NodeId([0; 32]);
            id.0[..8].copy_from_slice(&(self.workers.len() as u64).to_be_bytes());
            self.workers.push(Worker {
                id,
                epoch: 1,
                models: models.to_vec(),
                region,
                mood: Mood::Well,
                sent: 0,
                failed: 0,
            });
        }
        self
    }

    fn run_ms(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now_ms += TICK_MS;
        self.settle();
        for model in 0..self.models.len() {
            let chance = self.per_second * TICK_MS as f64 / 1_000.0;
            let surely = chance.trunc() as u32;
            let more = u32::from(self.rng.random_bool(chance.fract()));
            for _ in 0..surely + more {
                self.arrive(model);
            }
        }
    }

    /// One request: any worker that is not under probation, otherwise one that may be tried.
    fn arrive(&mut self, model: usize) {
        let mut found = [Vec::new(), Vec::new()];
        for at in 0..self.workers.len() {
            if self.workers[at].models.contains(&model) {
                match self.breakers.admits(&self.place(at, model), self.now_ms) {
                    Verdict::Yes => found[0].push(at),
                    Verdict::Probe => found[1].push(at),
                    Verdict::No { .. } => {}
                }
            }
        }
        // Now and then a probe, though others are well: otherwise nobody would ever come back.
        let probes = !found[1].is_empty() && (found[0].is_empty() || self.rng.random_bool(0.2));
        let among = &found[usize::from(probes)];
        if among.is_empty() {
            self.refused += 1;
            return;
        }
        let worker = among[self.rng.random_range(0..among.len())];
        let (models, regions) = (Arc::clone(&self.models), Arc::clone(&self.regions));
        let place = Place {
            worker: self.workers[worker].id,
            epoch: self.workers[worker].epoch,
            model: &models[model],
            region: &regions[self.workers[worker].region],
        };
        let pass = self
            .breakers
            .begin(&place, self.now_ms)
            .expect("let through");
        self.workers[worker].sent += 1;
        let takes_ms = self
            .rng
            .random_range(self.answer_ms / 2..=self.answer_ms * 3 / 2);
        let is_dead = self.workers[worker].mood == Mood::Dead;
        self.running.push(Running {
            worker,
            pass,
            piece_ms: self.now_ms + if is_dead { u64::MAX / 2 } else { takes_ms / 10 },
            piece_came: false,
            ends_ms: self.now_ms + if is_dead { 5 } else { takes_ms },
        });
    }

    fn place(&self, worker: usize, model: usize) -> Place<'_> {
        let it = &self.workers[worker];
        Place {
            worker: it.id,
            epoch: it.epoch,
            model: &self.models[model],
            region: &self.regions[it.region],
        }
    }

    /// First pieces and ends that are due.
    fn settle(&mut self) {
        let now_ms = self.now_ms;
        for run in &mut self.running {
            if !run.piece_came && run.piece_ms <= now_ms {
                run.piece_came = true;
                self.breakers.first_piece(&run.pass, now_ms);
            }
        }
        let (due, on): (Vec<_>, _) =
            (self.running.drain(..)).partition(|run: &Running| run.ends_ms <= now_ms);
        self.running = on;
        for run in due {
            let fails = match self.workers[run.worker].mood {
                Mood::Well => false,
                Mood::Fails(share) => self.rng.random_bool(share),
                Mood::Dead => true,
            };
            self.end(run, fails);
        }
    }

    fn end(&mut self, run: Running, fails: bool) {
        let outcome = if fails {
            Outcome::Fault
        } else {
            Outcome::Success
        };
        self.workers[run.worker].failed += u32::from(fails);
        let changes = self
            .breakers
            .end(run.pass, outcome, self.now_ms, &mut self.rng);
        let now_ms = self.now_ms;
        self.changes
            .extend(changes.into_iter().map(|it| (now_ms, it)));
    }

    /// Everything that runs there breaks off.
    fn kill(&mut self, worker: usize) {
        self.workers[worker].mood = Mood::Dead;
        let (lost, on): (Vec<_>, _) =
            (self.running.drain(..)).partition(|run: &Running| run.worker == worker);
        self.running = on;
        for run in lost {
            self.end(run, true);
        }
    }

    fn restart(&mut self, worker: usize) {
        self.workers[worker].mood = Mood::Well;
        self.workers[worker].epoch += 1;
    }

    fn set(&mut self, workers: impl IntoIterator<Item = usize>, mood: Mood) {
        for worker in workers {
            self.workers[worker].mood = mood;
        }
    }

    fn worker(&self, worker: usize) -> State {
        let it = &self.workers[worker];
        self.breakers.of_worker(&it.id, it.epoch, self.now_ms).state
    }

    fn model(&self, model: usize) -> State {
        self.breakers
            .of_model(&self.models[model], self.now_ms)
            .state
    }

    /// Times at which the breaker of one opened.
    fn opened(&self, subject: impl Into<Subject>) -> Vec<u64> {
        let subject = subject.into();
        let is_it = |(_, change): &&(u64, Change)| {
            change.subject == subject && matches!(change.to, State::Open { .. })
        };
        self.changes
            .iter()
            .filter(is_it)
            .map(|(at, _)| *at)
            .collect()
    }

    fn model_opened(&self, model: usize) -> Vec<u64> {
        self.opened(self.models[model].clone())
    }

    fn region_opened(&self, region: usize) -> Vec<u64> {
        self.opened(self.regions[region].clone())
    }
}

fn seeds(scenario: impl Fn(u64)) {
    (0..SEEDS).for_each(scenario);
}

#[test]
fn requests_that_every_worker_answers_with_a_400_open_nothing() {
    let mut world = World::new(0, 1, 1).with(8, &[0], 0);
    for n in 0..24 {
        let models = world.models.clone();
        let regions = world.regions.clone();
        let place = Place {
            worker: world.workers[n % 8].id,
            epoch: 1,
            model: &models[0],
            region: &regions[0],
        };
        let pass = world.breakers.begin(&place, world.now_ms).expect("closed");
        let outcome = Outcome::of_error(Code::Invalid);
        let changes = world
            .breakers
            .end(pass, outcome, world.now_ms, &mut world.rng);
        assert_eq!(changes, []);
    }
    assert_eq!(world.breakers.counts(world.now_ms), [Counts::default(); 3]);
    assert!((0..8).all(|n| world.worker(n) == State::Closed));
}

#[test]
fn a_worker_that_fails_half_its_requests_is_out_soon_probed_and_back_when_well() {
    seeds(|seed| {
        let mut world = World::new(seed, 1, 1).with(4, &[0], 0);
        world.set([2], Mood::Fails(0.5));
        while world.worker(2) == State::Closed {
            world.tick();
        }
        // Ten requests are configured; those under way at that moment come on top.
        let (sent, failed) = (world.workers[2].sent, world.workers[2].failed);
        assert!(
            sent <= 25 && failed <= 12,
            "seed {seed}: {failed} of {sent}"
        );
        world.run_ms(60_000);
        let share = f64::from(world.workers[2].sent - sent) / (60.0 * 50.0);
        assert!(
            share < 0.05,
            "seed {seed}: it still had {share} of the requests"
        );
        let opened = world.opened(world.workers[2].id);
        let apart: Vec<u64> = opened.windows(2).map(|it| it[1] - it[0]).collect();
        assert!(opened.len() >= 4, "seed {seed}: it was probed");
        let longest = apart.iter().max().expect("several");
        assert!(*longest >= 8_000, "seed {seed}: open time grows: {apart:?}");
        world.set([2], Mood::Well);
        // It may just have opened for as long as it can, and needs requests to show that it is well.
        world.run_ms(65_000);
        assert_eq!(world.worker(2), State::Closed, "seed {seed}");
        assert_eq!(world.model_opened(0), NEVER, "seed {seed}");
    });
}

#[test]
fn one_worker_that_dies_a_hundred_times_leaves_its_model_and_region_closed() {
    seeds(|seed| {
        let mut world = World::new(seed, 1, 1).with(4, &[0], 0);
        for _ in 0..100 {
            world.run_ms(300);
            world.kill(1);
            world.run_ms(200);
            world.restart(1);
        }
        assert!(!world.opened(world.workers[1].id).is_empty(), "seed {seed}");
        assert_eq!(world.model_opened(0), NEVER, "seed {seed}");
        assert_eq!(world.region_opened(0), NEVER, "seed {seed}");
        assert_eq!(world.refused, 0, "seed {seed}");
    });
}

#[test]
fn a_model_with_one_worker_that_dies_a_hundred_times_stays_closed_as_well() {
    seeds(|seed| {
        let mut world = World::new(seed, 1, 1).with(1, &[0], 0);
        for _ in 0..100 {
            world.run_ms(300);
            world.kill(0);
            world.run_ms(200);
            world.restart(0);
        }
        assert_eq!(world.model_opened(0), NEVER, "seed {seed}");
        assert_eq!(world.region_opened(0), NEVER, "seed {seed}");
    });
}

#[test]
fn workers_killed_one_after_the_other_keep_their_model_open_for_business() {
    seeds(|seed| {
        let mut world = World::new(seed, 1, 1).with(4, &[0], 0);
        world.answer_ms = 1_500;
        for n in 0..60 {
            world.kill(n % 4);
            world.run_ms(600);
            world.restart(n % 4);
            world.run_ms(1_400);
        }
        assert_eq!(world.model_opened(0), NEVER, "seed {seed}");
        assert_eq!(world.region_opened(0), NEVER, "seed {seed}");
        assert_eq!(world.refused, 0, "seed {seed}");
    });
}

#[test]
fn a_machine_with_several_workers_that_loses_power_closes_no_model() {
    seeds(|seed| {
        let mut world = World::new(seed, 1, 1).with(40, &[0], 0);
        world.per_second = 400.0;
        world.answer_ms = 1_000;
        world.run_ms(5_000);
        (0..6).for_each(|worker| world.kill(worker));
        world.run_ms(10_000);
        assert_eq!(world.model_opened(0), NEVER, "seed {seed}");
        assert_eq!(world.region_opened(0), NEVER, "seed {seed}");
        assert!(
            (0..6).all(|n| world.worker(n) != State::Closed),
            "seed {seed}"
        );
    });
}

#[test]
fn a_model_that_fails_everywhere_opens_its_breaker_and_no_others() {
    seeds(|seed| {
        let mut world = World::new(seed, 2, 1).with(24, &[0], 0).with(24, &[1], 0);
        world.per_second = 100.0;
        world.run_ms(5_000);
        let broke_ms = world.now_ms;
        (0..24).for_each(|worker| world.kill(worker));
        world.run_ms(30_000);
        let opened = world.model_opened(0);
        let after_ms = opened.first().expect("opened") - broke_ms;
        assert!(after_ms <= 2_000, "seed {seed}: only after {after_ms} ms");
        assert_eq!(world.model_opened(1), NEVER, "seed {seed}");
        assert_eq!(world.region_opened(0), NEVER, "seed {seed}");
        // 3,000 were asked for; what was sent to the dead is little, and mostly until it opened.
        let sent: u32 = world.workers[..24].iter().map(|it| it.failed).sum();
        assert!(sent < 400, "seed {seed}: {sent} were sent to the dead");
        (0..24).for_each(|worker| world.restart(worker));
        world.run_ms(40_000);
        assert_eq!(world.model(0), State::Closed, "seed {seed}");
    });
}

#[test]
fn a_region_that_is_cut_off_opens_its_breaker_and_no_models() {
    seeds(|seed| {
        let mut world = World::new(seed, 3, 2)
            .with(10, &[0, 1, 2], 0)
            .with(10, &[0, 1, 2], 1);
        world.per_second = 100.0;
        world.run_ms(5_000);
        (0..10).for_each(|worker| world.kill(worker));
        world.run_ms(20_000);
        assert!(
            (0..3).all(|it| world.model_opened(it).is_empty()),
            "seed {seed}"
        );
        assert!(!world.region_opened(0).is_empty(), "seed {seed}");
        assert_eq!(world.region_opened(1), NEVER, "seed {seed}");
        assert_eq!(world.refused, 0, "seed {seed}: the other region serves");
        (0..10).for_each(|worker| world.restart(worker));
        world.run_ms(40_000);
        let counts = world.breakers.counts(world.now_ms);
        assert_eq!(counts, [Counts::default(); 3], "seed {seed}");
    });
}

#[test]
fn a_worker_that_comes_and_goes_is_asked_less_and_less() {
    seeds(|seed| {
        let mut world = World::new(seed, 1, 1).with(4, &[0], 0);
        let mut lost = Vec::new();
        for _ in 0..6 {
            let before = world.workers[3].failed;
            for _ in 0..6 {
                world.kill(3);
                world.run_ms(5_000);
                // The same process again, as behind a bad line.
                world.set([3], Mood::Well);
                world.run_ms(5_000);
            }
            lost.push(world.workers[3].failed - before);
        }
        let (first, last) = (lost[0], lost[5]);
        assert!(
            2 * last <= first,
            "seed {seed}: lost in each minute: {lost:?}"
        );
        assert_eq!(world.model_opened(0), NEVER, "seed {seed}");
    });
}

#[test]
fn a_clock_that_jumps_back_leaves_nothing_open_for_longer_than_it_may_be() {
    seeds(|seed| {
        let mut world = World::new(seed, 1, 1).with(4, &[0], 0);
        for n in 0..200 {
            let worker = n % 4;
            world.kill(worker);
            world.run_ms(300);
            world.set([worker], Mood::Well);
            world.run_ms(300);
            let back_ms = world.rng.random_range(0..2 * 600);
            world.now_ms -= back_ms.min(world.now_ms);
            // What runs ends by the clock as it now is.
            for run in &mut world.running {
                run.ends_ms = run.ends_ms.min(world.now_ms + 300);
            }
        }
        world.run_ms(130_000);
        let counts = world.breakers.counts(world.now_ms);
        assert_eq!(counts, [Counts::default(); 3], "seed {seed}");
    });
}
