//! A worker's address changes while it lives: a new lease, another network. (NET-4, PRE-5)

use crate::lan::{FILTER, Lan};
use crate::mesh::{LINKS, Mesh, hosts};
use crate::support::eventually;

/// Words of an answer, and milliseconds for each: it lasts longer than the change and its discovery.
const WORDS: usize = 160;
const WORD_MS: u64 = 100;

#[test]
fn a_worker_that_gets_another_address_goes_on_with_its_stream_and_stays_in_the_fleet() {
    let Some(mut lan) = Lan::new(&[FILTER]) else {
        return;
    };
    let [dht, a, one, edge] = hosts(&mut lan);
    let mut mesh = Mesh::new();
    let _dht = mesh.bootstrap(dht);
    let a = mesh.orchestrator("a", a);
    let one = mesh.worker("one", one, WORD_MS);
    let edge = mesh.gateway(edge);
    mesh.answered(&edge, "at the first address");

    let links = a.metric("tether_net_links_opened_total");
    let said: Vec<_> = (0..WORDS).map(|n| format!("word{n}")).collect();
    let stream = mesh.asking(&edge, &said.join(" "), true);
    eventually("the worker is at work", || {
        a.fleet().iter().any(|row| row["in_flight"] == 1)
    });
    let new = one.host.move_to(77);
    let reply = stream.answer().expect("the gateway answers");
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert!(reply.text.contains("[DONE]"), "{}", reply.text);
    assert!(reply.text.contains(&format!("word{}", WORDS - 1)));
    assert_eq!(a.known(), std::slice::from_ref(&one.id), "it never left");
    let links_since = a.metric("tether_net_links_opened_total") - links;
    println!("links made anew meanwhile: {links_since}");
    assert_eq!(mesh.answered(&edge, "at the second address"), one.id);

    // Whoever looks for it finds it there.
    eventually("its record carries the new address", || {
        let log = one.log();
        let mut published = log
            .lines()
            .filter(|line| line.contains("published this node"));
        published
            .next_back()
            .is_some_and(|line| line.contains(&format!("[{new}:{LINKS}]")))
    });
}
