//! What strangers and admitted peers cannot do.

use crate::mesh::{TestMesh, TestNode, key, start};
use crate::raw;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;
use tether_net::LinkError;
use tether_net::testing::within;
use tether_wire::link::{ALPN, MAX_HELLO_BYTES, RefusalCode};
use tether_wire::rpc::{CallHead, Code, Kind, MAX_FRAME_BYTES, RpcError};
use tether_wire::{Role, codec};

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_over_its_limit_is_refused_by_its_length_alone() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let endpoint = raw::endpoint(&key(), ALPN).await;
    let connection = raw::dial(&endpoint, &orchestrator, ALPN)
        .await
        .expect("connected");
    let length = u32::try_from(MAX_HELLO_BYTES + 1)
        .expect("short")
        .to_be_bytes();
    let (_send, answer) = raw::greet(&connection, &length).await;
    let refusal = raw::refusal(answer);
    assert_eq!(refusal.code, RefusalCode::Malformed);
    assert!(refusal.message.contains("8192"), "{refusal}");
    orchestrator.refusals("malformed", 1).await;
    within(connection.closed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_of_nonsense_is_refused() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let endpoint = raw::endpoint(&key(), ALPN).await;
    let connection = raw::dial(&endpoint, &orchestrator, ALPN)
        .await
        .expect("connected");
    let (_send, answer) = raw::greet(&connection, &raw::block(b"GET / HTTP/1.1")).await;
    assert_eq!(raw::refusal(answer).code, RefusalCode::Malformed);
}

