//! Many worlds around a pool, with chances: memory is kept, users are not disturbed, nobody starves,
//! and nobody is kept out or sent away for another's further processes.

use super::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

/// Everything outside of the pool, with chances.
struct World {
    pool: Pool,
    chance: ChaCha8Rng,
    now_ms: u64,
    limits: Limits,
    needs: Vec<Need>,
    /// When it is found out what a model needs.
    unknown: BTreeMap<usize, u64>,
    /// Whether models turn out to need more, or less.
    grows: bool,
    largest: u64,
    /// Processes of what is loaded.
    processes: BTreeMap<usize, u32>,
    /// When a load or an end is over.
    loading: BTreeMap<usize, u64>,
    leaving: BTreeMap<usize, u64>,
    warm: BTreeSet<usize>,
    /// Who waits, with the model and since when.
    waiting: BTreeMap<LeaseId, (usize, u64)>,
    /// Who is answered, with the model and until when.
    using: BTreeMap<LeaseId, (usize, u64)>,
    longest_wait_ms: u64,
    loads: u64,
    divided: u64,
    given_back: u64,
}

const LOAD_MS: u64 = 400;
const ANSWER_MS: u64 = 900;

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let count = chance.random_range(2..9);
        let limits = Limits {
            memory: [Amount::from(100), Amount::new(100, [100, 80])][chance.random_range(0..2)]
                .clone(),
            accelerators: Vec::new(),
            adapters: chance.random_range(1..3),
            idle_ms: [0, 5_000][chance.random_range(0..2)],
        };
        // In some of them there is room for most models together.
        let largest = [20, 60][chance.random_range(0..2)];
        let mut needs: Vec<Need> = (0..count)
            .map(|at| Need {
                is_pinned: at == 0 && chance.random_bool(0.3),
                is_adapter: chance.random_bool(0.2),
                processes: match chance.random_range(0..10) {
                    0..6 => Processes::UpTo(chance.random_range(1..7)),
                    6..8 => Processes::Exactly(2),
                    _ => Processes::default(),
                },
                ..need(chance.random_range(5..largest))
            })
            .collect();
        // Some of the models of a machine with accelerators are on those.
        for need in &mut needs {
            let device = chance.random_range(0..3);
            if device > 0 && limits.memory.on(device) > 0 {
                let bytes = chance.random_range(5..largest);
                need.memory = Amount::from(need.memory.least.on(0) / 8)
                    .with(device, bytes)
                    .into();
            }
        }
        // Some once took more, or more than there is.
        for need in &mut needs {
            if chance.random_bool(0.2) {
                let more = chance.random_range(1..200);
                need.memory.most = need.memory.most.plus(&Amount::from(more));
            }
        }
        let mut found_out_ms = |_| match chance.random_bool(0.5) {
            true => 0,
            false => chance.random_range(0..9_000),
        };
        let unknown = (0..count).map(|model| (model, found_out_ms(model)));
        let unknown: BTreeMap<usize, u64> = unknown.collect();
        let mut world = Self {
            pool: Pool::new(limits.clone(), count),
            unknown,
            grows: chance.random_bool(0.3),
            largest,
            processes: BTreeMap::new(),
            chance,
            now_ms: 0,
            limits,
            needs,
            loading: BTreeMap::new(),
            leaving: BTreeMap::new(),
            warm: BTreeSet::new(),
            waiting: BTreeMap::new(),
            using: BTreeMap::new(),
            longest_wait_ms: 0,
            loads: 0,
            divided: 0,
            given_back: 0,
        };
        world.find_out();
        world
    }

    fn find_out(&mut self) {
        let due = |(model, at): (&usize, &u64)| (*at <= self.now_ms).then_some(*model);
        let due: Vec<usize> = self.unknown.iter().filter_map(due).collect();
        for model in due {
            self.unknown.remove(&model);
            let need = self.needs[model].clone();
            let effects = self.pool.know(model, need, self.now_ms);
            self.apply(effects);
        }
    }

    /// Whether these models have room together, each with as few processes as it can.
    fn fit_singly(&self, which: impl Fn(usize) -> bool) -> bool {
        let free = self.pool.free_of_pinned();
        let those: Vec<&Model> = (self.pool.models.iter().enumerate())
            .filter(|(model, _)| which(*model))
            .map(|(_, it)| it)
            .collect();
        let sum = those.iter().fold(Amount::default(), |sum, it| {
            sum.plus(&it.takes(it.need.processes.least(), &free))
        });
        let adapters = those.iter().filter(|it| it.need.is_adapter).count();
        adapters <= self.limits.adapters && sum.beyond(&self.limits.memory).is_nothing()
    }

    fn is_pinned(&self, model: usize) -> bool {
        self.needs[model].is_pinned && !self.unknown.contains_key(&model)
    }

    /// It is kept out for good. That is only right where it would be so with one process of each.
    fn kept_out(&self, model: usize, why: &str) {
        if why != "broken" && why != "the model is not ready yet" {
            let least = |at: usize| {
                let need = &self.needs[at];
                need.memory.least.times(need.processes.least())
            };
            let pinned = (0..self.needs.len()).filter(|at| *at != model && self.is_pinned(*at));
            let adapters = pinned.clone().filter(|at| self.needs[*at].is_adapter);
            let has_place =
                !self.needs[model].is_adapter || adapters.count() < self.limits.adapters;
            let all = pinned.fold(least(model), |sum, at| sum.plus(&least(at)));
            let fits = all.beyond(&self.limits.memory).is_nothing();
            assert!(!(has_place && fits), "it has room: {why}");
        }
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Load(model, processes) => {
                    self.loads += 1;
                    self.processes.insert(model, processes);
                    match self.needs[model].processes {
                        Processes::Exactly(exactly) => assert_eq!(processes, exactly),
                        Processes::UpTo(most) => assert!((1..=most).contains(&processes)),
                    }
                    if processes > self.needs[model].processes.least() {
                        self.divided += 1;
                        // Every other one has room beside it, adapters that take turns included.
                        let one = |at: usize| self.pool.takes(at);
                        let known = |at: &usize| !self.unknown.contains_key(at);
                        let others = (0..self.needs.len())
                            .filter(|at| *at != model)
                            .filter(known);
                        let others = others.filter(|at| self.pool.never_fits(*at).is_none());
                        let all = others.fold(one(model), |sum, at| sum.plus(&one(at)));
                        let beyond = all.beyond(&self.limits.memory);
                        let mine = one(model);
                        assert!(!beyond.meets(&mine), "{processes} processes leave no room");
                    }
                    assert!(!self.warm.contains(&model), "it is loaded");
                    assert!(!self.leaving.contains_key(&model), "it has not left");
                    let took = self.chance.random_range(1..LOAD_MS);
                    let other = self.loading.insert(model, self.now_ms + took);
                    assert!(other.is_none(), "it is being loaded");
                    let used = self.pool.used();
                    let beyond = used.beyond(&self.limits.memory);
                    // What others grew to elsewhere is not its matter.
                    let is_mine = beyond.meets(&self.pool.takes(model));
                    assert!(!is_mine, "{used:?} after a load began");
                }
                Effect::Unload(model) => {
                    let processes = self.processes.remove(&model).expect("loaded");
                    if processes > self.needs[model].processes.least() {
                        self.given_back += 1;
                    } else {
                        assert!(!self.is_pinned(model), "pinned");
                        let wanted = |at: usize| {
                            let waits = self.waiting.values().any(|(it, _)| *it == at);
                            let is_pinned = self.is_pinned(at);
                            at == model || waits || is_pinned || self.processes.contains_key(&at)
                        };
                        let is_old = self.limits.idle_ms > 0;
                        assert!(is_old || !self.fit_singly(wanted), "all would fit");
                    }
                    let used = self.using.values().any(|(used, _)| *used == model);
                    assert!(!used, "in use");
                    self.warm.remove(&model);
                    let took = self.chance.random_range(1..50);
                    self.leaving.insert(model, self.now_ms + took);
                }
                Effect::Ready(lease) => {
                    let (model, since_ms) = self.waiting.remove(&lease).expect("it waits");
                    self.use_it(lease, model, since_ms);
                }
                Effect::Refuse(lease, why) => {
                    let (model, _) = self.waiting.remove(&lease).expect("it waits");
                    self.kept_out(model, &why);
                }
                Effect::Unfit(model, Some(why)) => self.kept_out(model, &why),
                Effect::Unfit(_, None) => {}
            }
        }
    }

    fn use_it(&mut self, lease: LeaseId, model: usize, since_ms: u64) {
        assert!(self.warm.contains(&model), "it answers");
        self.longest_wait_ms = self.longest_wait_ms.max(self.now_ms - since_ms);
        let took = self.chance.random_range(1..ANSWER_MS);
        self.using.insert(lease, (model, self.now_ms + took));
    }

    fn step(&mut self) {
        self.now_ms += self.chance.random_range(1..20);
        let now_ms = self.now_ms;
        self.find_out();
        if self.grows && self.chance.random_bool(0.005) {
            let model = self.chance.random_range(0..self.needs.len());
            if !self.unknown.contains_key(&model) {
                let need = &mut self.needs[model];
                let bytes = self.chance.random_range(5..self.largest);
                let device = need.memory.least.devices().last().unwrap_or(0);
                need.memory = need.memory.least.clone().with(device, bytes).into();
                let memory = need.memory.clone();
                let effects = self.pool.observed(model, memory, now_ms);
                self.apply(effects);
            }
        }
        let due = |map: &BTreeMap<usize, u64>| {
            let due = map.iter().find(|(_, at)| **at <= now_ms);
            due.map(|(model, _)| *model)
        };
        while let Some(model) = due(&self.loading) {
            self.loading.remove(&model);
            let effects = if self.chance.random_bool(0.05) {
                self.processes.remove(&model);
                self.pool.gave_up(model, "broken", 300, now_ms)
            } else {
                self.warm.insert(model);
                self.pool.loaded(model, 50, now_ms)
            };
            self.apply(effects);
            // It was ended in the middle.
            if self.leaving.contains_key(&model) {
                self.loading.remove(&model);
                self.warm.remove(&model);
            }
        }
        while let Some(model) = due(&self.leaving) {
            self.leaving.remove(&model);
            self.loading.remove(&model);
            let effects = self.pool.unloaded(model, now_ms);
            self.apply(effects);
        }
        let ended: Vec<LeaseId> = (self.using.iter())
            .filter(|(_, (_, until_ms))| *until_ms <= now_ms)
            .map(|(lease, _)| *lease)
            .collect();
        for lease in ended {
            self.using.remove(&lease);
            let effects = self.pool.release(lease, now_ms);
            self.apply(effects);
        }
        // Few who wait lose patience.
        if self.chance.random_bool(0.01)
            && let Some(lease) = self.waiting.keys().next().copied()
        {
            self.waiting.remove(&lease);
            let effects = self.pool.release(lease, now_ms);
            self.apply(effects);
        }
        // The first of the models is asked for most of the time.
        if self.chance.random_bool(0.3) && self.using.len() + self.waiting.len() < 20 {
            let count = self.needs.len();
            let model = self.chance.random_range(0..count);
            let model = if self.chance.random_bool(0.5) {
                0
            } else {
                model
            };
            let (asked, effects) = self.pool.ask(model, now_ms);
            match asked {
                Asked::Ready(lease) => {
                    self.use_it(lease, model, now_ms);
                }
                Asked::Waits(lease) => {
                    self.waiting.insert(lease, (model, now_ms));
                }
                Asked::Refused(why) => self.kept_out(model, &why),
            }
            self.apply(effects);
        }
        if self.pool.wakes_at_ms(now_ms).is_some() || self.chance.random_bool(0.5) {
            let effects = self.pool.tick(now_ms);
            self.apply(effects);
        }
        let used = self.pool.used();
        let beyond = used.beyond(&self.limits.memory);
        assert!(self.grows || beyond.is_nothing(), "{used:?}");
        let adapters = self.pool.adapters(true);
        assert!(adapters <= self.limits.adapters, "{adapters} adapters");
    }
}

