//! Orders over a real link. (WRK-1)

use crate::engines::MAX_TOKEN_BYTES;
use crate::fixture::{TestMesh, artifact, order, patiently};
use std::time::Duration;
use tether_wire::infer::{AnswerEvent, Finish, Input};
use tether_wire::rpc::{Code, method};
use tether_wire::{Digest, Role, TenantId, codec};

/// A text that takes the echo engine a while.
fn long() -> String {
    "word ".repeat(1_500)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_accepted_streamed_and_done() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let call = orchestrator
        .order(&worker.worker, &order(1, digest, "one two three"))
        .await;
    let events = call.events().await.expect("well");
    let Some(AnswerEvent::Accepted(accepted)) = events.first() else {
        panic!("{events:?}")
    };
    assert_eq!(accepted.worker, worker.worker.id());
    assert_eq!(accepted.digest, digest);
    assert_eq!(accepted.seed, 7);
    let mut text = String::new();
    let mut position = 0;
    let Some(AnswerEvent::Begun(begun)) = events.get(1) else {
        panic!("{events:?}")
    };
    assert_eq!(begun.prompt_tokens, 3);
    for event in &events[2..events.len() - 1] {
        let AnswerEvent::Chunk(chunk) = event else {
            panic!("{event:?}")
        };
        assert_eq!(chunk.position, position, "no gap");
        position += u32::try_from(chunk.tokens.len()).expect("few");
        text += &chunk.text;
    }
    assert_eq!(text, "one two three");
    let Some(AnswerEvent::Done(done)) = events.last() else {
        panic!("{events:?}")
    };
    assert_eq!(done.finish, Finish::Stop);
    assert_eq!(done.usage.prompt_tokens, 3);
    assert_eq!(done.usage.completion_tokens, position);
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_that_cannot_be_run_are_refused_with_the_reason() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let refused = async |order| {
        let call = orchestrator.order(&worker.worker, &order).await;
        call.refused().await
    };
    let unknown = refused(order(1, Digest([9; 32]), "x")).await;
    assert_eq!(unknown.code, Code::NotFound);
    let mut named = order(1, digest, "x");
    named.model = "other@1.0".parse().expect("valid");
    assert_eq!(refused(named).await.code, Code::NotFound);
    let mut seedless = order(1, digest, "x");
    seedless.sampling.seed = None;
    let error = refused(seedless).await;
    assert_eq!(
        (error.code, error.param.as_deref()),
        (Code::Invalid, Some("seed"))
    );
    let mut hot = order(1, digest, "x");
    hot.sampling.temperature = f32::NAN;
    assert_eq!(refused(hot).await.code, Code::Invalid);
    let mut empty = order(1, digest, "x");
    empty.input = Input::Chat(vec![]);
    assert_eq!(refused(empty).await.code, Code::Invalid);
    // How many tokens it has is known to the engine only, so it is taken first.
    let too_long = order(1, digest, &"word ".repeat(3_000));
    let call = orchestrator.order(&worker.worker, &too_long).await;
    assert_eq!(
        call.events().await.expect_err("too long").code,
        Code::Invalid
    );

    let link = orchestrator.link(&worker.worker).await;
    let mut call = link
        .call(method::INFER, None, b"no CBOR")
        .await
        .expect("called");
    assert_eq!(
        patiently(call.next()).await.expect_err("malformed").code,
        Code::Invalid
    );
    let mut call = link.call("dance", None, &[]).await.expect("called");
    let error = patiently(call.next()).await.expect_err("unknown");
    assert_eq!(error.code, Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_orchestrator_gives_orders() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let config = mesh.node_config(tether_wire::NodeKey::from_seed([77; 32]), Role::Gateway);
    struct Deaf;
    impl tether_net::Service for Deaf {
        fn serve(
            &self,
            _: tether_net::Incoming,
        ) -> tether_net::BoxFuture<'static, Result<(), tether_wire::rpc::RpcError>> {
            Box::pin(async { Ok(()) })
        }
    }
    let gateway = tether_net::Node::start(config, std::sync::Arc::new(Deaf))
        .await
        .expect("a node");
    let link = patiently(gateway.link(worker.worker.id(), Role::Worker))
        .await
        .expect("linked");
    let body = codec::encode(&order(1, digest, "x"));
    let mut call = link.call(method::INFER, None, &body).await.expect("called");
    let error = patiently(call.next()).await.expect_err("refused");
    assert_eq!(error.code, Code::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_a_replaced_owner_is_refused() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let mut newer = order(1, digest, "x");
    newer.fence = 5;
    let call = orchestrator.order(&worker.worker, &newer).await;
    call.events().await.expect("well");
    let call = orchestrator
        .order(&worker.worker, &order(1, digest, "x"))
        .await;
    assert_eq!(call.refused().await.code, Code::Conflict);
    let call = orchestrator
        .order(&worker.worker, &order(2, digest, "x"))
        .await;
    call.events().await.expect("another job has its own fence");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_comes_twice_runs_once() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh.worker(&[dir.path()], |_| ()).await;
    worker.serving().await;
    let mut order = order(1, digest, "x");
    let call = orchestrator.order(&worker.worker, &order).await;
    call.events().await.expect("well");
    let call = orchestrator.order(&worker.worker, &order).await;
    assert_eq!(call.refused().await.code, Code::Conflict);
    order.attempt = 2;
    let call = orchestrator.order(&worker.worker, &order).await;
    call.events().await.expect("the next attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_engine_does_not_run_at_once_waits_in_the_workers_queue() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker_running("one_at_a_time", &[dir.path()], |config| {
            config.slots = 4;
            config.queue_timeout_ms = 60_000;
        })
        .await;
    let said = orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    assert_eq!(said.worker.capacity, 1, "what it really runs at once");
    let mut first = orchestrator
        .order(&worker.worker, &order(1, digest, "x"))
        .await;
    first.accepted().await;
    assert_eq!(first.begun().await, 5);
    let mut second = orchestrator
        .order(&worker.worker, &order(2, digest, "x"))
        .await;
    second.accepted().await;
    let load = worker.worker.status().load;
    assert_eq!((load.running, load.waiting), (1, 1));
    drop(first);
    assert_eq!(second.begun().await, 5, "its turn has come");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_when_to_come_again() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker_running("one_at_a_time", &[dir.path()], |config| {
            config.queue_timeout_ms = 100;
        })
        .await;
    worker.serving().await;
    let mut first = orchestrator
        .order(&worker.worker, &order(1, digest, "x"))
        .await;
    first.accepted().await;
    first.begun().await;
    let mut second = orchestrator
        .order(&worker.worker, &order(2, digest, "x"))
        .await;
    second.accepted().await;
    let error = second.event().await.expect_err("not in time");
    assert_eq!(error.code, Code::Overloaded);
    assert!(error.retry_after_ms.is_some(), "{error:?}");
    assert_eq!(worker.worker.status().load.waiting, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_cannot_fit_by_its_bytes_is_refused_before_the_engine_hears_of_it() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker_running("one_at_a_time", &[dir.path()], |_| ())
        .await;
    worker.serving().await;
    let most = 2_048 * MAX_TOKEN_BYTES as usize;
    let long = order(1, digest, &"x".repeat(most + 1));
    let error = orchestrator.order(&worker.worker, &long).await;
    let error = error.refused().await;
    assert_eq!(
        (error.code, error.param.as_deref()),
        (Code::Invalid, Some("prompt"))
    );
    assert!(error.message.contains("at least 2049 tokens"), "{error}");
    let mut fits = orchestrator
        .order(&worker.worker, &order(2, digest, &"x".repeat(most)))
        .await;
    fits.accepted().await;
    fits.begun().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_frees_its_slot_and_the_queue_is_told_at_once_that_it_was_taken() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let one_slot = |config: &mut tether_worker::WorkerConfig| {
        config.slots = 1;
        config.queue_limit = 1;
        config.engine.echo_delay_ms = 50;
    };
    let worker = mesh.worker(&[dir.path()], one_slot).await;
    worker.serving().await;
    let mut first = orchestrator
        .order(&worker.worker, &order(1, digest, &long()))
        .await;
    first.accepted().await;
    first.begun().await;

    let mut second = orchestrator
        .order(&worker.worker, &order(2, digest, "short"))
        .await;
    second.accepted().await;
    let load = worker.worker.status().load;
    assert_eq!((load.running, load.waiting), (1, 1));

    let third = orchestrator
        .order(&worker.worker, &order(3, digest, "x"))
        .await;
    let error = third.refused().await;
    assert_eq!(error.code, Code::Overloaded);
    assert!(
        error.retry_after_ms.is_some_and(|ms| ms >= 250),
        "{error:?}"
    );

    drop(first);
    let events = second.events().await.expect("its turn has come");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_past_its_callers_time_is_given_up() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| config.engine.echo_delay_ms = 50)
        .await;
    worker.serving().await;
    let link = orchestrator.link(&worker.worker).await;
    let body = codec::encode(&order(1, digest, &long()));
    let timeout = Some(Duration::from_millis(300));
    let mut call = link
        .call(method::INFER, timeout, &body)
        .await
        .expect("called");
    let error = loop {
        match patiently(call.next()).await {
            Ok(event) => assert!(event.is_some(), "it cannot be done already"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code, Code::Deadline);
    drop(call);
    let free = async {
        while worker.worker.status().load.running > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    patiently(free).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenant_does_not_take_every_slot() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| {
            config.slots = 2;
            config.per_tenant_slots = 1;
            config.engine.echo_delay_ms = 50;
        })
        .await;
    worker.serving().await;
    let mut held = Vec::new();
    for n in 1..=2 {
        let mut call = orchestrator
            .order(&worker.worker, &order(n, digest, &long()))
            .await;
        call.accepted().await;
        held.push(call);
    }
    let mut other = order(3, digest, "short");
    other.tenant = TenantId::new("other").expect("valid");
    let call = orchestrator.order(&worker.worker, &other).await;
    let events = call.events().await.expect("a slot was left for it");
    assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_ends_what_it_has_and_takes_nothing_new() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let mut orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| config.engine.echo_delay_ms = 50)
        .await;
    worker.serving().await;
    orchestrator
        .said_where(|said| !said.worker.models.is_empty())
        .await;
    let text = "word ".repeat(40);
    let mut running = orchestrator
        .order(&worker.worker, &order(1, digest, &text))
        .await;
    running.accepted().await;

    let drain = worker.worker.drain(Duration::from_secs(30));
    let meanwhile = async {
        use tether_wire::beat::NodeState;
        orchestrator
            .said_where(|said| said.beat.state == NodeState::Draining)
            .await;
        let refused = orchestrator
            .order(&worker.worker, &order(2, digest, "x"))
            .await;
        assert_eq!(refused.refused().await.code, Code::Unavailable);
        let events = running.events().await.expect("it came to its end");
        assert!(matches!(events.last(), Some(AnswerEvent::Done(_))));
        let goodbye = orchestrator
            .said_where(|said| said.beat.state == NodeState::Leaving)
            .await;
        assert_eq!(goodbye.beat.in_flight, 0);
    };
    let (all_ended, ()) = tokio::join!(drain, meanwhile);
    assert!(all_ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_before_the_drain_deadline_fails_so_that_it_is_tried_elsewhere() {
    let mesh = TestMesh::new();
    let (dir, digest) = artifact();
    let orchestrator = mesh.orchestrator().await;
    let worker = mesh
        .worker(&[dir.path()], |config| config.engine.echo_delay_ms = 50)
        .await;
    worker.serving().await;
    let mut call = orchestrator
        .order(&worker.worker, &order(1, digest, &long()))
        .await;
    call.accepted().await;
    let (all_ended, error) = tokio::join!(
        worker.worker.drain(Duration::from_millis(200)),
        call.events()
    );
    assert!(!all_ended);
    assert_eq!(error.expect_err("cut off").code, Code::Unavailable);
}