/// An orchestrator that waits for greetings only shortly.
async fn impatient(mesh: &TestMesh) -> TestNode {
    let (mut config, registry) = mesh.config(Role::Orchestrator);
    config.limits.greeting_timeout = Duration::from_millis(500);
    start((config, registry)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_connects_and_does_not_greet_is_dropped() {
    let mesh = TestMesh::new();
    let orchestrator = impatient(&mesh).await;
    let endpoint = raw::endpoint(&key(), ALPN).await;
    let silent = raw::dial(&endpoint, &orchestrator, ALPN)
        .await
        .expect("connected");
    let why = within(silent.closed()).await.to_string();
    assert!(why.contains("no whole greeting"), "{why}");
    let slow = raw::dial(&endpoint, &orchestrator, ALPN)
        .await
        .expect("connected");
    let (mut send, _recv) = slow.open_bi().await.expect("a stream");
    send.write_all(&[0, 0, 1]).await.expect("sent");
    within(slow.closed()).await;
    orchestrator.refusals("malformed", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_served_before_the_greeting_is_over() {
    let mesh = TestMesh::new();
    let orchestrator = impatient(&mesh).await;
    let identity = key();
    let endpoint = raw::endpoint(&identity, ALPN).await;
    let connection = raw::dial(&endpoint, &orchestrator, ALPN)
        .await
        .expect("connected");
    // A good greeting that is never confirmed, and a call beside it.
    let hello = codec::encode(&raw::hello(&mesh, &identity, Role::Gateway));
    let (send, _welcome) = raw::greet(&connection, &raw::block(&hello)).await;
    let (mut call, mut answer) = connection.open_bi().await.expect("a stream");
    call.write_all(&frame(Kind::Call, &head("who")))
        .await
        .expect("sent");
    assert!(
        within(answer.read_to_end(1024)).await.is_err(),
        "no answer came"
    );
    assert!(orchestrator.node.links().is_empty());
    drop(send);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_beyond_the_total_are_turned_away_as_busy_and_freed_places_are_taken() {
    let mesh = TestMesh::new();
    let (mut config, registry) = mesh.config(Role::Orchestrator);
    config.limits.max_links = 1;
    let mut orchestrator = start((config, registry)).await;
    let (first, second) = tokio::join!(mesh.node(Role::Gateway), mesh.node(Role::Gateway));
    first.link_to(&orchestrator).await;
    orchestrator.up(first.id()).await;
    let refused = second
        .node
        .link(orchestrator.id(), Role::Orchestrator)
        .await;
    match refused {
        Err(LinkError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Busy),
        other => panic!("expected `busy`, not {other:?}"),
    }
    orchestrator.refusals("busy", 1).await;
    first.node.shutdown().await;
    orchestrator.down(first.id()).await;
    let taken = async {
        while second
            .node
            .link(orchestrator.id(), Role::Orchestrator)
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    within(taken).await;
}

fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![kind as u8];
    body.extend_from_slice(payload);
    raw::block(&body)
}

fn head(method: &str) -> Vec<u8> {
    codec::encode(&CallHead {
        method: method.to_owned(),
        timeout_ms: None,
        traceparent: None,
    })
}

/// Sends bytes on a stream of their own, and gives the error that the call ends with.
async fn error_for(connection: &iroh::endpoint::Connection, bytes: &[u8]) -> RpcError {
    let (mut send, mut recv) = connection.open_bi().await.expect("a stream");
    // The other side may refuse the rest of it.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    let answer = within(recv.read_to_end(64 * 1024))
        .await
        .expect("an answer");
    assert_eq!(answer.get(4), Some(&(Kind::Error as u8)), "{answer:?}");
    codec::decode("error", &answer[5..], 64 * 1024).expect("an error")
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_end_their_call_with_an_error_and_the_link_stays() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let (_endpoint, peer) = raw::admitted(&mesh, &key(), Role::Gateway, &orchestrator).await;
    let oversized = u32::try_from(MAX_FRAME_BYTES + 1)
        .expect("short")
        .to_be_bytes();
    let mut item_over = frame(Kind::Call, &head("echo"));
    item_over.extend_from_slice(&oversized);
    for (what, bytes) in [
        ("a head over every limit", oversized.to_vec()),
        ("an item over every limit", item_over),
        ("an empty frame", vec![0, 0, 0, 0]),
        ("an unknown kind", raw::block(&[77, 1, 2, 3])),
        ("an item before the head", frame(Kind::Item, b"x")),
        ("a head that is no CBOR", frame(Kind::Call, b"\xff\xff")),
        (
            "a head with a huge method",
            frame(Kind::Call, &head(&"m".repeat(65))),
        ),
        ("nothing", Vec::new()),
        ("half a frame", vec![0, 0, 0, 9, 1]),
    ] {
        let error = error_for(&peer, &bytes).await;
        assert_eq!(error.code, Code::Invalid, "{what}: {error}");
    }
    let error = error_for(&peer, &frame(Kind::Call, &head("nonsense"))).await;
    assert_eq!(error.code, Code::Unimplemented, "the link works as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_bytes_from_an_admitted_peer_break_nothing() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let (_endpoint, peer) = raw::admitted(&mesh, &key(), Role::Gateway, &orchestrator).await;
    let mut rng = StdRng::seed_from_u64(2026);
    for _ in 0..300 {
        let mut bytes = if rng.random_bool(0.5) {
            frame(Kind::Call, &head("echo"))
        } else {
            Vec::new()
        };
        let mut noise = vec![0; rng.random_range(0..200)];
        rng.fill(&mut noise[..]);
        bytes.extend_from_slice(&noise);
        let (mut send, mut recv) = peer.open_bi().await.expect("the link is up");
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
        let _ = within(recv.read_to_end(64 * 1024)).await;
    }
    let error = error_for(&peer, &frame(Kind::Call, &head("nonsense"))).await;
    assert_eq!(error.code, Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answerer_that_sends_nonsense_is_refused_by_the_dialler() {
    let mesh = TestMesh::new();
    let gateway = mesh.node(Role::Gateway).await;
    let identity = key();
    let endpoint = raw::endpoint(&identity, ALPN).await;
    let (mut config, registry) = mesh.config_of(identity.clone(), Role::Orchestrator);
    config.advertise = endpoint.bound_sockets();
    let stand_in = start((config, registry)).await;
    let server = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let Ok(connection) = incoming.await else {
                continue;
            };
            let Ok((mut send, _recv)) = connection.accept_bi().await else {
                continue;
            };
            let _ = send.write_all(&raw::block(b"nonsense")).await;
            let _ = send.finish();
            connection.closed().await;
        }
    });
    let error = gateway.node.link(identity.id(), Role::Orchestrator).await;
    match error {
        Err(LinkError::Rejected(refusal)) => assert_eq!(refusal.code, RefusalCode::Malformed),
        other => panic!("expected our own refusal, not {other:?}"),
    }
    stand_in.node.shutdown().await;
}
