//! Workers that are killed, and workers that are starved of CPU for a while: until the first piece
//! of an answer they are alike, from then on the starved one is waited for. [T-LNK-5]

use crate::mesh::{Answer, Mesh, PATIENCE, Worker, cold, key, request, within};
use crate::script::{Script, Scripted};
use std::sync::Arc;
use std::time::Duration;
use tether_net::Node;
use tether_net::testing::{Starvable, Starved};
use tether_orchestrator::job::JobState;
use tether_wire::codec;
use tether_wire::infer::InferRequest;
use tether_wire::rpc::{Code, method};
use tether_wire::{NodeId, Role};

/// A machine of a worker's own.
struct Machine(Starvable);

impl Machine {
    fn new() -> Self {
        Self(Starvable::new())
    }

    fn starve(&self) -> Starved {
        self.0.starve()
    }

    /// A worker that is there, routable, and runs here.
    async fn worker(&self, mesh: &Mesh, n: u8, script: Script) -> Worker {
        let (key, in_mesh) = (key(&mesh.local, n), mesh.local.mesh.id);
        let scripted = Arc::new(Scripted::new(key.id(), script));
        let (config, _) = mesh.local.config(key.clone(), Role::Worker);
        let grant = config.grant.clone();
        let orchestrator = mesh.orchestrator.id();
        let started = self.0.run(async move {
            let node = Node::start(config, scripted.clone()).await;
            let node = node.expect("a worker");
            let link = node.link(orchestrator, Role::Orchestrator).await;
            let link = link.expect("linked");
            let presence = link.call(method::PRESENCE, None, &[]).await;
            Worker {
                mesh: in_mesh,
                key,
                grant,
                presence: presence.expect("called"),
                node,
                scripted,
            }
        });
        let mut worker = started.await;
        let beat = worker.says(1);
        worker.send(&beat).await;
        let id = worker.id();
        mesh.fleet("the worker is there", move |fleet| {
            fleet.worker(&id).is_some()
        })
        .await;
        worker
    }
}

async fn submit(mesh: &Mesh, request: &InferRequest) -> Answer {
    let link = mesh.link().await;
    let body = codec::encode(request);
    let call = link.call(method::SUBMIT, Some(PATIENCE * 2), &body).await;
    Answer::new(call.expect("called"))
}

async fn suspect(mesh: &Mesh, id: NodeId, suspect: bool) {
    mesh.fleet("the suspicion", move |fleet| {
        fleet
            .worker(&id)
            .is_some_and(|it| it.is_suspect() == suspect)
    })
    .await;
}

async fn ordered(worker: &Worker) {
    let mut orders = worker.scripted.orders.subscribe();
    within("the order", orders.wait_for(|count| *count == 1))
        .await
        .expect("lives");
}

