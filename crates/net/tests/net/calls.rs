//! Calls over a link.

use crate::mesh::{ITEM_LIMIT, PATIENCE, TestMesh};
use std::time::Duration;
use tether_net::Link;
use tether_net::testing::within;
use tether_wire::Role;
use tether_wire::rpc::{Code, MAX_FRAME_BYTES, RpcError};

async fn ask(link: &Link, method: &str, body: &[u8]) -> Result<Vec<u8>, RpcError> {
    let mut call = link.call(method, Some(PATIENCE), body).await?;
    call.finish_sending().await;
    let item = call.next().await?.expect("an item");
    assert_eq!(call.next().await?, None, "one answer and the end");
    Ok(item)
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_of_a_link_calls_the_other_whoever_dialled() {
    let mesh = TestMesh::new();
    let (gateway, mut orchestrator, link) = mesh.pair().await;
    let who = ask(&link, "who", b"").await.expect("an answer");
    assert_eq!(who, format!("gateway {}", gateway.id()).into_bytes());
    let back = orchestrator.up(gateway.id()).await;
    let who = ask(&back, "who", b"").await.expect("an answer");
    assert_eq!(
        who,
        format!("orchestrator {}", orchestrator.id()).into_bytes()
    );
    let nested = ask(&link, "call-back", b"").await.expect("an answer");
    assert_eq!(nested, b"from the callee");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_thousand_items_comes_whole_and_in_order() {
    let mesh = TestMesh::new();
    let (_gateway, _orchestrator, link) = mesh.pair().await;
    let mut call = link.call("count", None, b"1000").await.expect("a call");
    call.finish_sending().await;
    for n in 0..1000 {
        let item = within(call.next())
            .await
            .expect("no error")
            .expect("an item");
        assert_eq!(String::from_utf8_lossy(&item), n.to_string());
    }
    assert_eq!(within(call.next()).await, Ok(None));
    assert_eq!(within(call.next()).await, Ok(None), "the end stays the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_go_both_ways_on_one_call() {
    let mesh = TestMesh::new();
    let (_gateway, _orchestrator, link) = mesh.pair().await;
    let mut call = link.call("echo", None, b"first").await.expect("a call");
    for n in 0..100_u32 {
        let item = within(call.next())
            .await
            .expect("no error")
            .expect("an item");
        let expected = if n == 0 {
            b"first".to_vec()
        } else {
            n.to_string().into_bytes()
        };
        assert_eq!(item, expected);
        call.send((n + 1).to_string().as_bytes())
            .await
            .expect("sent");
    }
    call.finish_sending().await;
    assert_eq!(within(call.next()).await, Ok(Some(b"100".to_vec())));
    assert_eq!(within(call.next()).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_drops_its_call_cancels_it_at_the_callee() {
    let mesh = TestMesh::new();
    let (_gateway, mut orchestrator, link) = mesh.pair().await;
    let mut call = link.call("hang", None, b"").await.expect("a call");
    assert_eq!(within(call.next()).await, Ok(Some(b"hanging".to_vec())));
    drop(call);
    assert_eq!(
        within(orchestrator.cancelled.recv()).await.as_deref(),
        Some("hang")
    );
    assert!(link.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_over_its_time_ends_on_both_sides() {
    let mesh = TestMesh::new();
    let (_gateway, mut orchestrator, link) = mesh.pair().await;
    let timeout = Some(Duration::from_millis(300));
    let mut call = link.call("hang", timeout, b"").await.expect("a call");
    assert_eq!(within(call.next()).await, Ok(Some(b"hanging".to_vec())));
    let error = within(call.next()).await.expect_err("too late");
    assert_eq!(error.code, Code::Deadline);
    assert_eq!(
        within(call.next()).await.expect_err("still").code,
        Code::Deadline
    );
    assert_eq!(
        within(orchestrator.cancelled.recv()).await.as_deref(),
        Some("hang")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_lost_ends_the_calls_on_it_on_both_sides() {
    let mesh = TestMesh::new();
    let (gateway, mut orchestrator, link) = mesh.pair().await;
    let mut call = link.call("hang", None, b"").await.expect("a call");
    assert_eq!(within(call.next()).await, Ok(Some(b"hanging".to_vec())));
    orchestrator
        .up(gateway.id())
        .await
        .close("the test wants it");
    let error = within(call.next()).await.expect_err("the link is gone");
    assert_eq!(error.code, Code::Unavailable);
    assert!(
        error.message.contains("the link to orchestrator"),
        "{error}"
    );
    assert!(error.message.contains("the test wants it"), "{error}");
    assert_eq!(
        within(orchestrator.cancelled.recv()).await.as_deref(),
        Some("hang")
    );
    assert!(within(link.closed()).await.contains("the test wants it"));
    let error = link.call("who", None, b"").await.err().expect("no link");
    assert_eq!(error.code, Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callees_error_reaches_the_caller_as_it_is() {
    let mesh = TestMesh::new();
    let (_gateway, _orchestrator, link) = mesh.pair().await;
    let error = ask(&link, "fail", b"").await.expect_err("an error");
    let expected = RpcError::new(Code::Invalid, "no such model")
        .with_param("model")
        .with_retry_after_ms(1_500);
    assert_eq!(error, expected);
    let error = ask(&link, "nonsense", b"").await.expect_err("an error");
    assert_eq!(error.code, Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_panics_costs_one_call_and_not_the_link() {
    let mesh = TestMesh::new();
    let (_gateway, _orchestrator, link) = mesh.pair().await;
    let error = ask(&link, "panic", b"").await.expect_err("an error");
    assert_eq!(error.code, Code::Internal);
    assert!(ask(&link, "echo", b"still there").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_learns_why_the_callee_ended_the_call() {
    let mesh = TestMesh::new();
    let (_gateway, _orchestrator, link) = mesh.pair().await;
    let mut call = link.call("fail", None, b"").await.expect("a call");
    let error = loop {
        match within(call.send(b"item")).await {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert_eq!(
        (error.code, error.param.as_deref()),
        (Code::Invalid, Some("model"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn items_over_a_bound_are_refused_and_the_link_stays() {
    let mesh = TestMesh::new();
    let (_gateway, _orchestrator, link) = mesh.pair().await;
    let largest = vec![7; ITEM_LIMIT];
    assert_eq!(ask(&link, "echo", &largest).await, Ok(largest));
    let over = ask(&link, "echo", &vec![7; ITEM_LIMIT + 1])
        .await
        .expect_err("too large");
    assert_eq!(over.code, Code::Invalid, "what the service takes: {over}");
    let beyond = link
        .call("echo", None, &vec![7; MAX_FRAME_BYTES])
        .await
        .err();
    let beyond = beyond.expect("larger than any frame");
    assert_eq!(beyond.code, Code::Invalid);
    assert!(ask(&link, "echo", b"still there").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_a_link_may_have_are_refused_and_not_queued() {
    let mesh = TestMesh::new();
    let (mut config, registry) = mesh.config(Role::Orchestrator);
    config.limits.max_calls_per_link = 3;
    let orchestrator = crate::mesh::start((config, registry)).await;
    let gateway = mesh.node(Role::Gateway).await;
    let link = gateway.link_to(&orchestrator).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut call = link.call("hang", None, b"").await.expect("a call");
        assert_eq!(within(call.next()).await, Ok(Some(b"hanging".to_vec())));
        open.push(call);
    }
    let error = ask(&link, "echo", b"one more").await.expect_err("too many");
    assert_eq!(error.code, Code::Overloaded, "{error}");
    open.pop();
    let freed = async { while ask(&link, "echo", b"again").await.is_err() {} };
    within(freed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_up_neither_other_calls_nor_memory() {
    let mesh = TestMesh::new();
    let (_gateway, _orchestrator, link) = mesh.pair().await;
    let mut slow = link.call("count", None, b"4000000").await.expect("a call");
    assert!(within(slow.next()).await.is_ok());
    for _ in 0..20 {
        assert_eq!(ask(&link, "echo", b"fast").await, Ok(b"fast".to_vec()));
    }
    drop(slow);
    assert_eq!(ask(&link, "echo", b"after").await, Ok(b"after".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_was_dropped_half_way_tears_the_call_and_nothing_else() {
    let mesh = TestMesh::new();
    let (_gateway, _orchestrator, link) = mesh.pair().await;
    let mut call = link.call("hang", None, b"").await.expect("a call");
    // Nobody reads: the window fills, and a send waits.
    let item = vec![0; 1_000_000];
    let waits = Duration::from_millis(500);
    while tokio::time::timeout(waits, call.send(&item)).await.is_ok() {}
    assert!(call.send(b"more").await.is_err());
    assert_eq!(ask(&link, "echo", b"fine").await, Ok(b"fine".to_vec()));
}
