//! A node's links to orchestrators: found, configured or remembered, and replaced. (NET-7)

use crate::mesh::{TestMesh, TestNode, key, start};
use std::collections::BTreeSet;
use std::path::Path;
use tether_net::testing::within;
use tether_net::{Link, UplinkConfig, Uplinks};
use tether_wire::{NodeId, Role, Topic};

fn control() -> Topic {
    Topic::Control(tether_net::testing::region())
}

async fn orchestrators(mesh: &TestMesh, count: usize) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        let node = mesh.node(Role::Orchestrator).await;
        node.node.announce(&control()).await.expect("announced");
        nodes.push(node);
    }
    nodes
}

async fn worker(mesh: &TestMesh, uplinks: UplinkConfig) -> TestNode {
    let (mut config, registry) = mesh.config(Role::Worker);
    config.uplinks = uplinks;
    start((config, registry)).await
}

/// Waits until the links are as wanted; whose they are.
async fn until(uplinks: &Uplinks, wanted: impl Fn(&BTreeSet<NodeId>) -> bool) -> BTreeSet<NodeId> {
    let mut watch = uplinks.watch();
    let ids = |links: &Vec<Link>| links.iter().map(|link| link.peer().id).collect();
    let links = within(watch.wait_for(|links| wanted(&ids(links)))).await;
    ids(&links.expect("the keeper runs"))
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_are_linked_as_are_wanted_and_one_that_is_lost_is_replaced() {
    let mesh = TestMesh::new();
    let nodes = orchestrators(&mesh, 4).await;
    let worker = worker(&mesh, UplinkConfig::default()).await;
    let uplinks = Uplinks::start(&worker.node, 2);
    let first = until(&uplinks, |ids| ids.len() == 2).await;
    assert_eq!(uplinks.links().len(), 2);
    let lost = *first.first().expect("two");
    let dying = nodes.iter().find(|node| node.id() == lost).expect("ours");
    dying.node.shutdown().await;
    let second = until(&uplinks, |ids| ids.len() == 2 && !ids.contains(&lost)).await;
    assert_eq!(second.intersection(&first).count(), 1, "the other stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_later_is_found_by_a_node_that_has_none() {
    let mesh = TestMesh::new();
    let worker = worker(&mesh, UplinkConfig::default()).await;
    let uplinks = Uplinks::start(&worker.node, 3);
    assert!(uplinks.links().is_empty());
    let late = orchestrators(&mesh, 1).await;
    let found = until(&uplinks, |ids| !ids.is_empty()).await;
    assert_eq!(found, BTreeSet::from([late[0].id()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_one_is_linked_though_nobody_announces_it() {
    let mesh = TestMesh::new();
    let hidden = mesh.node(Role::Orchestrator).await;
    let config = UplinkConfig {
        orchestrators: vec![key().id(), hidden.id()],
        memory: None,
    };
    let worker = worker(&mesh, config).await;
    let uplinks = Uplinks::start(&worker.node, 1);
    let linked = until(&uplinks, |ids| !ids.is_empty()).await;
    assert_eq!(linked, BTreeSet::from([hidden.id()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_that_crowd_the_topic_do_not_hide_the_orchestrator() {
    let mesh = TestMesh::new();
    let mut crowd = Vec::new();
    for _ in 0..8 {
        // They hold no grant of an orchestrator.
        let stranger = mesh.node(Role::Gateway).await;
        stranger.node.announce(&control()).await.expect("announced");
        crowd.push(stranger);
    }
    let real = orchestrators(&mesh, 1).await;
    let worker = worker(&mesh, UplinkConfig::default()).await;
    let uplinks = Uplinks::start(&worker.node, 1);
    let linked = until(&uplinks, |ids| !ids.is_empty()).await;
    assert_eq!(linked, BTreeSet::from([real[0].id()]));
}

/// Starts a worker with a memory, under DHT nodes of the test's choice.
async fn remembering(mesh: &TestMesh, folder: &Path, has_dht: bool) -> TestNode {
    let (mut config, registry) = mesh.config(Role::Worker);
    config.uplinks.memory = Some(folder.to_owned());
    if !has_dht {
        // Nobody answers there.
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        config.bootstrap = vec![silent.local_addr().expect("an address")];
        std::mem::forget(silent);
    }
    start((config, registry)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_linked_before_is_linked_again_without_any_dht() {
    let mesh = TestMesh::new();
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = orchestrators(&mesh, 1).await;
    let first = remembering(&mesh, folder.path(), true).await;
    let uplinks = Uplinks::start(&first.node, 3);
    until(&uplinks, |ids| ids.len() == 1).await;
    let file = folder.path().join("orchestrators.json");
    within(async {
        while !file.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(uplinks);
    first.node.shutdown().await;
    let second = remembering(&mesh, folder.path(), false).await;
    let uplinks = Uplinks::start(&second.node, 3);
    let linked = until(&uplinks, |ids| !ids.is_empty()).await;
    assert_eq!(linked, BTreeSet::from([nodes[0].id()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_nobody_needs_are_given_up_and_those_in_use_are_not() {
    let mesh = TestMesh::new();
    let nodes = orchestrators(&mesh, 3).await;
    let worker = worker(&mesh, UplinkConfig::default()).await;
    let mut calls = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let link = worker.link_to(node).await;
        // Of three links one has a call; with luck it is not the chosen one.
        if n == 0 {
            calls.push(link.call("hang", None, b"").await.expect("a call"));
        }
    }
    let uplinks = Uplinks::start(&worker.node, 1);
    let chosen = until(&uplinks, |ids| ids.len() == 1).await;
    let kept: BTreeSet<NodeId> = chosen.into_iter().chain([nodes[0].id()]).collect();
    within(async {
        let mut events = worker.node.events();
        while worker.node.links().len() > kept.len() {
            events.recv().await.expect("an event");
        }
    })
    .await;
    let left: BTreeSet<NodeId> = (worker.node.links().iter().map(|it| it.peer().id)).collect();
    assert_eq!(left, kept);
}
