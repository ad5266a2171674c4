//! Partitions and lost batches. [T-SPR-6], [T-SPR-7]

use crate::support::*;
use crate::world::{World, control};
use tether_presence::{Event, Input};

#[test]
fn a_partition_expires_the_other_side_and_heals_within_an_interval() {
    let mut world = World::full_mesh(3);
    for n in 1..=9 {
        world.worker(n, &[101 + n % 3]);
    }
    world.run(7_000);
    world.assert_equal_views();
    world.cut(101, 102);
    world.cut(101, 103);
    world.run(30_000);
    assert_eq!(world.routable(101).len(), 4, "its three workers and itself");
    assert_eq!(world.routable(102).len(), 8);
    world.link(101, 102);
    world.link(101, 103);
    world.run(T + 300);
    world.assert_equal_views();
}

#[test]
fn who_left_during_a_partition_stays_away_when_it_heals() {
    let mut world = World::full_mesh(2);
    world.worker(1, &[101]);
    world.worker(2, &[102]);
    world.run(6_000);
    world.cut(101, 102);
    world.run(1_000);
    world.say_goodbye(1);
    world.kill(2);
    world.run(1_000);
    world.link(101, 102);
    world.run(200);
    assert!(!world.routable(102).contains(&1), "gone with the healing");
    world.run(20_000);
    world.assert_equal_views();
}

#[test]
fn a_goodbye_in_a_lost_batch_is_found_by_comparison_before_silence_would() {
    let mut world = World::full_mesh(2);
    world.worker(1, &[101]);
    world.run(6_000);
    world.beat(1, tether_wire::beat::NodeState::Serving);
    world.run(100);
    world.lossy.insert((101, 102));
    world.say_goodbye(1);
    world.run(200);
    world.lossy.clear();
    assert!(world.routable(102).contains(&1), "it was not told");
    world.run(7_000);
    assert!(!world.routable(102).contains(&1));
}

#[test]
fn a_card_in_a_lost_batch_is_asked_for_with_the_next_beat() {
    let mut world = World::full_mesh(2);
    world.run(1_000);
    world.lossy.insert((101, 102));
    world.worker(1, &[101]);
    world.run(200);
    world.lossy.clear();
    world.run(T + 700);
    world.assert_equal_views();
}

#[test]
fn a_control_message_in_a_lost_batch_is_found_by_comparison() {
    let mut world = World::full_mesh(2);
    world.run(1_000);
    world.lossy.insert((101, 102));
    world.input(101, control(b"a revocation"));
    world.run(200);
    world.lossy.clear();
    world.run(2 * T + 2_500);
    let digest = |n: u8| {
        let mut copy = Vec::new();
        // What both hold is the same: a third one is given the same by either.
        let site = &world.sites[&n].spread;
        copy.extend(site.controls().map(<[u8]>::to_vec));
        copy
    };
    assert_eq!(digest(102), [b"a revocation".to_vec()]);
}

#[test]
fn a_revocation_here_is_not_undone_by_a_peer_that_did_not_hear_of_it() {
    let mut world = World::full_mesh(2);
    world.worker(1, &[102]);
    world.run(6_000);
    world.input(101, Input::Own(Event::Revoked(id(1))));
    world.run(20_000);
    assert!(!world.routable(101).contains(&1));
    assert!(world.routable(102).contains(&1));
}

#[test]
fn one_way_loss_between_two_is_bridged_by_a_third() {
    let mut world = World::full_mesh(3);
    world.worker(1, &[101]);
    world.run(6_000);
    world.cut(101, 102);
    world.run(40_000);
    world.assert_equal_views();
}

#[test]
fn what_says_no_more_is_not_told_to_newcomers() {
    let mut world = World::full_mesh(2);
    world.input(101, control(b"a mild revocation"));
    world.run(500);
    for n in [101, 102] {
        world.input(n, control(b"a strict revocation"));
        world.input(
            n,
            Input::ControlGone(tether_wire::Digest::of(b"a mild revocation")),
        );
    }
    world.start(103);
    world.link(102, 103);
    world.run(500);
    let held: Vec<_> = world.sites[&103].spread.controls().collect();
    assert_eq!(held, [b"a strict revocation"]);
}
