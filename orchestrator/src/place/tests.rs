use super::*;
use crate::fleet::Roster;
use crate::testing::{Says, id, region, there};
use crate::warmth::{Home, Warm, Warmth};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::HashMap;
use tether_presence::Effect;
use tether_wire::infer::{Input, Output, PREFIX_BLOCK_BYTES, Prefix};
use tether_wire::{Digest, ModelRef, TenantId};

const MODEL: Digest = Digest([7; 32]);

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

    fn place(&self, rng: &mut StdRng) -> Vec<Ranked> {
        self.place_by(&Placement::default(), None, &Warm::default(), rng)
    }

    /// Where the third has an answer under way.
    fn place_left_at(&self, rng: &mut StdRng) -> Vec<Ranked> {
        let nothing = Warm::default();
        self.place_by(&Placement::default(), Some(id(3)), &nothing, rng)
    }

    fn place_by(
        &self,
        placement: &Placement,
        left_at: Option<NodeId>,
        warm: &Warm,
        rng: &mut StdRng,
    ) -> Vec<Ranked> {
        let fleet = self.roster.snapshot();
        let query = Query {
            region: &self.region,
            gpu_class: placement.gpu_class(&self.model.name),
            numerics_class: None,
            orchestrators: 1,
            now_mono_ms: 0,
            left_at,
        };
        let model = (&self.model, &MODEL);
        let any = (None, query.class());
        let found = fleet.candidates_within(model, &self.region, any, warm, rng);
        place(found, &query, placement, rng).ranked
    }

    /// Where a prompt of so many blocks is warm that was sent to these.
    fn warm(&self, blocks: usize, homes: &[u16]) -> Warm {
        let tenant = TenantId::new("acme").expect("valid");
        let text = "x".repeat(blocks * PREFIX_BLOCK_BYTES);
        let prefix = Prefix::of(&tenant, &Input::Text(text), &Output::default());
        let mut warmth = Warmth::default();
        for n in homes {
            let home = Home {
                worker: id(*n),
                epoch: 1,
            };
            warmth.sent(&MODEL, &prefix, home, 0);
        }
        warmth.find(&MODEL, &prefix, 0)
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
        let ranked = scene.place_left_at(&mut rng);
        assert_eq!((first(&ranked), ranked.len()), (id(3), 4));
        assert_ne!(first(&scene.place(&mut rng)), id(3));
    }
    scene.roster.apply(Effect::Suspect(id(3)));
    assert_ne!(first(&scene.place_left_at(&mut rng)), id(3));
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
        let ranked = scene.place(&mut rng);
        assert_eq!(first(&ranked), id(2));
        assert_eq!(ranked.len(), 2, "but it is there when nothing else is");
    }
}

#[test]
fn a_released_digest_keeps_everything_else_of_that_name_out() {
    let mut scene = Scene::new(1);
    scene.worker(9, |b| b.worker.models[0].digest = Digest([66; 32]));
    let mut rng = StdRng::seed_from_u64(3);
    let ranked = scene.place(&mut rng);
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
        *chosen.entry(first(&scene.place(&mut rng))).or_default() += 1;
    }
    assert_eq!(chosen.len(), 4, "{chosen:?}");
    assert!(
        chosen.values().all(|count| (150..=350).contains(count)),
        "{chosen:?}"
    );
}

#[test]
fn nobody_waits_behind_others_where_somebody_as_good_is_free() {
    let mut scene = Scene::new(0);
    for n in 0..6 {
        scene.worker(n, |it| {
            it.worker.capacity = 2;
            it.beat.in_flight = if n == 3 { 1 } else { 2 };
        });
    }
    let mut rng = StdRng::seed_from_u64(1);
    let near = Placement {
        near_equal: 0.5,
        ..Placement::default()
    };
    let mut chosen = |numerics_class| {
        let (fleet, warm) = (scene.roster.snapshot(), Warm::default());
        let query = Query {
            region: &scene.region,
            gpu_class: None,
            numerics_class,
            orchestrators: 1,
            now_mono_ms: 0,
            left_at: None,
        };
        let (model, any) = ((&scene.model, &MODEL), (None, query.class()));
        let found = fleet.candidates_within(model, &scene.region, any, &warm, &mut rng);
        first(&place(found, &query, &near, &mut rng).ranked)
    };
    assert!((0..50).all(|_| chosen(None) == id(3)));
    assert!((0..50).all(|_| chosen(Some("test")) == id(3)));
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
        assert_eq!(first(&scene.place(&mut rng)), id(1));
    }
}

