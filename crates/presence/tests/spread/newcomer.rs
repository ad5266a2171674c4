//! What a newcomer is given, and what it must not believe. [T-SPR-5], [T-LIV-4]

use crate::support::*;
use crate::world::{World, control, urgent};
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

#[test]
fn many_control_messages_keep_no_newcomer_from_the_fleet_and_revocations_come_first() {
    let mut world = World::full_mesh(2);
    for n in 1..=40 {
        world.worker(n, &[101]);
    }
    // Some 64 MiB of invites that were used, and a revocation among them.
    for n in 0..8_192u32 {
        let sealed = [n.to_be_bytes().as_slice(), &[7; 8_000]].concat();
        world.input(101, control(&sealed));
    }
    world.run(7_000);
    let revocation = b"a revocation";
    world.input(101, urgent(revocation));
    world.run(200);
    world.start(103);
    world.link(101, 103);
    world.run(500);
    let spread = &world.sites[&103].spread;
    let known = (1..=40).filter(|n| spread.presence().get(&id(*n)).is_some());
    assert_eq!(known.count(), 40, "they live with their next beats");
    assert!(spread.controls().any(|it| it == revocation));
    let early = spread.controls().count();
    assert!((100..8_000).contains(&early), "{early}");
    world.run(T);
    world.assert_equal_views();
    world.run(10_000);
    assert_eq!(world.sites[&103].spread.controls().count(), 8_193);
}

#[test]
fn peers_that_hold_the_same_control_messages_send_none() {
    let mut world = World::full_mesh(2);
    for n in [101, 102] {
        for number in 0..500u32 {
            world.input(n, control(&number.to_be_bytes()));
        }
    }
    world.run(1_000);
    world.cut(101, 102);
    world.run(30_000);
    world.sent_controls = 0;
    world.link(101, 102);
    world.run(30_000);
    assert_eq!(world.sent_controls, 0);
}

#[test]
fn what_a_peer_cannot_take_is_sent_to_it_now_and_then_and_not_without_end() {
    let mut world = World::full_mesh(2);
    world.deaf.insert(102);
    world.input(101, control(b"it has no room for this"));
    world.run(60_000);
    let sent = world.sent_controls;
    assert!((5..=30).contains(&sent), "{sent} in a minute");
}
