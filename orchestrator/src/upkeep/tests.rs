use super::*;
use crate::job::{JobState, NewJob};
use crate::store::sqlite::SqliteStore;
use crate::store::{Lease, Opening};
use tether_wire::{CorrelationId, Digest, TenantId};

const US: NodeId = NodeId([5; 32]);
const OTHER: NodeId = NodeId([6; 32]);

fn id(token: &str) -> CorrelationId {
    CorrelationId::derive(&TenantId::new("acme").expect("valid"), token)
}

async fn reserve(store: &SqliteStore, token: &str, owner: NodeId, lease_until_ms: u64) {
    let job = NewJob {
        correlation: id(token),
        tenant: TenantId::new("acme").expect("valid"),
        retry_token: token.to_owned(),
        request_hash: Digest([1; 32]),
        model: "tiny@1.0".parse().expect("valid"),
        keyed: true,
        seed: 1,
        owner,
        lease_until_ms,
        deadline_ms: 10_000,
        max_tokens: None,
        now_ms: 100,
    };
    store.reserve(job).await.expect("reserved");
}

#[tokio::test]
async fn what_nobody_will_end_is_released_and_what_somebody_will_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s.sqlite");
    let store = SqliteStore::open(&path, Opening::in_folder(dir.path(), 1)).expect("opens");
    let open = OpenJobs::default();
    let now_ms = ORPHAN_GRACE_MS + 500;
    let alive = |until_ms| Lease {
        orchestrator: OTHER,
        region: "local".parse().expect("valid"),
        started_ms: 1,
        until_ms,
    };
    store.renew(alive(now_ms)).await.expect("works");
    reserve(&store, "held", US, 0).await;
    let held = open.hold(id("held"));
    reserve(&store, "ours", US, now_ms).await;
    reserve(&store, "expired", OTHER, 499).await;
    reserve(&store, "leased", OTHER, now_ms).await;
    let release = || release_abandoned(&store, &open, US, 10, now_ms);
    assert_eq!(release().await, Ok(2));
    for (token, state) in [
        ("held", JobState::Reserved),
        ("ours", JobState::Failed),
        ("expired", JobState::Failed),
        ("leased", JobState::Reserved),
    ] {
        let job = store.job(id(token)).await.expect("works").expect("there");
        assert_eq!(job.state, state, "{token}");
    }
    drop(held);
    assert_eq!(release().await, Ok(1));
    // The owner was there a while ago: somebody else may still take its job over.
    store.renew(alive(500)).await.expect("works");
    assert_eq!(release().await, Ok(0));
    store.renew(alive(499)).await.expect("works");
    assert_eq!(release().await, Ok(1));
}

#[test]
fn pauses_double_up_to_the_longest() {
    assert_eq!(longer(RETRY_MIN), 2 * RETRY_MIN);
    assert_eq!(longer(RETRY_MAX), RETRY_MAX);
}
