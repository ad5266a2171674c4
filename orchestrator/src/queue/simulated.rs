//! Workers with more to do than they can, for a simulated minute; each claim over several seeds, and
//! the seed that breaks one is printed.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Places at workers, and the mean time of an answer: 80 answers in a second.
const PLACES: usize = 16;
const ANSWER_MS: u64 = 200;
const CAPACITY_PER_S: f64 = 80.0;
/// How long callers wait for a whole answer, and the longest that one takes.
const DEADLINE_MS: u64 = 2_000;
const LONGEST_MS: u64 = 300;
const MINUTE_MS: u64 = 60_000;

/// How a tenant's requests come.
#[derive(Clone, Copy)]
enum Comes {
    /// So many in a second, at random.
    Steadily(f64),
    /// So many at once, at a time.
    AtOnce(usize, u64),
    /// One after the other: the next when the last is answered or was shed.
    OneByOne,
}

struct Tenant {
    id: TenantId,
    weight: u32,
    priority: Priority,
    comes: Comes,
    /// Whether one of its own is waiting or running.
    busy: bool,
    offered: u32,
    answered: u32,
    shed: u32,
    /// Let in, and their turn did not come in time.
    late: u32,
    /// Answered after the deadline.
    overdue: u32,
    waits_ms: Vec<u64>,
    /// The wait as it was estimated, and as it was.
    estimates: Vec<(u64, u64)>,
}

#[derive(Clone, Copy)]
struct Request {
    tenant: usize,
    came_ms: u64,
    estimate_ms: Option<u64>,
}

struct World {
    rng: StdRng,
    now_ms: u64,
    queue: Queue<Request>,
    tenants: Vec<Tenant>,
    /// Ends of what runs.
    running: BinaryHeap<Reverse<(u64, usize, u64)>>,
    longest: usize,
}

impl World {
    fn new(seed: u64, tenants: &[(u32, Priority, Comes)]) -> Self {
        let made = |(n, (weight, priority, comes)): (usize, &(u32, Priority, Comes))| Tenant {
            id: TenantId::new(format!("t{n}")).expect("valid"),
            weight: *weight,
            priority: *priority,
            comes: *comes,
            busy: false,
            offered: 0,
            answered: 0,
            shed: 0,
            late: 0,
            overdue: 0,
            waits_ms: Vec::new(),
            estimates: Vec::new(),
        };
        Self {
            rng: StdRng::seed_from_u64(seed),
            now_ms: 0,
            queue: Queue::new(QueueSettings::default()),
            tenants: tenants.iter().enumerate().map(made).collect(),
            running: BinaryHeap::new(),
            longest: 0,
        }
    }

    fn run(mut self) -> Self {
        for now_ms in 0..MINUTE_MS {
            self.now_ms = now_ms;
            self.finish();
            for tenant in 0..self.tenants.len() {
                for _ in 0..self.arrivals(tenant) {
                    self.arrive(tenant);
                }
            }
            while let Some(request) = self.queue.take_late(now_ms) {
                self.tenants[request.tenant].late += 1;
                self.tenants[request.tenant].busy = false;
            }
            self.serve();
            self.longest = self.longest.max(self.queue.len());
        }
        self
    }

    fn arrivals(&mut self, tenant: usize) -> usize {
        match self.tenants[tenant].comes {
            Comes::Steadily(per_s) => usize::from(self.rng.random_bool(per_s / 1_000.0)),
            Comes::AtOnce(count, at_ms) if at_ms == self.now_ms => count,
            Comes::AtOnce(..) => 0,
            Comes::OneByOne => usize::from(!self.tenants[tenant].busy),
        }
    }

