//! What placing a request costs, what looking at some of the candidates loses, and what prompts that
//! begin alike gain. See `ops/bench/run placement` and `ops/bench/run prefixes`.
//!
//! Prints a table in Markdown, and as the last line JSON. Without the argument `--bench`, as `cargo
//! test` calls it, everything is small: that it works is all that is found.

#[path = "support/machine.rs"]
mod machine;

use machine::machine;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::hint::black_box;
use std::time::Instant;
use tether_orchestrator::fleet::Snapshot;
use tether_orchestrator::place::Placed;
use tether_orchestrator::placement::Placement;
use tether_orchestrator::simulated::{Crowd, Outcome, Policy, Shape, Traffic};
use tether_orchestrator::warmth::{Warm, Warmth};
use tether_wire::TenantId;
use tether_wire::infer::{Input, Output, PREFIX_BLOCK_BYTES, Prefix};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_small = !arguments.iter().any(|it| it == "--bench");
    let is_asked = |name: &str| is_small || arguments.iter().any(|it| it == name);
    if is_asked("placement") {
        placement(if is_small { 2_000 } else { 100_000 });
    }
    if is_asked("prefixes") {
        prefixes(if is_small { 2_000 } else { 100_000 });
    }
}

/// Workers of each artifact.
const SERVING: usize = 1_000;
/// Conversations that are under way.
const CONVERSATIONS: usize = 4_096;

/// A large fleet, and what is asked of it.
struct Scene {
    crowd: Crowd,
    fleet: Snapshot,
    placement: Placement,
    warmth: Warmth,
    prompts: Vec<Prefix>,
    rng: StdRng,
}

/// One request.
struct Asked {
    artifact: usize,
    region: usize,
    prompt: usize,
}

impl Scene {
    fn new(workers: usize) -> Self {
        let shape = Shape {
            workers,
            artifacts: (2 * workers / SERVING).max(1),
            regions: 4,
            slots: 8,
        };
        let placement = Placement::default();
        let mut scene = Self {
            crowd: Crowd::new(shape, &placement, 1),
            fleet: Snapshot::default(),
            placement,
            warmth: Warmth::default(),
            prompts: (0..CONVERSATIONS).map(prompt).collect(),
            rng: StdRng::seed_from_u64(1),
        };
        scene.change_loads(100);
        scene.crowd.rank_all(1_000);
        scene.fleet = scene.crowd.snapshot();
        for _ in 0..CONVERSATIONS {
            let asked = scene.asks();
            let best = scene.sampled(&asked);
            scene.sends(&asked, &best);
        }
        scene
    }

    /// Some of the workers, of a hundred, say another load: up to twice their slots, and mostly less.
    fn change_loads(&mut self, percent: u32) {
        for n in 0..self.crowd.shape().workers {
            if self.rng.random_range(0..100) < percent {
                let load = self.rng.random_range(0..=16) * self.rng.random_range(0..=16) / 16;
                self.crowd.says(n, load, 0);
            }
        }
    }

    fn asks(&mut self) -> Asked {
        let prompt = self.rng.random_range(0..CONVERSATIONS);
        // A conversation stays with its model.
        Asked {
            artifact: prompt % self.crowd.shape().artifacts,
            region: self.rng.random_range(0..self.crowd.shape().regions),
            prompt,
        }
    }

    fn warm(&mut self, asked: &Asked) -> Warm {
        let artifact = self.crowd.artifact(asked.artifact);
        (self.warmth).find(&artifact, &self.prompts[asked.prompt], 0)
    }

    /// As dispatch does it.
    fn sampled(&mut self, asked: &Asked) -> Placed {
        let warm = self.warm(asked);
        let what = (asked.artifact, asked.region, 0);
        let (placement, rng) = (&self.placement, &mut self.rng);
        (self.crowd).place(&self.fleet, what, &warm, placement, rng)
    }

    /// By a look at all of them.
    fn scanned(&mut self, asked: &Asked) -> Placed {
        let warm = self.warm(asked);
        let what = (asked.artifact, asked.region, 0);
        let (placement, rng) = (&self.placement, &mut self.rng);
        (self.crowd).place_among_all(&self.fleet, what, &warm, placement, rng)
    }

