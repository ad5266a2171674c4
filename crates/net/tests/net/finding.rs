//! Topics, records, bootstrap nodes.

use crate::mesh::{PATIENCE, TestMesh, TestNode, key, start};
use std::collections::BTreeSet;
use std::time::Duration;
use tether_net::testing::{dht, loopback, region, within};
use tether_net::{LinkError, NetError, bootstrap, probe};
use tether_wire::grant::Access;
use tether_wire::{NodeId, Role, Topic};

fn presence() -> Topic {
    Topic::Presence(region())
}

/// Looks up until the answer is the expected one.
async fn finds(node: &TestNode, topic: &Topic, expected: &[NodeId]) {
    let expected: BTreeSet<NodeId> = expected.iter().copied().collect();
    let found = async {
        loop {
            let found = node.node.lookup(topic).await.expect("an answer");
            let found: BTreeSet<NodeId> = found.into_iter().collect();
            if found == expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, found).await;
    assert!(seen.is_ok(), "{expected:?} was not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_announces_is_found_over_the_dht_and_linked() {
    let mesh = TestMesh::new();
    let (one, two) = tokio::join!(mesh.node(Role::Worker), mesh.node(Role::Worker));
    one.node.announce(&presence()).await.expect("announced");
    two.node.announce(&presence()).await.expect("announced");
    let seeker = mesh.node(Role::Orchestrator).await;
    let found = seeker.node.lookup(&presence()).await.expect("an answer");
    let found: BTreeSet<NodeId> = found.into_iter().collect();
    assert_eq!(found, BTreeSet::from([one.id(), two.id()]));
    for id in found {
        let link = seeker.node.link(id, Role::Worker).await.expect("linked");
        assert_eq!(link.peer().id, id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_find_itself_and_is_not_found_after_it_withdrew() {
    let mesh = TestMesh::new();
    let (worker, seeker) = tokio::join!(mesh.node(Role::Worker), mesh.node(Role::Gateway));
    worker.node.announce(&presence()).await.expect("announced");
    worker
        .node
        .announce(&presence())
        .await
        .expect("twice is as good as once");
    finds(&seeker, &presence(), &[worker.id()]).await;
    finds(&worker, &presence(), &[]).await;
    worker.node.withdraw(&presence()).await;
    finds(&seeker, &presence(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_shut_down_is_not_found_any_more() {
    let mesh = TestMesh::new();
    let (worker, seeker) = tokio::join!(mesh.node(Role::Worker), mesh.node(Role::Gateway));
    worker.node.announce(&presence()).await.expect("announced");
    finds(&seeker, &presence(), &[worker.id()]).await;
    worker.node.shutdown().await;
    finds(&seeker, &presence(), &[]).await;
    let again = worker.node.announce(&presence()).await;
    assert!(matches!(again, Err(NetError::Shutdown)), "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_mesh_and_an_open_one_do_not_meet_under_the_same_name() {
    let private = TestMesh::new();
    let open = TestMesh::with(Access::Open);
    let topic = presence();
    let (private_worker, open_worker) =
        tokio::join!(private.node(Role::Worker), open.node(Role::Worker));
    private_worker
        .node
        .announce(&topic)
        .await
        .expect("announced");
    open_worker.node.announce(&topic).await.expect("announced");
    let private_seeker = private.node(Role::Orchestrator).await;
    let open_seeker = open.node(Role::Orchestrator).await;
    finds(&private_seeker, &topic, &[private_worker.id()]).await;
    let found = open_seeker.node.lookup(&topic).await.expect("an answer");
    assert!(found.contains(&open_worker.id()));
    assert!(!found.contains(&private_worker.id()));
    // Who is of another mesh and knows the key nevertheless gets no further than the greeting.
    let error = open_seeker
        .node
        .link(private_worker.id(), Role::Worker)
        .await;
    assert!(matches!(error, Err(LinkError::Refused(_))), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_restarted_elsewhere_is_linked_again_under_its_new_address() {
    let mesh = TestMesh::new();
    let identity = key();
    let mut gateway = mesh.node(Role::Gateway).await;
    let first = mesh.node_of(identity.clone(), Role::Orchestrator).await;
    let link = gateway.link_to(&first).await;
    let old_address = first.node.addresses();
    first.node.shutdown().await;
    gateway.down(identity.id()).await;
    assert!(!link.is_up());
    let second = mesh.node_of(identity, Role::Orchestrator).await;
    assert_ne!(second.node.addresses(), old_address, "a new port");
    let link = gateway.link_to(&second).await;
    let mut call = link.call("who", None, b"").await.expect("a call");
    let who = within(call.next())
        .await
        .expect("an answer")
        .expect("an item");
    assert!(String::from_utf8_lossy(&who).contains(&gateway.id().to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_a_record_is_told_from_one_that_does_not_answer() {
    let mesh = TestMesh::new();
    let seeker = mesh.node(Role::Gateway).await;
    let nobody = key().id();
    let error = seeker.node.link(nobody, Role::Worker).await;
    assert!(
        matches!(error, Err(LinkError::NotFound(id)) if id == nobody),
        "{error:?}"
    );
    let oneself = seeker.node.link(seeker.id(), Role::Gateway).await;
    assert!(matches!(oneself, Err(LinkError::Oneself)));
    let gone = mesh.node(Role::Worker).await;
    gone.node.shutdown().await;
    let error = seeker.node.link(gone.id(), Role::Worker).await;
    assert!(
        matches!(error, Err(LinkError::Unreachable { .. })),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_before_its_bootstrap_nodes_joins_when_they_come() {
    // Silent, and nobody else's, until the nodes come.
    let silent = [(); 4].map(|()| std::net::UdpSocket::bind(loopback()).expect("a socket"));
    let addresses: Vec<_> = silent
        .iter()
        .map(|it| it.local_addr().expect("an address"))
        .collect();
    let mesh = TestMesh::with(Access::Invite);
    let lonely = |(mut config, registry): (tether_net::NodeConfig, _)| {
        config.bootstrap = addresses[..2].to_vec();
        start((config, registry))
    };
    let worker = lonely(mesh.config(Role::Worker)).await;
    assert!(worker.node.announce(&presence()).await.is_err());
    drop(silent);
    let nodes = bootstrap::run(addresses.clone(), vec![])
        .await
        .expect("DHT nodes");
    let seeker = lonely(mesh.config(Role::Orchestrator)).await;
    finds(&seeker, &presence(), &[worker.id()]).await;
    let linked = async {
        while seeker.node.link(worker.id(), Role::Worker).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(linked).await;
    nodes.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_listen_everywhere_find_and_link_each_other() {
    let everywhere = "0.0.0.0:0".parse().expect("an address");
    let dht = bootstrap::run(vec![everywhere; 10], vec![])
        .await
        .expect("DHT nodes");
    let joined = bootstrap::run(vec![everywhere; 2], dht.addresses()[..2].to_vec()).await;
    let joined = joined.expect("more DHT nodes");
    let mesh = TestMesh::new();
    let open = |bootstrap: Vec<_>, role| {
        let (mut config, registry) = mesh.config(role);
        (config.listen, config.dht_listen) = (everywhere, everywhere);
        config.bootstrap = bootstrap;
        start((config, registry))
    };
    let worker = open(dht.addresses()[..3].to_vec(), Role::Worker).await;
    assert!(
        worker
            .node
            .addresses()
            .iter()
            .all(|a| !a.ip().is_unspecified() && a.port() != 0)
    );
    worker.node.announce(&presence()).await.expect("announced");
    let seeker = open(joined.addresses().to_vec(), Role::Orchestrator).await;
    finds(&seeker, &presence(), &[worker.id()]).await;
    seeker.link_to(&worker).await;
    joined.shutdown().await;
    dht.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_a_dht_node_that_is_there_from_one_that_is_not() {
    let report = probe(dht()[0], PATIENCE).await.expect("it is there");
    assert!(report.rtt < PATIENCE);
    // A socket that nobody reads.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = silent.local_addr().expect("an address");
    let short = Duration::from_millis(300);
    let error = probe(address, short).await.expect_err("nobody is there");
    assert!(matches!(error, NetError::NoAnswer { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_refused_at_the_start() {
    let mesh = TestMesh::new();
    let service = || std::sync::Arc::new(Nothing);
    let (mut config, _) = mesh.config(Role::Worker);
    config.limits.keep_alive = config.limits.idle_timeout;
    let error = tether_net::Node::start(config, service()).await.err();
    assert!(matches!(error, Some(NetError::Config(_))), "{error:?}");
    let (mut config, _) = mesh.config(Role::Worker);
    config.bootstrap = vec!["[::1]:49737".parse().expect("an address")];
    let error = tether_net::Node::start(config, service()).await.err();
    let error = error.expect("the DHT speaks IPv4").to_string();
    assert!(error.contains("IPv4"), "{error}");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let (mut config, _) = mesh.config(Role::Worker);
    config.listen = taken.local_addr().expect("an address");
    let error = tether_net::Node::start(config, service()).await.err();
    assert!(matches!(error, Some(NetError::Listen { .. })), "{error:?}");
}

struct Nothing;

impl tether_net::Service for Nothing {
    fn serve(
        &self,
        _: tether_net::Incoming,
    ) -> tether_net::BoxFuture<'static, Result<(), tether_wire::rpc::RpcError>> {
        Box::pin(async { Ok(()) })
    }
}
