//! Links to peers that are killed, and to peers that are starved of CPU for a while. [T-LNK-5]

use crate::mesh::{PATIENCE, TestMesh, TestNode, key, start};
use std::time::Duration;
use tether_net::testing::{Starvable, within};
use tether_net::{LinkEvent, LinkLimits};
use tether_wire::{NodeId, Role};

impl TestNode {
    /// Waits for the next event but those of coming up.
    async fn turn(&mut self) -> LinkEvent {
        loop {
            match self.event().await {
                LinkEvent::Up(_) => {}
                event => return event,
            }
        }
    }
}

fn short() -> LinkLimits {
    LinkLimits {
        quiet_after: Duration::from_millis(400),
        keep_alive: Duration::from_millis(100),
        ..LinkLimits::default()
    }
}

/// A patient orchestrator and a worker on a runtime of its own, linked.
async fn pair(mesh: &TestMesh, victim: &Starvable) -> (TestNode, TestNode) {
    pair_with(mesh, victim, short()).await
}

async fn pair_with(
    mesh: &TestMesh,
    victim: &Starvable,
    limits: LinkLimits,
) -> (TestNode, TestNode) {
    let (mut config, registry) = mesh.config(Role::Orchestrator);
    config.limits = limits.clone();
    let mut orchestrator = start((config, registry)).await;
    let (mut config, registry) = mesh.config(Role::Worker);
    config.limits = limits;
    let worker = victim.run(start((config, registry))).await;
    let (node, id) = (worker.node.clone(), orchestrator.id());
    let linked = victim.run(async move { node.link(id, Role::Orchestrator).await });
    linked.await.expect("linked");
    orchestrator.up(worker.id()).await;
    (orchestrator, worker)
}

fn is_quiet_of(event: &LinkEvent, id: NodeId) -> bool {
    matches!(event, LinkEvent::Quiet(peer) if peer.id == id)
}

