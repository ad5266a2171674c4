//! Heartbeats over real links: what reaches the fleet and what never does.

use crate::mesh::{Mesh, Worker};
use crate::script::Script;
use tether_net::testing::now_ms;
use tether_wire::heartbeat::{MAX_AGE_MS, MAX_FUTURE_MS, WorkerState};
use tether_wire::{Heartbeat, Region, Signed};

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

async fn sends(worker: &mut Worker, seq: u64, change: impl FnOnce(&mut Heartbeat)) {
    let mut beat = worker.beat(seq);
    change(&mut beat);
    worker.send(&beat).await;
}

#[tokio::test]
async fn a_forged_stale_or_future_heartbeat_never_reaches_the_fleet() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    let good = worker.seal(&worker.beat(1));
    let mut forged = good.clone();
    *forged.last_mut().expect("bytes") ^= 1;
    worker.send_bytes(forged).await;
    rejected(&mesh, "forged", 1).await;
    let other = tether_wire::NodeKey::from_seed([77; 32]);
    let mut others = worker.beat(1);
    others.worker = other.id();
    let others = Signed::seal(&other, &mesh.local.mesh.id, &others).expect("sealed");
    worker.send_bytes(others.as_bytes().to_vec()).await;
    rejected(&mesh, "wrong-worker", 1).await;
    sends(&mut worker, 1, |b| {
        b.issued_ms = now_ms() - MAX_AGE_MS - 1_000
    })
    .await;
    rejected(&mesh, "stale", 1).await;
    sends(&mut worker, 1, |b| {
        b.issued_ms = now_ms() + MAX_FUTURE_MS + 60_000
    })
    .await;
    rejected(&mesh, "future", 1).await;
    sends(&mut worker, 1, |b| {
        b.region = Region::new("away").expect("valid")
    })
    .await;
    rejected(&mesh, "wrong-region", 1).await;
    assert!(mesh.orchestrator.fleet_snapshot().is_empty());
    // The link is well all the same: a good one counts.
    worker.send_bytes(good).await;
    mesh.fleet("the good one", |fleet| fleet.len() == 1).await;
}

#[tokio::test]
async fn a_replayed_or_reordered_heartbeat_changes_nothing() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.silent_worker(10, Script::Answer(1)).await;
    let mut first = worker.beat(5);
    first.queue_depth = 1;
    let first = worker.seal(&first);
    worker.send_bytes(first.clone()).await;
    mesh.fleet("the first", |fleet| fleet.len() == 1).await;
    let id = worker.id();
    sends(&mut worker, 6, |b| b.queue_depth = 2).await;
    let depth = move |fleet: &tether_orchestrator::fleet::Snapshot| {
        fleet.worker(&id).map_or(0, |view| view.beat.queue_depth)
    };
    mesh.fleet("the second", move |fleet| depth(fleet) == 2)
        .await;
    worker.send_bytes(first).await;
    rejected(&mesh, "reordered", 1).await;
    let latest = worker.seal(&worker.beat(7));
    worker.send_bytes(latest.clone()).await;
    worker.send_bytes(latest).await;
    rejected(&mesh, "replayed", 1).await;
    assert_eq!(
        mesh.metric("tether_orchestrator_heartbeats_accepted_total"),
        3
    );
}

#[tokio::test]
async fn goodbye_is_gone_at_once_and_no_replay_brings_it_back() {
    let mesh = Mesh::start().await;
    let mut worker = mesh.worker(10, Script::Answer(1)).await;
    let replay = worker.seal(&worker.beat(2));
    sends(&mut worker, 3, |b| b.state = WorkerState::Leaving).await;
    mesh.fleet("gone", |fleet| fleet.is_empty()).await;
    worker.send_bytes(replay).await;
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
    mesh.fleet("suspect", |fleet| fleet.workers().all(|it| it.suspect))
        .await;
    assert_eq!(mesh.orchestrator.fleet_snapshot().len(), 1, "not gone");
    let mut again = mesh.silent_worker(10, Script::Answer(1)).await;
    sends(&mut again, 2, |_| ()).await;
    mesh.fleet("well", |fleet| fleet.workers().all(|it| !it.suspect))
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
        while counted().0 + counted().1 < 200 {
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
