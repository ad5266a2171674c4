//! Cards and beats over real links: what reaches the fleet and what never does.

use crate::mesh::{Mesh, Says, Worker, within};
use crate::script::Script;
use tether_net::testing::now_ms;
use tether_wire::beat::{EXPIRY_MS, MAX_SKEW_MS};
use tether_wire::spread::{Push, PushReply};
use tether_wire::{Signed, codec};

async fn rejected(mesh: &Mesh, reason: &str, count: u64) {
    let line = format!("tether_orchestrator_heartbeats_rejected_total{{reason=\"{reason}\"}}");
    crate::mesh::within(reason, async {
        while mesh.metric(&line) < count {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(mesh.metric(&line), count, "{reason}");
}

async fn sends(worker: &mut Worker, seq: u64, change: impl FnOnce(&mut Says)) {
    let mut says = worker.says(seq);
    change(&mut says);
    worker.send(&says).await;
}

#[tokio::test]
async fn a_forged_stale_or_future_beat_never_reaches_the_fleet() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    let good = worker.seal(&worker.says(5));
    let mut forged = good.clone();
    *forged.beat.last_mut().expect("bytes") ^= 1;
    worker.push(&forged).await;
    rejected(&mesh, "forged", 1).await;
    let other = tether_wire::NodeKey::from_seed([77; 32]);
    let others = Signed::seal(&other, &mesh.local.mesh.id, &worker.says(1).beat).expect("sealed");
    let others = Push {
        beat: others.as_bytes().to_vec(),
        card: None,
    };
    worker.push(&others).await;
    rejected(&mesh, "wrong-node", 1).await;
    sends(&mut worker, 1, |it| {
        it.beat.issued_ms = now_ms() - EXPIRY_MS - MAX_SKEW_MS - 1_000;
    })
    .await;
    rejected(&mesh, "stale", 1).await;
    sends(&mut worker, 2, |it| {
        it.beat.issued_ms = now_ms() + MAX_SKEW_MS + 60_000;
    })
    .await;
    rejected(&mesh, "future", 1).await;
    assert!(mesh.orchestrator.fleet_snapshot().is_empty());
    // The link is well all the same: a good one counts.
    worker.push(&good).await;
    mesh.fleet("the good one", |fleet| fleet.len() == 1).await;
}

#[tokio::test]
async fn a_node_without_a_good_card_is_no_worker_until_it_shows_one() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    sends(&mut worker, 1, |it| it.card.grant = None).await;
    rejected(&mesh, "ungranted", 1).await;
    let other = mesh.silent_worker(11, Script::Answer(1)).await;
    sends(&mut worker, 2, |it| it.card.grant = other.grant.clone()).await;
    rejected(&mesh, "wrong-grant", 1).await;
    assert!(mesh.orchestrator.fleet_snapshot().is_empty());
    sends(&mut worker, 3, |_| ()).await;
    mesh.fleet("its card", |fleet| fleet.len() == 1).await;
}

#[tokio::test]
async fn who_pushes_a_beat_without_its_card_is_asked_for_it() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    let mut alone = worker.seal(&worker.says(1));
    let card = alone.card.take();
    worker.push(&alone).await;
    let reply = within("the answer", worker.presence.next()).await;
    let reply = reply.expect("no error").expect("an item");
    let reply: PushReply = codec::decode("answer", &reply, 100).expect("an answer");
    assert!(reply.wants_card);
    assert!(mesh.orchestrator.fleet_snapshot().is_empty());
    let mut newer = worker.says(2);
    newer.card.revision = 2;
    let mut next = worker.seal(&newer);
    next.card = card;
    worker.push(&next).await;
    rejected(&mesh, "unnamed", 1).await;
    sends(&mut worker, 3, |_| ()).await;
    mesh.fleet("its card", |fleet| fleet.len() == 1).await;
}

#[tokio::test]
async fn a_repeated_or_reordered_beat_changes_nothing() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    let mut first = worker.says(5);
    first.beat.queue_depth = 1;
    let first = worker.seal(&first);
    worker.push(&first).await;
    mesh.fleet("the first", |fleet| fleet.len() == 1).await;
    let id = worker.id();
    sends(&mut worker, 6, |it| it.beat.queue_depth = 2).await;
    worker.push(&first).await;
    rejected(&mesh, "reordered", 1).await;
    let fleet = mesh.orchestrator.fleet_snapshot();
    let view = fleet.worker(&id).expect("there");
    assert_eq!(view.queue_depth(), 2);
    let mut forked = worker.says(6);
    forked.beat.queue_depth = 3;
    worker.send(&forked).await;
    rejected(&mesh, "cloned", 1).await;
    assert_eq!(view.queue_depth(), 2);
}

#[tokio::test]
async fn goodbye_is_gone_at_once_and_no_replay_brings_it_back() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.worker(10, Script::Answer(1)).await;
    let replay = worker.seal(&worker.says(2));
    let goodbye = worker.goodbye(3);
    worker.send(&goodbye).await;
    mesh.fleet("gone", |fleet| fleet.is_empty()).await;
    worker.push(&replay).await;
    rejected(&mesh, "departed", 1).await;
    assert!(mesh.orchestrator.fleet_snapshot().is_empty());
    sends(&mut worker, 4, |_| ()).await;
    mesh.fleet("back by something newer", |fleet| fleet.len() == 1)
        .await;
}

#[tokio::test]
async fn a_worker_whose_link_breaks_is_suspect_and_well_again_at_its_next_heartbeat() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(1)).await;
    worker.node.shutdown().await;
    mesh.fleet("suspect", |fleet| fleet.workers().all(|it| it.is_suspect()))
        .await;
    assert_eq!(mesh.orchestrator.fleet_snapshot().len(), 1, "not gone");
    let mut again = mesh.silent_worker(10, Script::Answer(1)).await;
    sends(&mut again, 2, |_| ()).await;
    mesh.fleet("well", |fleet| fleet.workers().all(|it| !it.is_suspect()))
        .await;
}

#[tokio::test]
async fn a_flood_is_dropped_before_it_costs_a_verification() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    for seq in 0..200 {
        sends(&mut worker, seq, |_| ()).await;
    }
    let counted = || {
        let rejected = "tether_orchestrator_heartbeats_rejected_total{reason=\"flood\"}";
        (
            mesh.metric("tether_orchestrator_heartbeats_accepted_total"),
            mesh.metric(rejected),
        )
    };
    crate::mesh::within("all are counted", async {
        // One is the orchestrator's own.
        while counted().0 + counted().1 < 201 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    let (accepted, flood) = counted();
    assert!(
        flood > 0 && accepted >= 20,
        "{accepted} accepted, {flood} dropped"
    );
}
