//! Nodes that no datagram reaches: their records name addresses at which nobody answers, and a relay.

use crate::mesh::{TestMesh, TestNode, start};
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};
use tether_net::relay::{self, Relay, RelayConfig};
use tether_net::testing::{loopback, within};
use tether_net::{Link, LinkError};
use tether_wire::Role;
use tether_wire::grant::Access;

/// Calls whose time is measured.
const CALLS: usize = 200;

async fn relay_of(mesh: &TestMesh) -> Relay {
    let config = RelayConfig {
        listen: loopback(),
        mesh: mesh.mesh,
        max_clients: 16,
        client_bytes_per_second: NonZeroU32::new(4_194_304).expect("not zero"),
    };
    relay::run(config).await.expect("it listens")
}

/// Where datagrams vanish.
fn nowhere() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(loopback()).expect("a socket");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

async fn hidden(mesh: &TestMesh, role: Role, relay: &Relay, at: SocketAddr) -> TestNode {
    let (mut config, registry) = mesh.config(role);
    config.advertise = vec![at];
    config.relays = vec![format!("http://{}/", relay.address())];
    start((config, registry)).await
}

async fn linked(from: &TestNode, to: &TestNode) -> Link {
    within(async {
        loop {
            // Its relay is in its record as soon as it has found it.
            match from.node.link(to.id(), to.node.role()).await {
                Ok(link) => return link,
                Err(LinkError::Unreachable { .. } | LinkError::Timeout { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
}

/// [T-REL-1] [T-REC-4]
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_cannot_be_reached_link_through_their_meshs_relay() {
    let mesh = TestMesh::new();
    let relay = relay_of(&mesh).await;
    let (_hole, at) = nowhere();
    let worker = hidden(&mesh, Role::Worker, &relay, at).await;
    let orchestrator = hidden(&mesh, Role::Orchestrator, &relay, at).await;
    let link = linked(&worker, &orchestrator).await;
    assert!(relay.clients() >= 2, "both are members");

    let (mut times, mut relayed) = (Vec::new(), 0);
    for _ in 0..CALLS {
        let begin = Instant::now();
        let mut call = link.call("echo", None, &[7; 200]).await.expect("a call");
        let item = call.next().await.expect("an answer").expect("an item");
        assert_eq!(item.len(), 200);
        relayed += usize::from(link.is_relayed());
        times.push(begin.elapsed());
    }
    times.sort();
    let (p50, p99) = (times[CALLS / 2], times[CALLS * 99 / 100]);
    println!("a call of 200 B: p50 {p50:?}, p99 {p99:?}; {relayed} of {CALLS} through the relay");

    // A node without that relay cannot be sent through it by a record.
    let (config, registry) = mesh.config(Role::Gateway);
    let stranger = start((config, registry)).await;
    let refused = stranger
        .node
        .link(orchestrator.id(), Role::Orchestrator)
        .await;
    assert!(refused.is_err(), "it has no way there");
    relay.shutdown().await;
}

/// [T-REL-2]
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_carries_nothing_for_who_is_not_a_member_of_its_mesh() {
    let (mesh, others) = (TestMesh::new(), TestMesh::with(Access::Invite));
    let relay = relay_of(&mesh).await;
    let (_hole, at) = nowhere();
    let worker = hidden(&others, Role::Worker, &relay, at).await;
    let orchestrator = hidden(&others, Role::Orchestrator, &relay, at).await;
    let dial = worker.node.link(orchestrator.id(), Role::Orchestrator);
    let outcome = tokio::time::timeout(Duration::from_secs(20), dial).await;
    assert!(!matches!(outcome, Ok(Ok(_))), "{outcome:?}");
    assert_eq!(relay.clients(), 0);
    relay.shutdown().await;
}

/// [T-REL-3]
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_prove_no_key_are_bounded_and_do_not_keep_members_out() {
    let mesh = TestMesh::new();
    let relay = relay_of(&mesh).await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(
            tokio::net::TcpStream::connect(relay.address())
                .await
                .expect("connected"),
        );
    }
    // Some are turned away at once; all are within the time that one has to prove a key.
    let mut byte = [0];
    let closed = async {
        for stream in &mut idle {
            let _ = tokio::io::AsyncReadExt::read(stream, &mut byte).await;
        }
    };
    within(closed).await;
    let (_hole, at) = nowhere();
    let worker = hidden(&mesh, Role::Worker, &relay, at).await;
    let orchestrator = hidden(&mesh, Role::Orchestrator, &relay, at).await;
    linked(&worker, &orchestrator).await;
    relay.shutdown().await;
}