fn is_only_quiet(mesh: &Mesh, id: NodeId) -> bool {
    let link = mesh.orchestrator.node().linked(&id);
    link.is_some_and(|link| link.is_quiet())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starved_for_ten_seconds_keeps_its_stream_where_nobody_else_can_go_on() {
    let mesh = Mesh::start().await;
    let machine = Machine::new();
    let mut worker = machine.worker(&mesh, 10, Script::Paused(3)).await;
    let wanted = request("a");
    let mut answer = submit(&mesh, &wanted).await;
    answer.next().await.expect("accepted");
    answer.next().await.expect("a piece");
    let starved = machine.starve();
    suspect(&mesh, worker.id(), true).await;
    // The length of the starvation is the case, not a wait for something.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(is_only_quiet(&mesh, worker.id()));
    drop(starved);
    worker.scripted.turn.send_replace(true);
    answer.rest().await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.text(), "xxx");
    assert_eq!(mesh.job(&wanted).await.attempts, 1);
    let beat = worker.says(2);
    worker.send(&beat).await;
    suspect(&mesh, worker.id(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_starved_worker_is_left_for_another_which_goes_on_and_gets_what_comes_next() {
    let mesh = Mesh::start().await;
    let machine = Machine::new();
    let worker = machine.worker(&mesh, 10, Script::Paused(3)).await;
    let other = mesh.worker_with(11, Script::Answer(3), cold).await;
    let wanted = request("a");
    let mut answer = submit(&mesh, &wanted).await;
    answer.next().await.expect("accepted");
    answer.next().await.expect("a piece");
    let starved = machine.starve();
    answer.rest().await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.text(), "xxx");
    assert!(is_only_quiet(&mesh, worker.id()), "and not down yet");
    let job = mesh.job(&wanted).await;
    assert_eq!((job.attempts, job.worker), (2, Some(other.id())));
    let next = mesh.submit(&request("b")).await;
    assert_eq!(next.worker(), Some(other.id()), "suspects come last");
    drop(starved);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_before_its_first_piece_is_left_for_another_long_before_its_link_is_down() {
    let mesh = Mesh::start().await;
    let machine = Machine::new();
    let dying = machine.worker(&mesh, 10, Script::AcceptOnly).await;
    let other = mesh.worker_with(11, Script::Answer(2), cold).await;
    let wanted = request("a");
    let mut answer = submit(&mesh, &wanted).await;
    ordered(&dying).await;
    drop(machine);
    answer.rest().await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.worker(), Some(other.id()));
    assert_eq!(mesh.job(&wanted).await.attempts, 2);
    assert!(is_only_quiet(&mesh, dying.id()), "and not down yet");
    suspect(&mesh, dying.id(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_only_worker_was_killed_the_refusal_is_clear_and_long_before_its_link_is_down() {
    let mesh = Mesh::start().await;
    let machine = Machine::new();
    let dying = machine.worker(&mesh, 10, Script::AcceptOnly).await;
    let mut answer = submit(&mesh, &request("a")).await;
    ordered(&dying).await;
    drop(machine);
    answer.rest().await;
    let failed = answer.failed();
    assert_eq!(failed.code, Code::Unavailable);
    assert_eq!(failed.message, "no worker can serve this model now");
    assert_eq!(failed.retry_after_ms, Some(5_000));
    assert!(is_only_quiet(&mesh, dying.id()), "and not down yet");
    // The next is refused at once: nobody is dialled.
    let next = mesh.submit(&request("b")).await;
    assert_eq!(next.failed().code, Code::Unavailable);
    assert!(is_only_quiet(&mesh, dying.id()));
    assert_eq!(dying.scripted.orders(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_an_answer_is_followed_long_before_its_link_is_down() {
    let mesh = Mesh::start().await;
    let machine = Machine::new();
    let dying = machine.worker(&mesh, 10, Script::Paused(3)).await;
    let _other = mesh.worker_with(11, Script::Answer(3), cold).await;
    let mut answer = submit(&mesh, &request("a")).await;
    answer.next().await.expect("accepted");
    answer.next().await.expect("a piece");
    drop(machine);
    answer.rest().await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(answer.text(), "xxx");
    assert!(is_only_quiet(&mesh, dying.id()), "and not down yet");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_only_worker_is_killed_in_the_middle_the_answer_is_cut_off_by_an_explicit_error()
{
    let mesh = Mesh::with(|config| config.hand_over_timeout_ms = 300).await;
    let machine = Machine::new();
    let dying = machine.worker(&mesh, 10, Script::Paused(3)).await;
    let wanted = request("a");
    let mut answer = submit(&mesh, &wanted).await;
    answer.next().await.expect("accepted");
    answer.next().await.expect("a piece");
    drop(machine);
    suspect(&mesh, dying.id(), true).await;
    answer.rest().await;
    assert_eq!(answer.failed().code, Code::Unavailable);
    assert!(answer.failed().message.contains("cut off"));
    assert!(!is_only_quiet(&mesh, dying.id()), "its link is down");
    let job = mesh.job(&wanted).await;
    assert_eq!((job.state, job.streamed), (JobState::Failed, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_starved_for_a_moment_keeps_a_request_that_waits_for_its_turn_there() {
    let mesh = Mesh::start().await;
    let machine = Machine::new();
    let mut worker = machine.worker(&mesh, 10, Script::Queued(3)).await;
    let mut answer = submit(&mesh, &request("a")).await;
    ordered(&worker).await;
    let starved = machine.starve();
    suspect(&mesh, worker.id(), true).await;
    drop(starved);
    let beat = worker.says(2);
    worker.send(&beat).await;
    suspect(&mesh, worker.id(), false).await;
    // Longer than a silence is borne: the length is the case, not a wait for something.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    worker.scripted.turn.send_replace(true);
    answer.rest().await;
    assert!(answer.is_whole(), "{:?}", answer.error);
    assert_eq!(worker.scripted.orders(), 1);
}
