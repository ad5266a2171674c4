//! What a newcomer is given, and what it must not believe. [T-SPR-5], [T-LIV-4]

use crate::support::*;
use crate::world::{World, control};
use tether_presence::Standing;
use tether_wire::spread::{Batch, RelayedBeat};

#[test]
fn a_late_joiner_has_the_fleet_within_one_interval() {
    let mut world = World::full_mesh(2);
    for n in 1..=40 {
        world.worker(n, &[101 + n % 2]);
        world.run(100);
    }
    world.run(7_000);
    world.start(103);
    world.link(101, 103);
    world.link(102, 103);
    world.run(T + 300);
    world.assert_equal_views();
}

#[test]
fn a_newcomer_is_given_the_goodbyes_of_those_that_just_left() {
    let mut world = World::full_mesh(2);
    world.worker(1, &[101]);
    world.run(6_000);
    world.say_goodbye(1);
    world.run(1_000);
    world.start(103);
    world.link(102, 103);
    world.run(500);
    let presence = world.sites[&103].spread.presence();
    let seen = presence.get(&id(1)).expect("the tombstone came");
    assert!(
        matches!(seen.standing(), Standing::Gone(_)),
        "{:?}",
        seen.standing()
    );
    replay(&mut world, 103, 102);
    assert!(!world.routable(103).contains(&1));
}

/// A peer sends all that was ever said, newest first and again, with the worst of clocks.
fn replay(world: &mut World, to: u8, from: u8) {
    let recorded = world.recorded.clone();
    for ahead_ms in [0, -5_000, 5_000] {
        for beat in recorded.iter().rev().chain(&recorded) {
            let relayed = RelayedBeat {
                epoch: beat.epoch,
                seq: beat.seq,
                ahead_ms,
                beat: beat.bytes().to_vec(),
            };
            let batch = Batch {
                beats: vec![relayed],
                ..Batch::default()
            };
            world.deliver(from, to, batch);
        }
    }
}

#[test]
fn a_restarted_orchestrator_that_is_fed_a_recording_revives_nobody() {
    let mut world = World::full_mesh(2);
    for n in 1..=5 {
        world.worker(n, &[101]);
    }
    world.run(12_000);
    for n in 1..=5 {
        world.say_goodbye(n);
    }
    world.nodes.retain(|n, _| *n == 101 || *n == 102);
    let gone: Vec<u8> = (1..=5).collect();
    // It forgot everything and knows nobody who remembers.
    world.cut(101, 102);
    world.start(101);
    world.link(101, 102);
    replay(&mut world, 101, 102);
    for n in &gone {
        assert!(
            !world.sites[&101]
                .spread
                .presence()
                .get(&id(*n))
                .is_some_and(|it| it.is_live())
        );
    }
    world.run(20_000);
    replay(&mut world, 101, 102);
    assert_eq!(world.sites[&101].spread.presence().live(), 2);
}

#[test]
fn a_flood_of_valid_but_old_beats_costs_no_memory() {
    let mut world = World::full_mesh(2);
    world.ms += 3_600_000;
    world.run(1_000);
    let known = world.sites[&101].spread.presence().remembered();
    for n in 1..=60 {
        for seq in 0..5 {
            world.recorded.push(beat(n, 1, seq, 0));
        }
    }
    replay(&mut world, 101, 102);
    assert_eq!(world.sites[&101].spread.presence().remembered(), known);
}

#[test]
fn control_messages_reach_who_was_away() {
    let mut world = World::full_mesh(2);
    world.run(500);
    world.input(101, control(b"a revocation"));
    world.start(103);
    world.link(102, 103);
    world.run(500);
    world.sites.get_mut(&103).expect("there").effects.clear();
    // Held there: said once more, it is not news to its peers.
    let before = world.sent_bytes;
    world.input(103, control(b"a revocation"));
    world.run(50);
    assert!(world.sent_bytes - before < 2_000);
}
