//! Full and partial meshes. [T-SPR-3], [T-SPR-4]

use crate::support::*;
use crate::world::World;
use tether_presence::Effect;
use tether_wire::beat::NodeState;

#[test]
fn a_worker_that_one_orchestrator_hears_is_routable_at_all_within_a_moment() {
    let mut world = World::full_mesh(3);
    world.run(1_000);
    world.worker(1, &[101]);
    world.run(200);
    world.assert_equal_views();
}

#[test]
fn in_a_full_mesh_each_beat_reaches_each_peer_once() {
    let mut world = World::full_mesh(4);
    for n in 1..=20 {
        world.worker(n, &[101, 102, 103]);
    }
    world.run(20_000);
    world.assert_equal_views();
    world.sent_beats = 0;
    world.run(10 * T);
    // 20 workers and 4 orchestrators to 3 peers each, ten times.
    let least = 24 * 3 * 10;
    assert!(world.sent_beats >= least, "{}", world.sent_beats);
    assert!(
        world.sent_beats < least * 11 / 10,
        "{} of {least}",
        world.sent_beats
    );
}

#[test]
fn where_the_first_in_rank_has_no_link_another_passes_a_beat_on() {
    let mut world = World::full_mesh(5);
    for n in 1..=20 {
        world.worker(n, &[101 + n % 5]);
    }
    world.run(60_000);
    world.assert_equal_views();
    for site in 101..=105 {
        let effects = world.take_effects(site);
        assert!(
            !effects
                .iter()
                .any(|it| matches!(it, Effect::Suspect(_) | Effect::Gone { .. }))
        );
    }
}

#[test]
fn a_partial_mesh_of_three_passes_on_what_its_ends_cannot_hear() {
    let mut world = World::full_mesh(3);
    world.cut(101, 103);
    world.worker(1, &[101]);
    world.worker(3, &[103]);
    world.run(6_000);
    world.assert_equal_views();
    world.say_goodbye(3);
    world.run(300);
    assert!(!world.routable(101).contains(&3), "a goodbye passes too");
    world.kill(1);
    world.run(300);
    let suspect = |world: &World| {
        let presence = world.sites[&103].spread.presence();
        presence.get(&id(1)).is_some_and(|seen| seen.is_suspect())
    };
    assert!(suspect(&world), "a suspicion passes too");
    world.run(60_000);
    world.assert_equal_views();
}

#[test]
fn a_ring_of_six_forgets_nobody_and_floods_nothing_for_ever() {
    let mut world = World::default();
    for n in 101..=106 {
        world.start(n);
    }
    for n in 101..=106u8 {
        world.link(n, if n == 106 { 101 } else { n + 1 });
        world.worker(n - 100, &[n]);
    }
    world.run(30_000);
    world.assert_equal_views();
    world.sent_beats = 0;
    world.run(10 * T);
    assert!(world.sent_beats <= 12 * 6 * 2 * 10, "{}", world.sent_beats);
}

#[test]
fn what_changes_is_told_by_the_next_flush_whatever_the_rank() {
    let mut world = World::full_mesh(3);
    for n in 1..=10 {
        world.worker(n, &[101]);
    }
    world.run(7_000);
    for n in 1..=10 {
        world.beat(n, NodeState::Draining);
    }
    world.run(100);
    for n in 1..=10 {
        assert!(!world.routable(103).contains(&n), "{n}");
    }
}

#[test]
fn that_a_suspect_is_well_again_is_told_at_once_too() {
    let mut world = World::full_mesh(3);
    world.run(1_000);
    for n in 1..=6 {
        world.worker(n, &[101]);
    }
    world.run(2_000);
    let suspects = |world: &World| {
        let presence = world.sites[&103].spread.presence();
        (1..=6)
            .filter(|n| presence.get(&id(*n)).is_some_and(|it| it.is_suspect()))
            .count()
    };
    for n in 1..=6 {
        world.input(
            101,
            tether_presence::Input::Own(tether_presence::Event::LinkLost(id(n))),
        );
    }
    world.run(100);
    assert_eq!(suspects(&world), 6);
    for n in 1..=6 {
        world.beat(n, NodeState::Serving);
    }
    world.run(100);
    assert_eq!(suspects(&world), 0);
}

#[test]
fn clocks_at_both_bounds_make_nobody_suspect_or_gone() {
    let mut world = World::full_mesh(1);
    world.start_with(102, 2_500, tether_presence::Settings::default());
    world.start_with(103, -2_500, tether_presence::Settings::default());
    for (a, b) in [(101, 102), (101, 103), (102, 103)] {
        world.link(a, b);
    }
    for (n, skew_ms) in [(1, 2_500), (2, -2_500), (3, 0)] {
        world.worker(n, &[101 + n % 3]);
        world.nodes.get_mut(&n).expect("there").skew_ms = skew_ms;
    }
    world.run(20_000);
    for site in 101..=103 {
        world.take_effects(site);
    }
    world.run(60_000);
    world.assert_equal_views();
    for site in 101..=103 {
        let effects = world.take_effects(site);
        let doubt: Vec<_> = (effects.iter())
            .filter(|it| matches!(it, Effect::Suspect(_) | Effect::Gone { .. }))
            .collect();
        assert!(doubt.is_empty(), "{site}: {doubt:?}");
    }
    for n in 1..=3 {
        world.kill(n);
    }
    world.run(15_000 + 2 * 5_000);
    world.assert_equal_views();
}

#[test]
fn clones_are_reported_by_who_hears_them_and_the_higher_epoch_is_shown() {
    let mut world = World::full_mesh(2);
    world.worker(1, &[101]);
    world.run(3_000);
    let older = world.nodes[&1].clone();
    world.worker(1, &[102]);
    let newer = world.nodes[&1].clone();
    for _ in 0..5 {
        world.run(T - 1_000);
        for clone in [&older, &newer] {
            let seq = world.nodes[&1].seq + 1;
            world.nodes.insert(
                1,
                crate::world::Node {
                    seq,
                    beats_at: None,
                    ..clone.clone()
                },
            );
            world.beat(1, NodeState::Serving);
        }
        world.run(1_000);
    }
    let clones = |effects: Vec<Effect>| {
        effects
            .iter()
            .filter(|it| matches!(it, Effect::Clone { .. }))
            .count()
    };
    assert_eq!(clones(world.take_effects(101)), 1);
    for site in [101, 102] {
        let presence = world.sites[&site].spread.presence();
        assert_eq!(
            presence.get(&id(1)).expect("live").order().epoch,
            newer.epoch
        );
    }
}
