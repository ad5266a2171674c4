//! Links come, go, and are never two.

use crate::mesh::{PATIENCE, TestMesh, key, start};
use std::time::{Duration, Instant};
use tether_net::LinkEvent;
use tether_net::testing::{now_ms, within};
use tether_wire::{NodeKey, Role};

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_the_same_time_share_one_link() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let gateway = mesh.node(Role::Gateway).await;
    let dials: Vec<_> = (0..20)
        .map(|_| {
            let (node, id) = (gateway.node.clone(), orchestrator.id());
            tokio::spawn(async move { node.link(id, Role::Orchestrator).await })
        })
        .collect();
    for dial in dials {
        assert!(within(dial).await.expect("no panic").is_ok());
    }
    assert_eq!(gateway.node.links().len(), 1);
    orchestrator
        .metric("tether_net_links_opened_total{role=\"gateway\"} 1")
        .await;
    gateway
        .metric("tether_net_links_opened_total{role=\"orchestrator\"} 1")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_dial_each_other_at_once_keep_the_same_single_link() {
    for _ in 0..10 {
        let mesh = TestMesh::new();
        let (mut one, mut two) =
            tokio::join!(mesh.node(Role::Orchestrator), mesh.node(Role::Orchestrator));
        let role = Role::Orchestrator;
        let (a, b) = within(async {
            tokio::join!(one.node.link(two.id(), role), two.node.link(one.id(), role))
        })
        .await;
        assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
        let (at_one, at_two) = (one.up(two.id()).await, two.up(one.id()).await);
        for link in [&at_one, &at_two] {
            let mut call = link.call("who", Some(PATIENCE), b"").await.expect("a call");
            assert!(call.next().await.expect("an answer").is_some());
        }
        // Neither side has seen it go: no flapping.
        for node in [&one, &two] {
            assert_eq!(node.node.links().len(), 1);
            assert!(
                !node
                    .registry
                    .encode()
                    .contains("tether_net_links_closed_total{")
            );
        }
        // And they mean the same one: what one closes is closed for the other.
        for link in one.node.links() {
            link.close("the end of the test");
        }
        let reason = two.down(one.id()).await;
        assert!(reason.contains("the end of the test"), "{reason}");
        assert!(two.node.links().is_empty());
        drop((at_one, at_two));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_killed_is_known_to_be_gone() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.node(Role::Orchestrator).await;
    // A worker on a runtime of its own, which is torn down under it: nothing says goodbye.
    let victim = tokio::runtime::Runtime::new().expect("a runtime");
    let configured = mesh.config(Role::Worker);
    let worker = victim.spawn(start(configured)).await.expect("it starts");
    let link = orchestrator.link_to(&worker).await;
    assert_eq!(
        orchestrator.event().await,
        LinkEvent::Up(link.peer().clone())
    );
    let killed = Instant::now();
    victim.shutdown_background();
    let reason = orchestrator.down(worker.id()).await;
    assert!(reason.contains("no sign of life"), "{reason}");
    println!("known after {:?}", killed.elapsed());
    assert!(orchestrator.node.linked(&worker.id()).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_killed_and_restarted_is_linked_before_its_old_link_times_out() {
    let mesh = TestMesh::new();
    let (mut config, registry) = mesh.config(Role::Orchestrator);
    config.limits.idle_timeout = Duration::from_secs(25);
    let mut orchestrator = start((config, registry)).await;
    let identity = key();
    let victim = tokio::runtime::Runtime::new().expect("a runtime");
    let (mut config, registry) = mesh.config_of(identity.clone(), Role::Worker);
    config.limits.idle_timeout = Duration::from_secs(25);
    let first = victim
        .spawn(start((config, registry)))
        .await
        .expect("it starts");
    let old = first.node.clone();
    let link = victim
        .spawn({
            let id = orchestrator.id();
            async move { old.link(id, Role::Orchestrator).await }
        })
        .await
        .expect("no panic");
    assert!(link.is_ok());
    orchestrator.up(identity.id()).await;
    victim.shutdown_background();
    let second = mesh.node_of(identity.clone(), Role::Worker).await;
    second.link_to(&orchestrator).await;
    let reason = orchestrator.down(identity.id()).await;
    assert!(reason.contains("newer link"), "{reason}");
    let link = orchestrator.up(identity.id()).await;
    let mut call = link.call("who", Some(PATIENCE), b"").await.expect("a call");
    assert!(call.next().await.expect("an answer").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_links_is_not_kept_waiting_by_a_dial_to_where_it_was_before() {
    let mesh = TestMesh::new();
    let mut keys = [key(), key()];
    keys.sort_by_key(NodeKey::id);
    // The one with the smaller id prefers its own dial.
    let [smaller, greater] = keys;
    let one = mesh.node_of(smaller, Role::Worker).await;
    // Takes datagrams, and says nothing.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (mut config, registry) = mesh.config_of(greater, Role::Orchestrator);
    config.advertise = vec![nobody.local_addr().expect("bound")];
    let other = start((config, registry)).await;
    let (node, id) = (one.node.clone(), other.id());
    let in_vain = tokio::spawn(async move { node.link(id, Role::Orchestrator).await });
    nobody.set_nonblocking(true).expect("set");
    let nobody = tokio::net::UdpSocket::from_std(nobody).expect("a socket");
    // The dial has found where to go.
    within(nobody.readable()).await.expect("a datagram");
    let link = within(other.node.link(one.id(), Role::Worker)).await;
    assert!(link.is_ok(), "{link:?}");
    in_vain.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_ends_with_the_grant_of_its_peer() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.node(Role::Orchestrator).await;
    let (mut config, registry) = mesh.config(Role::Gateway);
    let short = mesh.grant(config.key.id(), Role::Gateway, |grant| {
        grant.expires_ms = now_ms() + 4_000;
    });
    config.grant = Some(short);
    let mut gateway = start((config, registry)).await;
    gateway.link_to(&orchestrator).await;
    let reason = orchestrator.down(gateway.id()).await;
    assert!(reason.contains("grant"), "{reason}");
    let reason = gateway.down(orchestrator.id()).await;
    assert!(reason.contains("grant of this node is over"), "{reason}");
    let error = gateway
        .node
        .link(orchestrator.id(), Role::Orchestrator)
        .await;
    assert!(error.expect_err("expired").to_string().contains("expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_shut_down_says_goodbye() {
    let mesh = TestMesh::new();
    let (gateway, mut orchestrator, link) = mesh.pair().await;
    orchestrator.up(gateway.id()).await;
    gateway.node.shutdown().await;
    let reason = orchestrator.down(gateway.id()).await;
    assert!(reason.contains("shutting down"), "{reason}");
    assert!(within(link.closed()).await.contains("shutting down"));
    assert!(gateway.node.links().is_empty());
    let error = gateway
        .node
        .link(orchestrator.id(), Role::Orchestrator)
        .await;
    assert!(error.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_needs_a_link_no_more_is_told_from_one_that_stops() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.node(Role::Orchestrator).await;
    let worker = mesh.node(Role::Worker).await;
    let mut lost_as_surplus = Vec::new();
    for ends in ["release", "close"] {
        let link = worker.link_to(&orchestrator).await;
        orchestrator.up(worker.id()).await;
        match ends {
            "release" => link.release("there are better ones"),
            _ => link.close("enough"),
        }
        loop {
            if let LinkEvent::Down { is_surplus, .. } = orchestrator.event().await {
                lost_as_surplus.push(is_surplus);
                break;
            }
        }
    }
    assert_eq!(lost_as_surplus, [true, false]);
}
