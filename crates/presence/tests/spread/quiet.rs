//! Links that are quiet, and what is said about links. [T-LIV-2], [T-SPR-3], [T-SPR-4], [T-SPR-6]

use crate::support::*;
use crate::world::World;
use tether_presence::{Effect, Event, Input};

/// Nothing comes through between these, though their link is up; both find it quiet.
fn silence(world: &mut World, a: u8, b: u8) {
    world.lossy.extend([(a, b), (b, a)]);
    world.input(a, Input::Own(Event::LinkQuiet(id(b))));
    world.input(b, Input::Own(Event::LinkQuiet(id(a))));
}

fn speak(world: &mut World, a: u8, b: u8) {
    world.lossy.retain(|pair| ![(a, b), (b, a)].contains(pair));
    world.input(a, Input::Own(Event::LinkLively(id(b))));
    world.input(b, Input::Own(Event::LinkLively(id(a))));
}

fn expired(world: &mut World, site: u8) -> usize {
    (world.take_effects(site).iter())
        .filter(|it| matches!(it, Effect::Gone { .. }))
        .count()
}

fn is_suspect(world: &World, site: u8, n: u8) -> bool {
    let presence = world.sites[&site].spread.presence();
    presence.get(&id(n)).is_some_and(|it| it.is_suspect())
}

#[test]
fn nobody_expires_where_the_first_to_pass_it_on_has_a_quiet_link() {
    let mut world = World::full_mesh(4);
    for n in 1..=12 {
        world.worker(n, &[101, 102]);
    }
    world.run(12_000);
    world.assert_equal_views();
    world.take_effects(103);
    // One after the other, as long as a link may be quiet without being down.
    for first in [101, 102] {
        silence(&mut world, first, 103);
        world.run(14_000);
        assert_eq!(expired(&mut world, 103), 0);
        speak(&mut world, first, 103);
        world.run(2_000);
    }
    world.assert_equal_views();
}

#[test]
fn what_waits_for_a_quiet_peer_is_sent_when_it_speaks() {
    let mut world = World::full_mesh(2);
    for n in 1..=5 {
        world.worker(n, &[101]);
    }
    world.run(7_000);
    silence(&mut world, 101, 102);
    let sent = world.sent_beats;
    for n in 1..=5 {
        world.say_goodbye(n);
    }
    world.run(3_000);
    assert_eq!(world.sent_beats, sent, "nothing is sent into silence");
    assert!(world.sites[&101].spread.waiting(&id(102)) >= 5);
    speak(&mut world, 101, 102);
    world.run(100);
    for n in 1..=5 {
        assert!(!world.routable(102).contains(&n), "{n}");
    }
    assert_eq!(world.sites[&101].spread.waiting(&id(102)), 0);
}

#[test]
fn a_quiet_link_makes_its_node_suspect_wherever_it_is_not_heard_itself() {
    let mut world = World::full_mesh(4);
    world.worker(1, &[101, 102]);
    world.run(7_000);
    world.input(101, Input::Own(Event::LinkQuiet(id(1))));
    world.run(100);
    assert!(is_suspect(&world, 101, 1));
    assert!(!is_suspect(&world, 102, 1), "it hears the node itself");
    assert!(is_suspect(&world, 103, 1) && is_suspect(&world, 104, 1));
    world.run(T + 200);
    for site in 101..=104 {
        assert!(!is_suspect(&world, site, 1), "{site}: its beat came");
    }
}

#[test]
fn where_a_link_was_closed_in_good_order_a_killed_node_is_suspect_as_anywhere() {
    let mut world = World::full_mesh(3);
    world.worker(1, &[101, 102]);
    world.run(7_000);
    world.nodes.get_mut(&1).expect("there").links = vec![101];
    world.input(102, Input::Own(Event::LinkClosed(id(1))));
    world.run(1_000);
    for site in 101..=103 {
        assert!(!is_suspect(&world, site, 1), "{site}");
    }
    world.kill(1);
    world.run(100);
    for site in 101..=103 {
        assert!(is_suspect(&world, site, 1), "{site}");
    }
}

#[test]
fn a_new_peers_clock_is_not_measured_by_a_beat_that_it_made_long_ago() {
    let mut world = World::full_mesh(2);
    world.worker(1, &[101]);
    world.run(12_000);
    world.start(103);
    world.link(101, 103);
    world.link(102, 103);
    for _ in 0..T / 100 + 3 {
        world.run(100);
        for (site, peer) in [(101, 103), (103, 101), (103, 102)] {
            let presence = world.sites[&site].spread.presence();
            let ahead_ms = presence.get(&id(peer)).map_or(0, |it| it.ahead_ms());
            assert!(ahead_ms > -1_000, "{ahead_ms} ms after {}", world.ms);
        }
    }
    world.assert_equal_views();
}

#[test]
fn a_lost_word_about_links_is_said_again() {
    let mut world = World::full_mesh(3);
    world.worker(1, &[101]);
    world.run(7_000);
    // 103 is not told that nothing reaches 102 from 101 any more.
    world.lossy.insert((101, 103));
    world.cut(101, 102);
    world.run(200);
    world.lossy.clear();
    world.run(40_000);
    world.take_effects(102);
    world.run(40_000);
    assert_eq!(expired(&mut world, 102), 0);
    world.assert_equal_views();
}
