//! Nodes behind routers that let nothing in. (NET-4)

use crate::lan::{Lan, Mapping, NAT};
use crate::mesh::{Mesh, hosts};
use crate::support::eventually;

#[test]
fn a_worker_whose_router_lets_nothing_in_is_found_and_served_over_the_link_that_it_dialled() {
    for mapping in [Mapping::Steady, Mapping::Random] {
        let Some(mut lan) = Lan::new(&[NAT]) else {
            return;
        };
        let [dht, a, edge] = hosts(&mut lan);
        let home = lan.home(mapping);
        let mut mesh = Mesh::new();
        let _dht = mesh.bootstrap(dht, "");
        let a = mesh.orchestrator("a", a);
        let one = mesh.worker("one", home, 0);
        let edge = mesh.gateway(edge);
        eventually("the worker gets work", || a.routable() == [one.id.clone()]);
        assert_eq!(mesh.answered(&edge, "who is at home?"), one.id);
    }
}
