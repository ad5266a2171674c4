//! Requests whose callers have gone: what they occupy until their engine has let go of them. (WRK-1)

use crate::engines::SHORT;
use crate::fixture::{TestMesh, artifact, order, patiently};
use crate::supervisor::{ask, ask_holding, down, gone, pid, read, ready, start};
use rustix::process::{Signal, kill_process};
use tether_wire::infer::AnswerEvent;
use tether_worker::ModelState;
use tether_worker::engine::Hold;
use tokio::net::UnixListener;
use tokio::sync::oneshot::{self, error::TryRecvError};

/// A place; its other end is told when it is given back.
#[derive(Debug)]
struct Place(#[expect(dead_code, reason = "told by its end")] oneshot::Sender<()>);

impl Hold for Place {
    fn leaving(&mut self) {}
}

fn place() -> (Place, oneshot::Receiver<()>) {
    let (place, given_back) = oneshot::channel();
    (Place(place), given_back)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_keeps_its_slot_until_the_engine_let_go_of_its_request() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker_running("one_at_a_time", &[dir.path()], |config| {
            config.queue_timeout_ms = 60_000;
        })
        .await;
    worker.serving().await;
    let process = || match &worker.worker.status().models[0].state {
        ModelState::Serving(served) => served.pids.first().copied(),
        other => panic!("{other:?}"),
    };
    let before = process();
    let sockets = tempfile::tempdir().expect("tempdir");
    let path = sockets.path().join("hold");
    let listener = UnixListener::bind(&path).expect("bound");
    let long = order(1, digest, path.to_str().expect("UTF-8"));
    let mut first = orchestrator.order(&worker.worker, &long).await;
    first.accepted().await;
    first.begun().await;
    let mut second = orchestrator
        .order(&worker.worker, &order(2, digest, SHORT))
        .await;
    second.accepted().await;

    drop(first);
    let (engine_holds_on, _) = patiently(listener.accept()).await.expect("told to cancel");
    let load = worker.worker.status().load;
    assert_eq!((load.running, load.waiting), (1, 1));
    orchestrator
        .said_where(|said| (said.beat.in_flight, said.beat.queue_depth) == (1, 1))
        .await;

    drop(engine_holds_on);
    let events = second.events().await.expect("its turn has come");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
    let load = worker.worker.status().load;
    assert_eq!((load.running, load.waiting), (0, 0));
    orchestrator
        .said_where(|said| (said.beat.in_flight, said.beat.queue_depth) == (0, 0))
        .await;
    assert_eq!(process(), before, "the same engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_an_answer_that_is_dropped_is_free_when_the_engine_let_go_of_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("hold");
    let listener = UnixListener::bind(&path).expect("bound");
    let engine = start("one_at_a_time", |_| ());
    let process = ready(&engine).await.pids;
    let (place, mut given_back) = place();
    let prompt = path.to_str().expect("UTF-8");
    let mut answer = ask_holding(&engine, prompt, place);
    patiently(answer.chunk()).await.expect("it has begun");
    drop(answer);
    let (engine_holds_on, _) = patiently(listener.accept()).await.expect("told to cancel");
    assert_eq!(given_back.try_recv(), Err(TryRecvError::Empty));
    drop(engine_holds_on);
    patiently(given_back).await.expect_err("given back");
    let (_, end) = read(ask(&engine, SHORT)).await;
    end.expect("the next one has its turn");
    assert_eq!(ready(&engine).await.pids, process, "the same engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_an_answer_that_is_dropped_is_free_when_its_engine_dies() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("hold");
    let listener = UnixListener::bind(&path).expect("bound");
    let engine = start("one_at_a_time", |_| ());
    let process = pid(&ready(&engine).await);
    let (place, mut given_back) = place();
    let mut answer = ask_holding(&engine, path.to_str().expect("UTF-8"), place);
    patiently(answer.chunk()).await.expect("it has begun");
    drop(answer);
    let _engine_holds_on = patiently(listener.accept()).await.expect("told to cancel");
    assert_eq!(given_back.try_recv(), Err(TryRecvError::Empty));
    kill_process(process, Signal::KILL).expect("killed");
    patiently(given_back).await.expect_err("given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_never_lets_go_of_an_answer_that_is_dropped_is_ended() {
    let engine = start("gets_stuck", |spec| spec.config.step_timeout_ms = 1_000);
    let process = pid(&ready(&engine).await);
    let (place, given_back) = place();
    let mut answer = ask_holding(&engine, "x", place);
    patiently(answer.chunk()).await.expect("it has begun");
    drop(answer);
    patiently(given_back).await.expect_err("given back");
    gone(process).await;
    assert_eq!(down(&engine).await.0, "engine-hang");
}
