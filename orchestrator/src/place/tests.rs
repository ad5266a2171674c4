use super::*;
use crate::fleet::Roster;
use crate::presence::Change;
use crate::testing::{beat, key};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use tether_wire::{Heartbeat, Tier};

struct Scene {
    roster: Roster,
    model: ModelRef,
    region: Region,
}

impl Scene {
    fn new(workers: u8) -> Self {
        let mut scene = Self {
            roster: Roster::default(),
            model: "tiny@1.0".parse().expect("valid"),
            region: Region::new("local").expect("valid"),
        };
        for n in 0..workers {
            scene.worker(n, |_| ());
        }
        scene
    }

    fn worker(&mut self, n: u8, change: impl FnOnce(&mut Heartbeat)) {
        let mut beat = beat(n, 1, 1, 0);
        change(&mut beat);
        self.roster.apply(Change::Beat {
            beat: Box::new(beat),
            tier: Tier::Trusted,
            heard_mono_ms: 0,
        });
    }

    fn place(&self, tried: &[NodeId], digest: Option<Digest>, rng: &mut StdRng) -> Vec<Ranked> {
        let fleet = self.roster.snapshot();
        let query = Query {
            model: &self.model,
            digest,
            region: &self.region,
            tried,
        };
        place(
            fleet.candidates(&self.model),
            &query,
            &Weights::default(),
            0.05,
            rng,
        )
    }
}

fn first(ranked: &[Ranked]) -> NodeId {
    ranked.first().expect("somebody").candidate.worker.id()
}

#[test]
fn a_suspect_is_never_first_while_another_can_serve() {
    let mut scene = Scene::new(0);
    // The healthy one is worse in every term.
    scene.worker(1, |_| ());
    scene.worker(2, |b| {
        b.queue_depth = 50;
        b.models[0].warm = false;
        b.region = Region::new("away").expect("valid");
    });
    scene.roster.apply(Change::Suspect(key(1).id()));
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        let ranked = scene.place(&[], None, &mut rng);
        assert_eq!(first(&ranked), key(2).id());
        assert_eq!(ranked.len(), 2, "but it is there when nothing else is");
    }
    let ranked = scene.place(&[key(2).id()], None, &mut rng);
    assert_eq!(first(&ranked), key(1).id());
}

#[test]
fn those_who_were_tried_are_left_out() {
    let scene = Scene::new(3);
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..50 {
        let ranked = scene.place(&[key(0).id(), key(1).id()], None, &mut rng);
        assert_eq!(ranked.len(), 1);
        assert_eq!(first(&ranked), key(2).id());
    }
    let all = [key(0).id(), key(1).id(), key(2).id()];
    assert!(scene.place(&all, None, &mut rng).is_empty());
}

#[test]
fn a_released_digest_keeps_everything_else_of_that_name_out() {
    let mut scene = Scene::new(1);
    scene.worker(9, |b| b.models[0].digest = Digest([66; 32]));
    let mut rng = StdRng::seed_from_u64(3);
    let ranked = scene.place(&[], Some(Digest([7; 32])), &mut rng);
    assert_eq!(ranked.len(), 1);
    assert_eq!(first(&ranked), key(0).id());
}

#[test]
fn near_equals_share_the_work_and_worse_ones_get_none() {
    let mut scene = Scene::new(4);
    scene.worker(9, |b| b.models[0].warm = false);
    let mut rng = StdRng::seed_from_u64(4);
    let mut chosen: HashMap<NodeId, u32> = HashMap::new();
    for _ in 0..1_000 {
        *chosen
            .entry(first(&scene.place(&[], None, &mut rng)))
            .or_default() += 1;
    }
    assert_eq!(chosen.len(), 4, "{chosen:?}");
    assert!(
        chosen.values().all(|count| (150..=350).contains(count)),
        "{chosen:?}"
    );
}

#[test]
fn of_two_near_equals_the_less_loaded_is_chosen() {
    let mut scene = Scene::new(2);
    for n in 0..2 {
        scene.worker(n, |b| b.capacity = 100);
    }
    let fleet = scene.roster.snapshot();
    let busy = fleet.worker(&key(0).id()).expect("there");
    let _one = [busy.occupy(), busy.occupy()];
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..100 {
        assert_eq!(first(&scene.place(&[], None, &mut rng)), key(1).id());
    }
}

#[test]
fn the_list_holds_every_candidate_once_whoever_was_drawn() {
    let scene = Scene::new(6);
    let mut rng = StdRng::seed_from_u64(6);
    for _ in 0..100 {
        let ranked = scene.place(&[], None, &mut rng);
        let mut ids: Vec<NodeId> = ranked.iter().map(|r| r.candidate.worker.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 6);
    }
}

#[test]
fn the_same_randomness_gives_the_same_choice() {
    let scene = Scene::new(5);
    let draw = || {
        let mut rng = StdRng::seed_from_u64(7);
        (0..20)
            .map(|_| first(&scene.place(&[], None, &mut rng)))
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(), draw());
}
