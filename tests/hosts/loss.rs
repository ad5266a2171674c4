//! Packets are lost. (REL-2)

use crate::lan::{LOSS, Lan};
use crate::mesh::{Mesh, hosts};
use crate::support::eventually;
use std::time::{Duration, Instant};

/// Share of packets that is lost between any two hosts, in each direction.
const LOST_PERCENT: u8 = 15;
/// Longer than a worker that is not heard stays in the fleet (15 s).
const WATCHED: Duration = Duration::from_secs(25);

#[test]
fn with_many_packets_lost_requests_are_answered_and_no_worker_expires() {
    let Some(mut lan) = Lan::new(&[LOSS]) else {
        return;
    };
    let [dht, a, one, two, edge] = hosts(&mut lan);
    let mut mesh = Mesh::new();
    let _dht = mesh.bootstrap(dht);
    let a = mesh.orchestrator("a", a);
    let one = mesh.worker("one", one, 5);
    let two = mesh.worker("two", two, 5);
    let edge = mesh.gateway(edge);
    eventually("both workers get work", || a.routable().len() == 2);
    mesh.answered(&edge, "before the loss");

    lan.lose(LOST_PERCENT);
    let mut both = vec![one.id.clone(), two.id.clone()];
    both.sort();
    let begin = Instant::now();
    let mut answers = 0;
    while begin.elapsed() < WATCHED {
        let said = format!("one of many answers, number {answers}, in words that take a while");
        let reply = mesh.chat(&edge, &said).expect("the gateway answers");
        assert_eq!(reply.answer(), said);
        answers += 1;
        assert_eq!(a.known(), both, "no worker expires");
    }
    println!(
        "{answers} answers in {} s with {LOST_PERCENT} % lost",
        WATCHED.as_secs()
    );
}