fn is_lively_of(event: &LinkEvent, id: NodeId) -> bool {
    matches!(event, LinkEvent::Lively(peer) if peer.id == id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_starved_peer_is_quiet_and_keeps_its_link_and_its_calls() {
    let (mesh, victim) = (TestMesh::new(), Starvable::new());
    let (mut orchestrator, worker) = pair(&mesh, &victim).await;
    let link = orchestrator.up(worker.id()).await;
    let mut call = link.call("echo", None, b"before").await.expect("a call");
    let item = within(call.next()).await.expect("answered");
    assert_eq!(item.as_deref(), Some(&b"before"[..]));
    assert!(!link.is_quiet());

    let starved = victim.starve();
    within(link.until_quiet()).await;
    let event = orchestrator.turn().await;
    assert!(is_quiet_of(&event, worker.id()), "{event:?}");
    assert!(link.is_quiet() && link.is_up());
    orchestrator
        .metric("tether_net_links_quiet{role=\"worker\"} 1")
        .await;
    call.send(b"meanwhile").await.expect("it waits in the link");

    drop(starved);
    let event = orchestrator.turn().await;
    assert!(is_lively_of(&event, worker.id()), "{event:?}");
    assert!(!link.is_quiet());
    let item = within(call.next()).await.expect("the call lives");
    assert_eq!(item.as_deref(), Some(&b"meanwhile"[..]));
    orchestrator
        .metric("tether_net_links_quiet{role=\"worker\"} 0")
        .await;
    assert!(worker.node.linked(&orchestrator.id()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_peer_knows_that_it_is_dead_long_before_its_silence_says_so() {
    let (mesh, victim) = (TestMesh::new(), Starvable::new());
    let patient = || LinkLimits {
        quiet_after: PATIENCE,
        idle_timeout: PATIENCE * 2,
        ..LinkLimits::default()
    };
    let (mut orchestrator, worker) = pair_with(&mesh, &victim, patient()).await;
    let link = orchestrator.up(worker.id()).await;
    let asked = || {
        let link = link.clone();
        async move { link.until_unanswered().await }
    };
    // One that lives answers, to however many.
    let asking = (0..50).map(|_| tokio::spawn(asked())).collect::<Vec<_>>();
    let answered = "tether_net_calls_total{method=\"ping\",direction=\"outgoing\",outcome=\"ok\"}";
    within(async {
        while !orchestrator.registry.encode().contains(answered) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(!link.is_quiet());
    let starved = victim.starve();
    for asking in asking {
        within(asking).await.expect("no panic");
    }
    assert!(link.is_quiet() && link.is_up());
    let event = orchestrator.turn().await;
    assert!(is_quiet_of(&event, worker.id()), "{event:?}");
    drop(starved);
    let event = orchestrator.turn().await;
    assert!(is_lively_of(&event, worker.id()), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_merely_idle_is_never_quiet() {
    let (mesh, victim) = (TestMesh::new(), Starvable::new());
    let (mut orchestrator, worker) = pair(&mesh, &victim).await;
    let link = orchestrator.up(worker.id()).await;
    // Ten times as long as it may be silent; what is looked for is that nothing happens.
    let quiet = tokio::time::timeout(short().quiet_after * 10, link.until_quiet());
    assert!(quiet.await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_is_quiet_first_and_down_later() {
    let (mesh, victim) = (TestMesh::new(), Starvable::new());
    let (mut orchestrator, worker) = pair(&mesh, &victim).await;
    let link = orchestrator.up(worker.id()).await;
    drop(victim);
    let event = orchestrator.turn().await;
    assert!(is_quiet_of(&event, worker.id()), "{event:?}");
    let event = orchestrator.turn().await;
    let LinkEvent::Down { peer, reason, .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!(peer.id, worker.id());
    assert!(reason.contains("no sign of life"), "{reason}");
    within(link.until_quiet()).await;
    orchestrator
        .metric("tether_net_links_quiet{role=\"worker\"} 0")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_starved_peer_that_is_dialled_again_keeps_the_link_that_it_had() {
    let (mesh, victim) = (TestMesh::new(), Starvable::new());
    let (mut orchestrator, worker) = pair(&mesh, &victim).await;
    let link = orchestrator.up(worker.id()).await;
    let mut call = link.call("echo", None, b"").await.expect("a call");
    let starved = victim.starve();
    within(link.until_quiet()).await;
    let (node, id) = (orchestrator.node.clone(), worker.id());
    let dial = tokio::spawn(async move { node.link(id, Role::Worker).await });
    // The dial is on its way; what it meets is decided when the peer is awake again.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(starved);
    let again = within(dial).await.expect("no panic").expect("a link");
    assert!(!again.is_quiet());
    call.send(b"still there").await.expect("the call lives");
    let item = within(call.next()).await.expect("the call lives");
    assert_eq!(item.as_deref(), Some(&b"still there"[..]));
    assert_eq!(orchestrator.node.links().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_killed_and_started_again_is_linked_anew_while_its_old_link_is_quiet() {
    let mesh = TestMesh::new();
    let identity = key();
    let victim = Starvable::new();
    let first = victim
        .run(start(mesh.config_of(identity.clone(), Role::Orchestrator)))
        .await;
    let (mut config, registry) = mesh.config(Role::Worker);
    config.limits = short();
    let mut worker = start((config, registry)).await;
    let old = worker.link_to(&first).await;
    drop(victim);
    within(old.until_quiet()).await;
    assert!(old.is_up());
    let second = mesh.node_of(identity, Role::Orchestrator).await;
    let new = worker.link_to(&second).await;
    assert!(!new.is_quiet());
    let reason = worker.down(second.id()).await;
    assert!(reason.contains("somewhere else"), "{reason}");
    let mut call = new.call("who", Some(PATIENCE), b"").await.expect("a call");
    assert!(call.next().await.expect("an answer").is_some());
}