    fn arrive(&mut self, at: usize) {
        let tenant = &mut self.tenants[at];
        tenant.offered += 1;
        let entry = |estimate_ms| Entry {
            tenant: tenant.id.clone(),
            weight: tenant.weight,
            priority: tenant.priority,
            work: 1,
            bytes: 1_000,
            turn_by_ms: self.now_ms + DEADLINE_MS - LONGEST_MS,
            margin_ms: 0,
            what: Request {
                tenant: at,
                came_ms: self.now_ms,
                estimate_ms,
            },
        };
        let estimate_ms = self.queue.wait_ms(&entry(None), self.now_ms);
        match self.queue.push(entry(estimate_ms), self.now_ms) {
            Ok(_) => self.tenants[at].busy = true,
            Err(_) => self.tenants[at].shed += 1,
        }
    }

    fn serve(&mut self) {
        while self.running.len() < PLACES {
            let Some(turn) = self.queue.take(self.now_ms) else {
                return;
            };
            let Turn::Serve(request) = turn else {
                panic!("late ones were taken out before");
            };
            let tenant = &mut self.tenants[request.tenant];
            let waited_ms = self.now_ms - request.came_ms;
            tenant.waits_ms.push(waited_ms);
            (tenant.estimates).extend(request.estimate_ms.map(|it| (it, waited_ms)));
            let takes_ms = self
                .rng
                .random_range(2 * ANSWER_MS - LONGEST_MS..=LONGEST_MS);
            let ends_ms = self.now_ms + takes_ms;
            (self.running).push(Reverse((ends_ms, request.tenant, request.came_ms)));
        }
    }

    fn finish(&mut self) {
        while let Some(Reverse((ends_ms, tenant, came_ms))) = self.running.peek().copied() {
            if ends_ms > self.now_ms {
                return;
            }
            self.running.pop();
            let tenant = &mut self.tenants[tenant];
            tenant.answered += 1;
            tenant.busy = false;
            tenant.overdue += u32::from(ends_ms > came_ms + DEADLINE_MS);
        }
    }

    fn answered(&self) -> f64 {
        self.tenants.iter().map(|it| f64::from(it.answered)).sum()
    }

    fn goodput(&self) -> f64 {
        self.answered() / (CAPACITY_PER_S * 60.0)
    }

    fn share(&self, tenant: usize) -> f64 {
        f64::from(self.tenants[tenant].answered) / self.answered()
    }
}

impl Tenant {
    fn wait_ms(&self, percent: usize) -> u64 {
        let mut waits_ms = self.waits_ms.clone();
        waits_ms.sort_unstable();
        waits_ms[(waits_ms.len() - 1) * percent / 100]
    }
}

const SEEDS: u64 = 5;

#[test]
fn three_times_too_much_for_a_minute_is_served_at_capacity_in_time_and_by_weight() {
    for seed in 0..SEEDS {
        let flood = Comes::Steadily(1.5 * CAPACITY_PER_S);
        let tenants = [(2, Priority::Normal, flood), (1, Priority::Normal, flood)];
        let world = World::new(seed, &tenants).run();
        assert!(world.goodput() >= 0.95, "seed {seed}: {}", world.goodput());
        let share = world.share(0);
        assert!((share - 2.0 / 3.0).abs() < 0.02, "seed {seed}: {share}");
        let (mut late, mut overdue) = (0, 0);
        for tenant in &world.tenants {
            late += tenant.late;
            overdue += tenant.overdue;
            assert!(tenant.shed > tenant.offered / 4, "seed {seed}");
        }
        assert_eq!(overdue, 0, "seed {seed}: answered too late");
        let admitted = world.answered() + f64::from(late);
        assert!(
            f64::from(late) <= 0.01 * admitted,
            "seed {seed}: {late} late"
        );
        // What cannot be served in time does not wait: about the deadline's worth of work does.
        assert!(world.longest < 200, "seed {seed}: {} waited", world.longest);
        println!(
            "seed {seed}: goodput {:.3}, share {share:.3}, late {late} of {admitted}, \
             waits p50 {:?} p99 {:?}, at most {} waiting",
            world.goodput(),
            [0, 1].map(|it: usize| world.tenants[it].wait_ms(50)),
            [0, 1].map(|it: usize| world.tenants[it].wait_ms(99)),
            world.longest,
        );
    }
}