#[test]
fn in_many_worlds_memory_is_kept_users_are_not_disturbed_and_nobody_starves() {
    let (mut loads, mut divided, mut given_back) = (0, 0, 0);
    for seed in 0..300 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..3_000 {
                world.step();
                // Whoever waits is behind at most all other models, each of which may have to wait
                // for patience, for answers, for its predecessor to go, and for its own load.
                let turn = PATIENCE_MS + ANSWER_MS + 2 * LOAD_MS + 450;
                let bound = turn * (world.needs.len() as u64 + 1);
                let oldest = world.waiting.values().map(|(_, since_ms)| *since_ms).min();
                let waited = oldest.map_or(0, |since_ms| world.now_ms - since_ms);
                assert!(waited <= bound, "somebody waits for {waited} ms");
            }
            (world.loads, world.now_ms, world.divided, world.given_back)
        });
        match outcome {
            Ok((count, ended_ms, more, fewer)) => {
                loads += count;
                divided += more;
                given_back += fewer;
                // No thrash: a load takes LOAD_MS at most and is followed by as long a stay.
                assert!(
                    count < ended_ms / 20,
                    "seed {seed}: {count} loads in {ended_ms} ms"
                );
            }
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(loads > 1_000, "{loads} loads: the worlds are too quiet");
    assert!(
        divided > 100 && given_back > 20,
        "{divided} divided, {given_back} given back"
    );
}
