//! Workers that cannot be linked: no request waits for what is known, and nobody stays unusable.

use crate::mesh::{Mesh, Worker, request};
use crate::script::Script;
use std::time::Duration;
use tether_orchestrator::fleet::keeper::REDIAL_AFTER_MS;
use tether_wire::rpc::Code;

/// Waits until the link to the only worker is known to be lost.
async fn lost(mesh: &Mesh) {
    mesh.fleet("the link is lost", |fleet| {
        fleet.workers().all(|worker| worker.redial_mono_ms() > 0)
    })
    .await;
}

/// A mesh whose only worker has no link; its node listens or is gone.
async fn unlinked(listens: bool) -> (Mesh, Worker) {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(2)).await;
    if listens {
        let link = worker.node.linked(&mesh.orchestrator.id());
        link.expect("linked").close("as the test wants it");
    } else {
        worker.node.shutdown().await;
    }
    lost(&mesh).await;
    (mesh, worker)
}

/// Whether a request was refused before anything was tried for it.
async fn refused_at_once(mesh: &Mesh, token: &str) -> bool {
    let answer = mesh.submit(&request(token)).await;
    assert_eq!(answer.failed().code, Code::Unavailable);
    assert_eq!(answer.failed().retry_after_ms, Some(5_000));
    let correlation = request(token).correlation;
    let job = mesh.orchestrator.store().job(correlation).await;
    job.expect("works").is_none()
}

/// Waits until the worker may be dialled again, from when its link is known to be lost. That is a
/// time and nothing else: no event tells of it.
async fn may_be_dialled() {
    tokio::time::sleep(Duration::from_millis(REDIAL_AFTER_MS)).await;
}

#[tokio::test]
async fn a_request_that_nobody_else_can_serve_is_not_kept_waiting_for_a_dead_worker() {
    let (mesh, _dead) = unlinked(false).await;
    for token in ["a", "b", "c"] {
        assert!(refused_at_once(&mesh, token).await, "{token} was tried");
    }
    // Then it is dialled again, in vain, and that is remembered too.
    may_be_dialled().await;
    assert!(!refused_at_once(&mesh, "again").await, "not dialled again");
    assert!(refused_at_once(&mesh, "d").await, "tried again at once");
    let _other = mesh.worker(11, Script::Answer(2)).await;
    assert!(mesh.submit(&request("e")).await.is_whole());
}

#[tokio::test]
async fn a_worker_that_links_again_is_asked_before_it_is_heard() {
    let (mesh, _before) = unlinked(false).await;
    let again = mesh.silent_worker(10, Script::Answer(2)).await;
    let answer = mesh.submit(&request("a")).await;
    assert_eq!(answer.worker(), Some(again.id()), "{:?}", answer.error);
}

#[tokio::test]
async fn a_worker_that_lost_its_link_and_says_nothing_is_dialled_again_after_a_while() {
    let (mesh, worker) = unlinked(true).await;
    assert!(refused_at_once(&mesh, "a").await);
    may_be_dialled().await;
    assert!(mesh.submit(&request("b")).await.is_whole());
    assert_eq!(worker.scripted.orders(), 1);
}