#[test]
fn the_wait_that_is_foretold_is_about_the_one_that_comes() {
    for seed in 0..SEEDS {
        let flood = Comes::Steadily(1.5 * CAPACITY_PER_S);
        let tenants = [(2, Priority::Normal, flood), (1, Priority::Normal, flood)];
        let world = World::new(seed, &tenants).run();
        for tenant in &world.tenants {
            let close = tenant
                .estimates
                .iter()
                .filter(|(foretold, came)| foretold.abs_diff(*came) <= 150.max(came / 5));
            let share = close.count() as f64 / tenant.estimates.len() as f64;
            assert!(share > 0.9, "seed {seed}: {share}");
        }
    }
}

#[test]
fn the_burst_of_one_tenant_does_not_delay_another_within_its_share() {
    for seed in 0..SEEDS {
        let tenants = [
            (1, Priority::Normal, Comes::Steadily(0.4 * CAPACITY_PER_S)),
            (1, Priority::Normal, Comes::AtOnce(2_000, 10_000)),
            (1, Priority::Normal, Comes::Steadily(0.1 * CAPACITY_PER_S)),
        ];
        let world = World::new(seed, &tenants).run();
        for tenant in [0, 2] {
            let tenant = &world.tenants[tenant];
            assert_eq!((tenant.shed, tenant.late), (0, 0), "seed {seed}");
            assert!(
                tenant.wait_ms(99) < 200,
                "seed {seed}: {}",
                tenant.wait_ms(99)
            );
        }
        assert!(world.tenants[1].answered > 20, "seed {seed}");
    }
}

#[test]
fn a_tenant_with_one_request_at_a_time_is_never_behind_a_whole_flood() {
    for seed in 0..SEEDS {
        let flood = Comes::Steadily(0.75 * CAPACITY_PER_S);
        let mut tenants = vec![(1, Priority::Normal, flood); 4];
        tenants.push((1, Priority::Normal, Comes::OneByOne));
        let world = World::new(seed, &tenants).run();
        let lone = &world.tenants[4];
        // At most one of each other one's, at 12.5 ms each, and the jitter of answers.
        assert!(lone.wait_ms(99) < 150, "seed {seed}: {}", lone.wait_ms(99));
        assert_eq!((lone.shed, lone.late), (0, 0), "seed {seed}");
        assert!(lone.answered > 200, "seed {seed}: {}", lone.answered);
    }
}

#[test]
fn low_priority_is_served_beside_a_flood_of_high_priority() {
    for seed in 0..SEEDS {
        let tenants = [
            (1, Priority::High, Comes::Steadily(2.0 * CAPACITY_PER_S)),
            (1, Priority::Low, Comes::Steadily(1.0 * CAPACITY_PER_S)),
        ];
        let world = World::new(seed, &tenants).run();
        assert!(world.goodput() >= 0.95, "seed {seed}: {}", world.goodput());
        let share = world.share(1);
        assert!((share - 1.0 / 17.0).abs() < 0.01, "seed {seed}: {share}");
        assert_eq!(world.tenants[1].overdue, 0, "seed {seed}");
    }
}

#[test]
fn where_all_is_well_nobody_waits_and_nothing_is_shed() {
    for seed in 0..SEEDS {
        let calm = Comes::Steadily(0.3 * CAPACITY_PER_S);
        let tenants = [(1, Priority::Normal, calm), (3, Priority::High, calm)];
        let world = World::new(seed, &tenants).run();
        for tenant in &world.tenants {
            assert_eq!((tenant.shed, tenant.late), (0, 0), "seed {seed}");
            assert!(
                tenant.wait_ms(99) <= 60,
                "seed {seed}: {}",
                tenant.wait_ms(99)
            );
        }
    }
}
