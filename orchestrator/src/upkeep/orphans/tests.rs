use super::*;
use crate::job::{JobState, NewJob};
use crate::store::Opening;
use crate::store::sqlite::SqliteStore;
use std::sync::Arc;
use tether_telemetry::metrics::Registry;
use tether_wire::{Digest, TenantId};

const US: NodeId = NodeId([5; 32]);
const OTHER: NodeId = NodeId([6; 32]);

struct World {
    store: SqliteStore,
    is_steady: bool,
    held: OpenJobs,
    metrics: Arc<OrchestratorMetrics>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.sqlite");
        let opening = Opening::in_folder(folder.path(), 1);
        Self {
            store: SqliteStore::open(&path, opening).expect("opens"),
            is_steady: true,
            held: OpenJobs::default(),
            metrics: OrchestratorMetrics::register(&Registry::new()),
            _folder: folder,
        }
    }

    /// What one of them does, as (taken over, ended).
    async fn look_after(&self, id: NodeId, now_ms: u64) -> (usize, usize) {
        let orphans = Orphans {
            store: &self.store,
            is_steady: self.is_steady,
            id,
            held: &self.held,
            metrics: &self.metrics,
        };
        let done = orphans.look_after(100, now_ms).await.expect("works");
        (done.taken_over, done.ended)
    }

    async fn lives(&self, orchestrator: NodeId, until_ms: u64) {
        let lease = Lease {
            orchestrator,
            region: "local".parse().expect("valid"),
            started_ms: 1,
            until_ms,
        };
        self.store.renew(lease).await.expect("works");
    }

    async fn reserve(&self, token: &str, owner: NodeId) {
        let tenant = TenantId::new("acme").expect("valid");
        let job = NewJob {
            correlation: id(token),
            tenant,
            retry_token: token.to_owned(),
            request_hash: Digest([1; 32]),
            model: "tiny@1.0".parse().expect("valid"),
            keyed: true,
            seed: 1,
            owner,
            lease_until_ms: u64::MAX / 4,
            deadline_ms: 10_000,
            max_tokens: None,
            now_ms: 100,
        };
        self.store.reserve(job).await.expect("reserved");
    }

    /// Where it stands, whose it is, and which run of it this is.
    async fn state(&self, token: &str) -> (JobState, NodeId, u64) {
        let job = self.store.job(id(token)).await.expect("works");
        let job = job.expect("there");
        (job.state, job.owner, job.fence - job.created_ms + 1)
    }
}

fn id(token: &str) -> CorrelationId {
    CorrelationId::derive(&TenantId::new("acme").expect("valid"), token)
}

#[tokio::test]
async fn a_job_of_a_lost_orchestrator_waits_for_who_submitted_it_and_is_ended_when_nobody_comes() {
    let world = World::new();
    world.reserve("a", OTHER).await;
    world.lives(US, 1_000_000).await;
    world.lives(OTHER, 1_000).await;
    assert_eq!(world.look_after(US, 1_000).await, (0, 0), "it lives");
    assert_eq!(world.look_after(US, 1_001).await, (1, 0));
    assert_eq!(world.state("a").await, (JobState::Reserved, US, 2));
    assert_eq!(world.look_after(US, 1_001 + GRACE_MS).await, (0, 0));
    assert_eq!(world.look_after(US, 1_002 + GRACE_MS).await, (0, 1));
    assert_eq!(world.state("a").await, (JobState::Failed, US, 2));
    let job = world.store.job(id("a")).await.expect("works");
    let why = job.expect("there").error.expect("one");
    assert!(why.contains("nobody came"), "{why}");
    assert_eq!(world.look_after(US, 900_000).await, (0, 0), "once");
}

/// The store was away for all of them alike, and whoever is back first knows nothing of the others.
#[tokio::test]
async fn who_could_not_say_that_it_lives_waits_for_others_to_say_so_before_it_takes_anything() {
    let mut world = World::new();
    world.reserve("a", OTHER).await;
    world.lives(OTHER, 1_000).await;
    world.lives(US, 1_000_000).await;
    world.is_steady = false;
    assert_eq!(world.look_after(US, 20_000).await, (0, 0));
    assert_eq!(world.state("a").await, (JobState::Reserved, OTHER, 1));
    world.is_steady = true;
    assert_eq!(world.look_after(US, 20_000).await, (1, 0), "it is lost");
}

#[tokio::test]
async fn what_is_run_here_is_left_alone_however_long_it_takes() {
    let world = World::new();
    world.lives(US, 1_000_000).await;
    world.reserve("a", US).await;
    let held = world.held.hold(id("a"));
    assert_eq!(world.look_after(US, 900_000).await, (0, 0));
    drop(held);
    assert_eq!(world.look_after(US, 900_000).await, (0, 1));
}

#[tokio::test]
async fn the_jobs_of_one_that_died_are_shared_among_all_that_live_and_each_has_one_owner() {
    let world = World::new();
    let live: Vec<NodeId> = (10..13).map(|n| NodeId([n; 32])).collect();
    for id in &live {
        world.lives(*id, 1_000_000).await;
    }
    for n in 0..60 {
        world.reserve(&n.to_string(), OTHER).await;
    }
    let mut shares = Vec::new();
    for id in &live {
        shares.push(world.look_after(*id, 500).await.0);
    }
    assert_eq!(shares.iter().sum::<usize>(), 60);
    assert!(shares.iter().all(|share| *share > 5), "{shares:?}");
    for n in 0..60 {
        assert_eq!(world.state(&n.to_string()).await.2, 2, "taken over once");
    }
    assert_eq!(
        world.look_after(OTHER, 500).await,
        (0, 0),
        "the dead inherit nothing"
    );
}
