use super::*;
use crate::fleet::Roster;
use crate::testing::{Says, id, region, there};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use tether_presence::Effect;
use tether_wire::{Digest, ModelRef};

struct Scene {
    roster: Roster,
    model: ModelRef,
    region: Region,
}

impl Scene {
    fn new(workers: u16) -> Self {
        let mut scene = Self {
            roster: Roster::default(),
            model: "tiny@1.0".parse().expect("valid"),
            region: region("local"),
        };
        for n in 0..workers {
            scene.worker(n, |_| ());
        }
        scene
    }

    fn worker(&mut self, n: u16, change: impl FnOnce(&mut Says)) {
        there(&mut self.roster, n, change);
    }

    fn place(&self, tried: &[NodeId], rng: &mut StdRng) -> Vec<Ranked> {
        self.place_left_at(None, tried, rng)
    }

    fn place_left_at(
        &self,
        left_at: Option<NodeId>,
        tried: &[NodeId],
        rng: &mut StdRng,
    ) -> Vec<Ranked> {
        let fleet = self.roster.snapshot();
        let query = Query {
            region: &self.region,
            tried,
            numerics_class: None,
            left_at,
        };
        let found = fleet.candidates(&self.model, &Digest([7; 32]), &self.region, rng);
        place(found, &query, &Weights::default(), 0.05, rng)
    }
}

fn first(ranked: &[Ranked]) -> NodeId {
    ranked.first().expect("somebody").candidate.worker.id()
}

#[test]
fn who_makes_the_answer_still_goes_on_with_it_however_busy_unless_it_may_be_dead() {
    let mut scene = Scene::new(3);
    scene.worker(3, |it| it.beat.queue_depth = 50);
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..20 {
        let ranked = scene.place_left_at(Some(id(3)), &[], &mut rng);
        assert_eq!((first(&ranked), ranked.len()), (id(3), 4));
        assert_ne!(first(&scene.place(&[], &mut rng)), id(3));
        assert_ne!(
            first(&scene.place_left_at(Some(id(3)), &[id(3)], &mut rng)),
            id(3)
        );
    }
    scene.roster.apply(Effect::Suspect(id(3)));
    assert_ne!(
        first(&scene.place_left_at(Some(id(3)), &[], &mut rng)),
        id(3)
    );
}

#[test]
fn a_suspect_is_never_first_while_another_can_serve() {
    let mut scene = Scene::new(0);
    // The healthy one is worse in every term.
    scene.worker(1, |_| ());
    scene.worker(2, |b| {
        b.beat.queue_depth = 50;
        b.worker.models[0].warm = false;
        b.region = region("away");
    });
    scene.roster.apply(Effect::Suspect(id(1)));
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..200 {
        let ranked = scene.place(&[], &mut rng);
        assert_eq!(first(&ranked), id(2));
        assert_eq!(ranked.len(), 2, "but it is there when nothing else is");
    }
    let ranked = scene.place(&[id(2)], &mut rng);
    assert_eq!(first(&ranked), id(1));
}

#[test]
fn those_who_were_tried_are_left_out() {
    let scene = Scene::new(3);
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..50 {
        let ranked = scene.place(&[id(0), id(1)], &mut rng);
        assert_eq!(ranked.len(), 1);
        assert_eq!(first(&ranked), id(2));
    }
    let all = [id(0), id(1), id(2)];
    assert!(scene.place(&all, &mut rng).is_empty());
}

#[test]
fn a_released_digest_keeps_everything_else_of_that_name_out() {
    let mut scene = Scene::new(1);
    scene.worker(9, |b| b.worker.models[0].digest = Digest([66; 32]));
    let mut rng = StdRng::seed_from_u64(3);
    let ranked = scene.place(&[], &mut rng);
    assert_eq!(ranked.len(), 1);
    assert_eq!(first(&ranked), id(0));
}

#[test]
fn near_equals_share_the_work_and_worse_ones_get_none() {
    let mut scene = Scene::new(4);
    scene.worker(9, |b| b.worker.models[0].warm = false);
    let mut rng = StdRng::seed_from_u64(4);
    let mut chosen: HashMap<NodeId, u32> = HashMap::new();
    for _ in 0..1_000 {
        *chosen
            .entry(first(&scene.place(&[], &mut rng)))
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
        scene.worker(n, |b| b.worker.capacity = 100);
    }
    let fleet = scene.roster.snapshot();
    let busy = fleet.worker(&id(0)).expect("there");
    let _one = [busy.occupy(), busy.occupy()];
    let mut rng = StdRng::seed_from_u64(5);
    for _ in 0..100 {
        assert_eq!(first(&scene.place(&[], &mut rng)), id(1));
    }
}

#[test]
fn the_list_holds_every_candidate_once_whoever_was_drawn() {
    let scene = Scene::new(6);
    let mut rng = StdRng::seed_from_u64(6);
    for _ in 0..100 {
        let ranked = scene.place(&[], &mut rng);
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
            .map(|_| first(&scene.place(&[], &mut rng)))
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(), draw());
}
