//! Nodes behind routers that let nothing in. (NET-4)

use crate::lan::{Lan, Mapping, NAT};
use crate::mesh::{Mesh, Node, hosts};
use crate::support::eventually;

/// Requests whose time is measured.
const REQUESTS: usize = 100;

/// A mesh in which an orchestrator and a worker are each behind a router that lets nothing in, and
/// the gateway and one more orchestrator are not.
struct Homes {
    a: Node,
    b: Node,
    one: Node,
    edge: Node,
    entry: Node,
    mesh: Mesh,
    _lan: Lan,
}

impl Homes {
    fn new(mapping: Mapping) -> Option<Self> {
        let mut lan = Lan::new(&[NAT])?;
        let [entry, a, edge] = hosts(&mut lan);
        let (b, one) = (lan.home(mapping), lan.home(mapping));
        let mut mesh = Mesh::new();
        let entry = mesh.entry_point(entry);
        let a = mesh.orchestrator("a", a);
        let b = mesh.orchestrator("b", b);
        let one = mesh.worker("one", one, 0);
        let edge = mesh.gateway(edge);
        Some(Self {
            mesh,
            a,
            b,
            one,
            edge,
            entry,
            _lan: lan,
        })
    }

    /// Waits until the worker has a link to both orchestrators.
    fn linked(&self) {
        for orchestrator in [&self.a, &self.b] {
            eventually("the worker is linked with it and gets work", || {
                orchestrator.routable() == [self.one.id.clone()]
                    && orchestrator.metric_of("tether_net_links", "worker") == 1.0
            });
        }
    }

    /// Leaves nothing but what goes between the two homes, and asks for an answer over it.
    fn answered_between_homes(&mut self) {
        self.a.kill();
        assert_eq!(
            self.mesh.answered(&self.edge, "from home to home"),
            self.one.id
        );
        let median = self.mesh.median_us(&self.edge, REQUESTS);
        println!("a request from home to home takes {median} µs at the median of {REQUESTS}");
    }

    /// Links of the orchestrator at home to workers that go through the relay.
    fn relayed(&self) -> f64 {
        self.b.metric_of("tether_net_links_relayed", "worker")
    }
}

#[test]
fn two_behind_routers_that_keep_ports_find_a_direct_way_through_both() {
    let Some(mut homes) = Homes::new(Mapping::Steady) else {
        return;
    };
    homes.linked();
    homes.answered_between_homes();
    eventually("their link does not go through the relay any more", || {
        homes.relayed() == 0.0
    });
    // Nobody told them of a way but the relay, and it is not needed any more.
    homes.entry.kill();
    let median = homes.mesh.median_us(&homes.edge, REQUESTS);
    println!("and {median} µs without a relay");
    assert_eq!(
        homes.mesh.answered(&homes.edge, "without a relay"),
        homes.one.id
    );
}

#[test]
fn two_behind_routers_that_change_ports_speak_through_the_meshs_relay() {
    let Some(mut homes) = Homes::new(Mapping::Random) else {
        return;
    };
    homes.linked();
    homes.answered_between_homes();
    eventually("their link goes through the relay", || {
        homes.relayed() == 1.0
    });
}

#[test]
fn a_worker_whose_router_lets_nothing_in_is_found_and_served_over_the_link_that_it_dialled() {
    for mapping in [Mapping::Steady, Mapping::Random] {
        let Some(mut lan) = Lan::new(&[NAT]) else {
            return;
        };
        let [dht, a, edge] = hosts(&mut lan);
        let home = lan.home(mapping);
        let mut mesh = Mesh::new();
        let _dht = mesh.bootstrap(dht);
        let a = mesh.orchestrator("a", a);
        let one = mesh.worker("one", home, 0);
        let edge = mesh.gateway(edge);
        eventually("the worker gets work", || a.routable() == [one.id.clone()]);
        assert_eq!(mesh.answered(&edge, "who is at home?"), one.id);
    }
}