    fn sends(&mut self, asked: &Asked, to: &Placed) {
        let artifact = self.crowd.artifact(asked.artifact);
        if let Some(best) = to.best() {
            let home = self.crowd.home(best.candidate.worker.id());
            (self.warmth).sent(&artifact, &self.prompts[asked.prompt], home, 0);
        }
    }

    /// Microseconds of each of some placements.
    fn times(&mut self, count: usize, place: fn(&mut Self, &Asked) -> Placed) -> Vec<f64> {
        let one = |_| {
            let asked = self.asks();
            let begun = Instant::now();
            black_box(place(self, &asked));
            begun.elapsed().as_secs_f64() * 1e6
        };
        (0..count).map(one).collect()
    }

    /// How much less the best of a sample scores than the best of all, and whether it is nearly as
    /// good.
    fn losses(&mut self, count: usize) -> (Vec<f64>, f64) {
        let mut near = 0;
        let losses = (0..count).map(|_| {
            let asked = self.asks();
            let (sampled, scanned) = (self.sampled(&asked), self.scanned(&asked));
            let best = |placed: &Placed| {
                let scores = placed.ranked.iter().map(|it| it.score);
                scores.fold(0.0, f32::max)
            };
            let loss = best(&scanned) - best(&sampled);
            near += usize::from(loss <= self.placement.near_equal);
            f64::from(loss)
        });
        let losses: Vec<f64> = losses.collect();
        (losses, near as f64 / count as f64)
    }
}

/// Bytes of memory that far reads are spread over: as large a fleet takes about as much.
const FAR_BYTES: usize = 64 * 1024 * 1024;
/// Lines of the processor's cache in which a candidate is: its place in its group, what it is, and what
/// it has to do.
const LINES: usize = 3;

/// Microseconds of each of some reads of what so many candidates take, wherever it lies, and of nothing
/// else: less is not possible where they are in no cache.
fn far_reads(candidates: usize, count: usize, rng: &mut StdRng) -> Vec<f64> {
    let far = vec![1_u64; FAR_BYTES / size_of::<u64>()];
    let one = |_| {
        let places: Vec<usize> = (0..candidates * LINES)
            .map(|_| rng.random_range(0..far.len()))
            .collect();
        let begun = Instant::now();
        black_box(places.iter().map(|at| far[*at]).sum::<u64>());
        begun.elapsed().as_secs_f64() * 1e6
    };
    (0..count).map(one).collect()
}

/// A conversation of sixteen blocks.
fn prompt(n: usize) -> Prefix {
    let text = format!("{n:0width$}", width = PREFIX_BLOCK_BYTES).repeat(16);
    let tenant = TenantId::new("acme").expect("valid");
    Prefix::of(&tenant, &Input::Text(text), &Output::default())
}

/// The value below which so many of a thousand samples are.
fn quantile(samples: &mut [f64], of_thousand: usize) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let at = samples.len().saturating_sub(1) * of_thousand / 1_000;
    samples.get(at).copied().unwrap_or(f64::NAN)
}

fn mean(samples: &[f64]) -> f64 {
    samples.iter().sum::<f64>() / samples.len().max(1) as f64
}

