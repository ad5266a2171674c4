//! The network falls apart and comes together again. (PRE-4, REL-2)

use crate::lan::{FILTER, Lan};
use crate::mesh::{DHT_PORTS, Mesh, hosts};
use crate::support::eventually;
use std::time::{Duration, Instant};

/// A guard only. Announcements are renewed every two to three minutes, more often just after the start.
const ANNOUNCED_AGAIN: Duration = Duration::from_secs(300);

fn sorted(ids: &[&String]) -> Vec<String> {
    let mut ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.sort();
    ids
}

#[test]
fn each_side_of_a_partition_serves_with_what_it_reaches_and_both_agree_when_it_heals() {
    let Some(mut lan) = Lan::new(&[FILTER]) else {
        return;
    };
    let [dht, a, one, b, two, edge] = hosts(&mut lan);
    let mut mesh = Mesh::new();
    let dht = mesh.bootstrap(dht);
    let a = mesh.orchestrator("a", a);
    let b = mesh.orchestrator("b", b);
    let one = mesh.worker("one", one, 0);
    let two = mesh.worker("two", two, 0);
    let edge = mesh.gateway(edge);
    let both = sorted(&[&one.id, &two.id]);
    eventually("both orchestrators see both workers", || {
        a.routable() == both && b.routable() == both
    });
    mesh.answered(&edge, "before the cut");

    lan.cut(
        &[&a.host, &one.host],
        &[&b.host, &two.host, &edge.host, &dht.host],
    );
    eventually("the gateway's side gives up the worker beyond", || {
        b.known() == [two.id.clone()]
    });
    eventually("and the other side the one that it cannot reach", || {
        a.known() == [one.id.clone()]
    });
    for _ in 0..3 {
        assert_eq!(mesh.answered(&edge, "while cut in two"), two.id);
    }

    lan.heal();
    eventually("both orchestrators see both workers again", || {
        a.routable() == both && b.routable() == both
    });
    mesh.answered(&edge, "after the cut");

    // What one has seen die, none revives: also not the other side's memory of it.
    let mut one = one;
    one.kill();
    eventually("the one that died is gone from both views", || {
        a.known() == [two.id.clone()] && b.known() == [two.id.clone()]
    });
    assert_eq!(mesh.answered(&edge, "without the dead"), two.id);
    assert_eq!(
        (a.known(), b.known()),
        (vec![two.id.clone()], vec![two.id.clone()])
    );
}

#[test]
fn dht_nodes_get_their_ports_where_the_system_gives_out_the_same_ones() {
    let Some(mut lan) = Lan::new(&[]) else {
        return;
    };
    let [dht] = hosts(&mut lan);
    // Each node takes one of these besides its own: without care, soon one that another was given.
    dht.choose_ports(DHT_PORTS.start..=DHT_PORTS.end + 10);
    let mut mesh = Mesh::new();
    let mut dht = mesh.bootstrap(dht);
    // It said that it is ready; and it can come back to them.
    dht.kill();
    dht.start();
}

#[test]
fn a_mesh_outlives_the_restart_of_its_whole_dht() {
    let Some(mut lan) = Lan::new(&[FILTER]) else {
        return;
    };
    let [dht, a, one, two, edge] = hosts(&mut lan);
    let mut mesh = Mesh::new();
    let mut dht = mesh.bootstrap(dht);
    let a = mesh.orchestrator("a", a);
    let one = mesh.worker("one", one, 0);
    let edge = mesh.gateway(edge);
    assert_eq!(mesh.answered(&edge, "with a DHT"), one.id);

    dht.kill();
    assert_eq!(mesh.answered(&edge, "without a DHT"), one.id);

    // Everything that was announced is forgotten; a newcomer is found and served all the same.
    dht.start();
    let two = mesh.worker("two", two, 0);
    let begin = Instant::now();
    while a.routable() != sorted(&[&one.id, &two.id]) {
        assert!(
            begin.elapsed() < ANNOUNCED_AGAIN,
            "the newcomer gets no work"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