#[test]
fn the_list_holds_every_candidate_once_whoever_was_drawn() {
    let scene = Scene::new(6);
    let mut rng = StdRng::seed_from_u64(6);
    for _ in 0..100 {
        let ranked = scene.place(&mut rng);
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
            .map(|_| first(&scene.place(&mut rng)))
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(), draw());
}

#[test]
fn a_conversation_goes_where_it_went_while_that_has_no_more_to_do_than_others() {
    let mut scene = Scene::new(6);
    let warm = scene.warm(8, &[3]);
    let mut rng = StdRng::seed_from_u64(8);
    let place =
        |scene: &Scene, rng: &mut StdRng| scene.place_by(&Placement::default(), None, &warm, rng);
    for _ in 0..100 {
        let ranked = place(&scene, &mut rng);
        assert_eq!(first(&ranked), id(3));
        assert_eq!((ranked[0].prefix_blocks, ranked[0].over_bound), (8, false));
    }
    // Six have four slots each: 1.25 times the mean of three requests is less than one more.
    scene.worker(3, |it| it.beat.in_flight = 2);
    for _ in 0..100 {
        let ranked = place(&scene, &mut rng);
        assert_ne!(first(&ranked), id(3));
        let home = ranked.iter().find(|it| it.candidate.worker.id() == id(3));
        let home = home.expect("looked at all the same");
        assert!(home.over_bound && home.terms.prefix == 0.0, "{home:?}");
    }
    // Where all others have as much to do it is within the bound again.
    for n in [0, 1, 2, 4, 5] {
        scene.worker(n, |it| it.beat.in_flight = 2);
    }
    for _ in 0..100 {
        assert_eq!(first(&place(&scene, &mut rng)), id(3));
    }
}

#[test]
fn a_short_conversation_is_brought_back_too_unless_what_it_left_there_is_not_to_count() {
    let mut scene = Scene::new(6);
    let mut rng = StdRng::seed_from_u64(14);
    let mut placement = Placement::default();
    let mut chosen = |scene: &Scene, placement: &Placement, homes: &[u16]| {
        let warm = scene.warm(1, homes);
        let mut chosen: HashMap<NodeId, u32> = HashMap::new();
        for _ in 0..200 {
            let ranked = scene.place_by(placement, None, &warm, &mut rng);
            *chosen.entry(first(&ranked)).or_default() += 1;
            assert_eq!(ranked.len(), 6, "nobody is lost");
        }
        chosen
    };
    assert_eq!(chosen(&scene, &placement, &[3]), [(id(3), 200)].into());
    let two = chosen(&scene, &placement, &[1, 4]);
    assert!(
        two.len() == 2 && two[&id(1)] > 60 && two[&id(4)] > 60,
        "{two:?}"
    );
    placement.weights.prefix = 0.0;
    assert_eq!(chosen(&scene, &placement, &[3]).len(), 6);
    // It is as good as the best, and beyond its bound all the same.
    placement = Placement {
        near_equal: 0.5,
        ..Placement::default()
    };
    scene.worker(3, |it| it.beat.in_flight = 2);
    assert!(chosen(&scene, &placement, &[3]).len() > 3);
}