fn placement(workers: usize) {
    let mut scene = Scene::new(workers);
    let count = workers;
    let few = (count / 20).max(1);
    let warm_up = scene.times(few, Scene::sampled);
    black_box(warm_up);
    let mut sampled = scene.times(count, Scene::sampled);
    let mut scanned = scene.times(few, Scene::scanned);
    let looked = {
        let asked = scene.asks();
        let (some, all) = (scene.sampled(&asked), scene.scanned(&asked));
        (some.choice.looked_at, all.choice.looked_at)
    };
    let mut reads = far_reads(looked.0, count, &mut scene.rng);
    let (mut fresh, fresh_near) = scene.losses(few);
    scene.change_loads(50);
    let (mut stale, stale_near) = scene.losses(few);
    println!(
        "{workers} workers, {} artifacts of which each worker serves two, 4 regions; {}.\n",
        scene.crowd.shape().artifacts,
        machine(),
    );
    println!(
        "| placing a request | a bounded sample | a scan of all | reading the sample from memory alone \
         |\n|---|---|---|---|"
    );
    println!(
        "| candidates that are looked at | {} | {} | {} |",
        looked.0, looked.1, looked.0
    );
    for (name, at) in [("median", 500), ("p99", 990), ("p99.9", 999)] {
        let (some, all) = (quantile(&mut sampled, at), quantile(&mut scanned, at));
        let read = quantile(&mut reads, at);
        println!("| {name}, µs | {some:.2} | {all:.1} | {read:.2} |");
    }
    println!(
        "\n| what the sample loses of the best score of all, which is at most 1 | mean | p99 | nearly \
         as good as the best (within {}) |\n|---|---|---|---|",
        scene.placement.near_equal
    );
    for (name, losses, near) in [
        ("just ranked", &mut fresh, fresh_near),
        ("half of the loads are others since", &mut stale, stale_near),
    ] {
        println!(
            "| {name} | {:.4} | {:.4} | {:.1} % |",
            mean(losses),
            quantile(losses, 990),
            100.0 * near
        );
    }
    let json = format!(
        "{{\"workers\":{workers},\"sample_p99_us\":{:.3},\"scan_p99_us\":{:.3},\
         \"reads_p99_us\":{:.3},\"loss_mean\":{:.6},\
         \"loss_stale_mean\":{:.6}}}",
        quantile(&mut sampled, 990),
        quantile(&mut scanned, 990),
        quantile(&mut reads, 990),
        mean(&fresh),
        mean(&stale),
    );
    println!("{json}");
}

fn prefixes(requests: usize) {
    let placement = Placement::default();
    let traffic = Traffic {
        orchestrators: 1,
        by_beginning: false,
        workers: 64,
        slots: 4,
        busy_percent: 60,
        beginnings: 1_000,
        kept: 16,
        requests,
        seed: 1,
    };
    let three = Traffic {
        orchestrators: 3,
        ..traffic
    };
    let three_by_beginning = Traffic {
        by_beginning: true,
        ..three
    };
    let rows: [(&str, &Traffic, Policy); 7] = [
        ("anywhere, by chance", &traffic, Policy::Random),
        ("by load, without the prefix", &traffic, Policy::Load),
        ("each beginning at its own worker", &traffic, Policy::Pure),
        ("with affinity", &traffic, Policy::Affinity),
        (
            "with affinity, by 3 orchestrators, each beginning by one of them",
            &three_by_beginning,
            Policy::Affinity,
        ),
        (
            "with affinity, by 3 orchestrators, each request by any of them",
            &three,
            Policy::Affinity,
        ),
        ("by the last heartbeats alone, by 3", &three, Policy::Beats),
    ];
    println!(
        "{} workers with {} slots, {} % of them busy; {} beginnings of prompts, the n-th in proportion \
         to 1 / n, of which a worker keeps the last {}; {requests} requests; a load bound of {} times \
         the mean.\n",
        traffic.workers,
        traffic.slots,
        traffic.busy_percent,
        traffic.beginnings,
        traffic.kept,
        placement.prefix_load
    );
    println!(
        "| requests go | found their beginning warm | requests of the hottest worker, of the mean | its \
         load, of the mean | found no free slot |\n|---|---|---|---|---|"
    );
    let mut json = Vec::new();
    for (name, traffic, policy) in rows {
        let Outcome {
            warm,
            hottest_requests,
            hottest_load,
            waited,
        } = traffic.run(policy, &placement);
        println!(
            "| {name} | {:.1} % | {hottest_requests:.2} | {hottest_load:.2} | {:.2} % |",
            100.0 * warm,
            100.0 * waited
        );
        json.push(format!(
            "{{\"policy\":\"{policy:?}\",\"orchestrators\":{},\"by_beginning\":{},\
             \"warm\":{warm:.4},\"hottest_requests\":{hottest_requests:.3},\
             \"hottest_load\":{hottest_load:.3},\"waited\":{waited:.5}}}",
            traffic.orchestrators, traffic.by_beginning
        ));
    }
    println!("[{}]", json.join(","));
}
