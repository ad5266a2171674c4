//! What one orchestrator is told, all know: over real links, each with workers of its own. (PRE-5)

use crate::fleets::Fleets;
use std::time::Duration;
use tether_net::{Herald, Load, Node, Pushes, Told, Uplinks};
use tether_wire::beat::NodeState;
use tether_wire::{NodeId, Role};
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_linked_to_one_orchestrator_each_are_in_all_fleets_until_they_leave() {
    let fleets = Fleets::start(3).await;
    let mut workers = Vec::new();
    for (at, n) in [10, 11, 12].into_iter().enumerate() {
        workers.push(fleets.serving(n, at).await);
    }
    fleets
        .everywhere("all three", |fleet| fleet.len() == 3)
        .await;
    let goodbye = workers[1].goodbye(2);
    workers[1].send(&goodbye).await;
    let gone = workers[1].id();
    fleets
        .everywhere("the goodbye", |fleet| {
            fleet.len() == 2 && fleet.worker(&gone).is_none()
        })
        .await;
    let busy = workers[0].id();
    let mut says = workers[0].says(2);
    says.models().clear();
    workers[0].send(&says).await;
    fleets
        .everywhere("the new card", |fleet| {
            fleet
                .worker(&busy)
                .is_some_and(|worker| worker.card().models.is_empty())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_comes_late_has_the_fleet_with_the_next_beat_of_each() {
    let mut fleets = Fleets::start(2).await;
    let mut worker = fleets.serving(10, 0).await;
    fleets.join(2).await;
    // What was said before it came proves nothing to it: it could be a recording.
    fleets.members[2].rejected("unproven", 1).await;
    assert!(fleets.members[2].orchestrator.fleet_snapshot().is_empty());
    let says = worker.says(2);
    worker.send(&says).await;
    let id = worker.id();
    let late = &fleets.members[2];
    late.fleet("one beat", |fleet| fleet.worker(&id).is_some())
        .await;
    fleets.all_met().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_links_were_broken_is_known_once_they_are_not() {
    let mut fleets = Fleets::start(2).await;
    let mut leaves = fleets.serving(10, 0).await;
    let stays = fleets.serving(11, 0).await;
    let other = fleets.members[1].id();
    let link = fleets.members[0].orchestrator.node().linked(&other);
    link.expect("linked").close("a test pulls the plug");
    let goodbye = leaves.goodbye(2);
    leaves.send(&goodbye).await;
    let (gone, there) = (leaves.id(), stays.id());
    fleets
        .everywhere("the goodbye", |fleet| {
            fleet.worker(&gone).is_none() && fleet.worker(&there).is_some()
        })
        .await;
    // One that was stopped meanwhile has all of it too, from the next beats on.
    fleets.restart(1).await;
    let mut stays = stays;
    fleets.members[1].rejected("unproven", 1).await;
    let says = stays.says(2);
    stays.send(&says).await;
    fleets
        .everywhere("who stayed", |fleet| {
            fleet.len() == 1 && fleet.worker(&there).is_some()
        })
        .await;
}

/// A worker that finds its orchestrators by itself.
async fn finding(fleets: &Fleets, n: u8) -> (Node, Pushes, Uplinks) {
    let worker = fleets.worker(n, 0).await;
    let told = Told {
        state: NodeState::Serving,
        worker: worker.says(1).card.worker,
    };
    let (_, telling) = watch::channel(told);
    let herald = Herald::start(&worker.node, 7, telling, Load::default);
    let uplinks = Uplinks::start(&worker.node, 2);
    let pushes = Pushes::start(herald, uplinks.watch(), || ());
    (worker.node, pushes, uplinks)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_orchestrators_all_die_is_in_the_fleet_of_the_next_one() {
    let mut fleets = Fleets::start(2).await;
    let (node, pushes, _uplinks) = finding(&fleets, 10).await;
    let id: NodeId = node.id();
    fleets
        .everywhere("the worker", |fleet| fleet.worker(&id).is_some())
        .await;
    for member in std::mem::take(&mut fleets.members) {
        member.orchestrator.shutdown().await.expect("stops");
    }
    fleets.join(2).await;
    fleets
        .everywhere("the worker", |fleet| fleet.worker(&id).is_some())
        .await;
    tokio::time::timeout(Duration::from_secs(30), pushes.goodbye())
        .await
        .expect("a goodbye takes no longer");
    fleets
        .everywhere(
            "its goodbye",
            tether_orchestrator::fleet::Snapshot::is_empty,
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_stops_is_gone_for_the_others_and_a_gateway_is_there_for_all() {
    let mut fleets = Fleets::start(3).await;
    let leaving = fleets.members.remove(1);
    leaving.orchestrator.shutdown().await.expect("stops");
    fleets.all_met().await;
    for member in &fleets.members {
        member.suspects("orchestrator", 0).await;
    }
    let (gateway, _) = fleets
        .local
        .config(crate::mesh::key(&fleets.local, 3), Role::Gateway);
    let gateway = Node::start(gateway, crate::mesh::no_service()).await;
    let gateway = gateway.expect("a gateway");
    let told = Told {
        state: NodeState::Serving,
        worker: None,
    };
    let (_, telling) = watch::channel(told);
    let herald = Herald::start(&gateway, 1, telling, Load::default);
    let link = gateway.link(fleets.members[0].id(), Role::Orchestrator);
    let (_, links) = watch::channel(vec![link.await.expect("linked")]);
    let _pushes = Pushes::start(herald, links, || ());
    for member in &fleets.members {
        member.counts("gateway", 1).await;
    }
}