#[test]
fn affinity_gives_nobody_more_than_its_bound_whatever_is_asked() {
    for most in [1.0, 1.25, 2.0] {
        let scene = Scene::new(10);
        let warm = scene.warm(64, &[7]);
        // Nothing else counts.
        let mut placement = Placement {
            prefix_load: most,
            near_equal: 0.0,
            ..Placement::default()
        };
        placement.weights.queue = 0.0;
        let mut rng = StdRng::seed_from_u64(9);
        let mut guards = Vec::new();
        for given in 1..=40_u32 {
            let ranked = scene.place_by(&placement, None, &warm, &mut rng);
            let best = &ranked[0];
            if best.terms.prefix > 0.0 {
                assert_eq!(best.candidate.worker.id(), id(7));
                let mean = given as f32 / 10.0;
                let bound = (most * mean).ceil();
                assert!(best.load + 1.0 <= bound, "{} of {bound}", best.load);
                guards.push(best.candidate.worker.occupy());
            } else {
                // Whoever it is, all others are alike.
                let worker = &scene.roster.snapshot();
                let n = u16::try_from(given % 10).expect("small");
                guards.push(worker.worker(&id(n)).expect("there").occupy());
            }
        }
    }
}

#[test]
fn a_worker_that_was_restarted_has_nothing_warm() {
    let mut scene = Scene::new(6);
    scene.worker(3, |it| it.beat.epoch = 2);
    let warm = scene.warm(8, &[3]);
    let mut rng = StdRng::seed_from_u64(10);
    let ranked = scene.place_by(&Placement::default(), None, &warm, &mut rng);
    assert!(ranked.iter().all(|it| it.prefix_blocks == 0));
}

#[test]
fn who_was_sent_the_beginning_is_looked_at_in_a_fleet_of_any_size() {
    let scene = Scene::new(300);
    let mut rng = StdRng::seed_from_u64(11);
    for n in [1, 150, 299] {
        let warm = scene.warm(8, &[n]);
        let ranked = scene.place_by(&Placement::default(), None, &warm, &mut rng);
        assert_eq!(first(&ranked), id(n));
    }
}

#[test]
fn a_model_goes_to_the_class_of_accelerator_that_it_is_best_given_to() {
    let mut scene = Scene::new(6);
    scene.worker(4, |it| it.worker.gpu_class = "h100".into());
    let mut placement = Placement {
        near_equal: 0.0,
        ..Placement::default()
    };
    let mut rng = StdRng::seed_from_u64(12);
    let model = scene.model.name.clone();
    placement.gpu_class.insert(model, "h100".to_owned());
    for _ in 0..50 {
        let ranked = scene.place_by(&placement, None, &Warm::default(), &mut rng);
        assert_eq!(first(&ranked), id(4));
        assert_eq!(
            (ranked[0].terms.gpu_class, ranked[1].terms.gpu_class),
            (1.0, 0.0)
        );
    }
}

#[test]
fn what_a_worker_said_long_ago_is_believed_less_and_what_we_gave_it_is_not() {
    let mut scene = Scene::new(2);
    scene.worker(0, |it| it.beat.in_flight = 4);
    let fleet = scene.roster.snapshot();
    let _ours = fleet.worker(&id(1)).expect("there").occupy();
    let mut rng = StdRng::seed_from_u64(13);
    let mut loads = |now_mono_ms| {
        let cold = Warm::default();
        let query = Query {
            region: &scene.region,
            gpu_class: None,
            numerics_class: None,
            orchestrators: 1,
            now_mono_ms,
            left_at: None,
        };
        let model = (&scene.model, &MODEL);
        let found = fleet.candidates(model, &scene.region, &cold, &mut rng);
        let ranked = place(found, &query, &Placement::default(), &mut rng).ranked;
        [0, 1].map(|n| {
            let it = ranked.iter().find(|it| it.candidate.worker.id() == id(n));
            it.expect("looked at").load
        })
    };
    assert_eq!(loads(0), [4.0, 1.0]);
    let [busy, idle] = loads(1_000);
    assert!(
        (2.5..3.0).contains(&busy) && (2.0..2.5).contains(&idle),
        "{busy} {idle}"
    );
    let [busy, idle] = loads(60_000);
    assert!(
        (busy - 2.0).abs() < 0.01 && (idle - 3.0).abs() < 0.01,
        "{busy} {idle}"
    );
}
