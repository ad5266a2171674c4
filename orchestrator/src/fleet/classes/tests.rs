use super::*;
use crate::fleet::group::{Group, Kind, RANKED};
use crate::fleet::index::RANK_MS;
use crate::fleet::merit::Merits;
use crate::fleet::{Roster, Snapshot};
use crate::place::{Query, Ranked, place};
use crate::placement::Placement;
use crate::testing::{Says, id, region, there};
use crate::warmth::Warm;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use tether_presence::{Effect, Gone};
use tether_wire::{Digest, ModelRef, NodeId, Tier};

const MODEL: Digest = Digest([7; 32]);

fn model() -> ModelRef {
    "tiny@1.0".parse().expect("valid")
}

fn crowd(size: u16, change: impl Fn(u16, &mut Says)) -> Roster {
    let mut roster = Roster::new(Merits::default());
    for n in 0..size {
        there(&mut roster, n, |it| change(n, it));
    }
    roster
}

/// As dispatch places it: for a class of accelerators, or to go on in a numerics class.
fn placed(fleet: &Snapshot, class: Class<'_>, rng: &mut StdRng) -> Vec<Ranked> {
    let (here, cold) = (region("local"), Warm::default());
    let (gpu_class, numerics_class) = match class {
        Class::Any => (None, None),
        Class::Accelerator(class) => (Some(class), None),
        Class::Numerics(class) => (Some("h100"), Some(class)),
    };
    let query = Query {
        region: &here,
        gpu_class,
        numerics_class,
        orchestrators: 1,
        now_mono_ms: 0,
        left_at: None,
    };
    assert_eq!(query.class(), class);
    let within = (None, class);
    let found = fleet.candidates_within((&model(), &MODEL), &here, within, &cold, rng);
    let ids: BTreeSet<NodeId> = found.iter().map(|it| it.worker.id()).collect();
    assert_eq!(ids.len(), found.len(), "nobody twice");
    place(found, &query, &Placement::default(), rng).ranked
}

fn is_h100(ranked: &Ranked) -> bool {
    ranked.candidate.worker.card().gpu_class == "h100"
}

#[test]
fn of_a_thousand_the_ten_that_a_model_is_best_given_to_get_it_until_they_are_busy() {
    let rare = |n: u16, it: &mut Says| {
        let class = if n % 100 == 50 { "h100" } else { "a10" };
        it.worker.gpu_class = class.into();
    };
    let mut roster = crowd(1_000, rare);
    let mut rng = StdRng::seed_from_u64(1);
    for now_ms in [0, RANK_MS, 60_000] {
        if now_ms > 0 {
            roster.rank(now_ms);
        }
        let mut chosen = BTreeSet::new();
        for _ in 0..200 {
            let ranked = placed(&roster.snapshot(), Class::Accelerator("h100"), &mut rng);
            assert!(is_h100(&ranked[0]), "at {now_ms}");
            chosen.insert(ranked[0].candidate.worker.id());
        }
        assert_eq!(chosen.len(), 10, "all of them take turns");
    }
    // Where they have all too much to do others are better.
    for n in (50..1_000).step_by(100) {
        there(&mut roster, n, |it| {
            rare(n, it);
            it.beat.in_flight = 40;
        });
    }
    let ranked = placed(&roster.snapshot(), Class::Accelerator("h100"), &mut rng);
    assert!(!is_h100(&ranked[0]));
    let ranked = placed(&roster.snapshot(), Class::Accelerator("h200"), &mut rng);
    assert!(!ranked.is_empty(), "nobody is of the class");
}

#[test]
fn an_answer_goes_on_in_its_numerics_class_as_long_as_anybody_of_it_is_there() {
    let rare = |n: u16, it: &mut Says| {
        if n % 100 == 7 {
            it.worker.models[0].numerics_class = "rare".into();
        }
    };
    let mut roster = crowd(400, rare);
    roster.rank(RANK_MS);
    let mut rng = StdRng::seed_from_u64(2);
    for n in [7, 107, 207, 307] {
        for _ in 0..50 {
            let ranked = placed(&roster.snapshot(), Class::Numerics("rare"), &mut rng);
            assert!(!ranked[0].other_class, "{n} is still there");
            assert!(
                ranked.iter().any(|it| it.other_class),
                "and others behind it"
            );
        }
        let (node, how) = (id(n), Gone::Departed);
        roster.apply(Effect::Gone { node, how });
    }
    let ranked = placed(&roster.snapshot(), Class::Numerics("rare"), &mut rng);
    assert!(ranked[0].other_class, "it goes on all the same");
}

#[test]
fn an_answer_goes_on_in_its_numerics_class_in_another_region_where_nobody_here_is_of_it() {
    let roster = crowd(300, |n, it| {
        it.region = region(["local", "a", "b", "c"][usize::from(n % 4)]);
        if n == 103 {
            it.worker.models[0].numerics_class = "rare".into();
        }
    });
    let mut rng = StdRng::seed_from_u64(3);
    let ranked = placed(&roster.snapshot(), Class::Numerics("rare"), &mut rng);
    assert_eq!(ranked[0].candidate.worker.id(), id(103));
}

/// What is ready is what serves, in each class as many as there is room for.
#[test]
fn whoever_comes_goes_or_changes_its_class_those_that_are_ready_are_those_that_serve() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut roster = Roster::new(Merits::default());
        let mut there_now = BTreeMap::new();
        for turn in 0..400_u64 {
            let n = rng.random_range(0..120);
            if rng.random_range(0..3) == 0 {
                let (node, how) = (id(n), Gone::Departed);
                roster.apply(Effect::Gone { node, how });
                there_now.remove(&id(n));
            } else {
                let class = ["a", "b", "c"][rng.random_range(0..3_usize)];
                there(&mut roster, n, |it| {
                    it.worker.gpu_class = class.into();
                    it.beat.epoch = turn + 1;
                });
                there_now.insert(id(n), class);
            }
            if turn % 50 == 49 {
                roster.rank((turn + 1) * RANK_MS);
            }
            let fleet = roster.snapshot();
            for class in ["a", "b", "c"] {
                let all = there_now.values().filter(|it| **it == class).count();
                let mut found = Vec::new();
                let classes = roster.index().classes(&kind());
                classes.find(Class::Accelerator(class), READY, &mut rng, &mut found);
                let ids: BTreeSet<_> = found.iter().map(|it| it.worker.id()).collect();
                assert_eq!(ids.len(), found.len(), "seed {seed}: nobody twice");
                if all <= READY && found.len() < all {
                    // Those beyond the room of the list come in with the next ranking.
                    assert!(turn % 50 != 49, "seed {seed}: {} of {all}", found.len());
                }
                for it in &found {
                    assert_eq!(there_now.get(&it.worker.id()), Some(&class), "seed {seed}");
                    let view = fleet.worker(&it.worker.id()).expect("there");
                    assert!(Arc::ptr_eq(view, it.worker), "seed {seed}: an old view");
                }
            }
        }
    }
}

fn kind() -> Kind {
    Kind {
        model: model(),
        digest: MODEL,
        tier: Tier::Trusted,
        region: region("local"),
    }
}

#[test]
fn a_rare_class_of_a_group_that_is_not_looked_at_whole_stays_ready() {
    let roster = crowd(2, |n, it| {
        it.worker.gpu_class = if n == 1 { "h100" } else { "a10" }.into();
    });
    let fleet = roster.snapshot();
    let mut group = Group::new(kind(), 0);
    for n in 0..2 * RANKED as u64 {
        // The view of one under the ids of many.
        let of = id(u16::from(n % 2_000 == 0));
        let mut view = WorkerView::clone(fleet.worker(&of).expect("there"));
        view.id.0[..8].copy_from_slice(&n.to_be_bytes());
        view.live = Arc::default();
        group.put(&Arc::new(view), true);
    }
    let mut merits = Merits::default();
    let mut rng = StdRng::seed_from_u64(4);
    for turn in 0..20 {
        merits.turn();
        group.rank(&merits, turn);
        let mut found = Vec::new();
        let class = Class::Accelerator("h100");
        (group.classes()).find(class, usize::MAX, &mut rng, &mut found);
        assert_eq!(found.len(), 5);
    }
}

#[test]
fn no_more_classes_are_told_apart_than_there_is_room_for() {
    let many = u16::try_from(3 * MAX_CLASSES).expect("small");
    let mut roster = crowd(many, |n, it| it.worker.gpu_class = format!("own-{n}"));
    for now_ms in [0, RANK_MS] {
        if now_ms > 0 {
            roster.rank(now_ms);
        }
        assert_eq!(roster.index().classes(&kind()).iter().count(), MAX_CLASSES);
    }
}
