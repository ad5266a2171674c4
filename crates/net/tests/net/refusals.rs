//! Who is refused, and how each side is told. (NET-6, NET-8) [T-LNK-3] [T-LNK-4]

use crate::mesh::{TestMesh, TestNode, key, start};
use crate::raw;
use tether_net::LinkError;
use tether_wire::link::{ALPN, Refusal, RefusalCode};
use tether_wire::{Role, codec};

/// Lets a gateway with a changed configuration dial an orchestrator, and gives what it is told.
async fn refused(
    mesh: &TestMesh,
    orchestrator: &TestNode,
    change: impl FnOnce(&mut tether_net::NodeConfig),
) -> Refusal {
    let (mut config, registry) = mesh.config(Role::Gateway);
    change(&mut config);
    let gateway = start((config, registry)).await;
    match gateway
        .node
        .link(orchestrator.id(), Role::Orchestrator)
        .await
    {
        Err(LinkError::Refused(refusal)) => {
            let code = refusal.code.as_str();
            let line = format!("tether_net_refused_by_peer_total{{code=\"{code}\"}} 1");
            gateway.metric(&line).await;
            assert!(gateway.node.links().is_empty());
            refusal
        }
        other => panic!("expected a refusal, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_of_another_major_is_refused_in_the_handshake() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let endpoint = raw::endpoint(&key(), b"tether/2").await;
    let error = raw::dial(&endpoint, &orchestrator, b"tether/2").await;
    assert!(error.is_err());
    orchestrator.refusals("version", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dials_another_major_is_told_so() {
    let mesh = TestMesh::new();
    let gateway = mesh.node(Role::Gateway).await;
    // A node of a later major that still publishes its record as we do.
    let later = key();
    let endpoint = raw::endpoint(&later, b"tether/2").await;
    let (config, registry) = mesh.config_of(later.clone(), Role::Orchestrator);
    let stand_in = start((
        tether_net::NodeConfig {
            advertise: endpoint.bound_sockets(),
            ..config
        },
        registry,
    ))
    .await;
    let server = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let _ = incoming.await;
        }
    });
    let error = gateway.node.link(later.id(), Role::Orchestrator).await;
    let error = error.expect_err("no common version");
    assert!(matches!(error, LinkError::Version { .. }), "{error:?}");
    assert!(error.to_string().contains("tether/1"), "{error}");
    stand_in.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_of_another_major_is_refused_by_both_versions_names() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let identity = key();
    let endpoint = raw::endpoint(&identity, ALPN).await;
    let connection = raw::dial(&endpoint, &orchestrator, ALPN)
        .await
        .expect("connected");
    let mut hello = raw::hello(&mesh, &identity, Role::Gateway);
    hello.major = 2;
    let (_send, answer) = raw::greet(&connection, &raw::block(&codec::encode(&hello))).await;
    let refusal = raw::refusal(answer);
    assert_eq!(refusal.code, RefusalCode::Version);
    assert!(refusal.message.contains("tether/1") && refusal.message.contains("tether/2"));
    orchestrator.refusals("version", 1).await;
    assert!(orchestrator.node.links().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_without_a_grant_is_refused() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let refusal = refused(&mesh, &orchestrator, |config| config.grant = None).await;
    assert_eq!(refusal.code, RefusalCode::UnknownKey);
    assert!(refusal.message.contains("tether grant issue"), "{refusal}");
    orchestrator.refusals("unknown-key", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_of_somebody_else_is_refused() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let stolen = mesh.grant(key().id(), Role::Gateway, |_| ());
    let refusal = refused(&mesh, &orchestrator, |config| config.grant = Some(stolen)).await;
    assert_eq!(refusal.code, RefusalCode::Grant);
    orchestrator.refusals("grant", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_was_not_granted_is_refused() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let refusal = refused(&mesh, &orchestrator, |config| {
        config.grant = Some(mesh.grant(config.key.id(), Role::Worker, |_| ()));
    })
    .await;
    assert_eq!(refusal.code, RefusalCode::Role);
    assert!(
        refusal.message.contains("claims to be gateway"),
        "{refusal}"
    );
    orchestrator.refusals("role", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_the_other_side_does_not_link_with_is_refused() {
    let mesh = TestMesh::new();
    let (mut config, registry) = mesh.config(Role::Orchestrator);
    config.accept = vec![Role::Worker];
    let orchestrator = start((config, registry)).await;
    let refusal = refused(&mesh, &orchestrator, |_| ()).await;
    assert_eq!(refusal.code, RefusalCode::Role);
    assert!(
        refusal.message.contains("no links from a gateway"),
        "{refusal}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_grant_is_refused() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let refusal = refused(&mesh, &orchestrator, |config| {
        let over = mesh.grant(config.key.id(), Role::Gateway, |grant| {
            grant.not_before_ms -= 10_000;
            grant.expires_ms = grant.not_before_ms + 5_000;
        });
        config.grant = Some(over);
    })
    .await;
    assert_eq!(refusal.code, RefusalCode::Expired);
    assert!(refusal.message.contains("expired"), "{refusal}");
    orchestrator.refusals("expired", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_mesh_is_refused() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let other = TestMesh::new();
    let refusal = refused(&other, &orchestrator, |_| ()).await;
    assert_eq!(refusal.code, RefusalCode::Mesh);
    let (ours, theirs) = (mesh.mesh.id.to_string(), other.mesh.id.to_string());
    assert!(refusal.message.contains(&ours) && refusal.message.contains(&theirs));
    orchestrator.refusals("mesh", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialler_refuses_an_answerer_without_a_grant_and_both_know() {
    let mesh = TestMesh::new();
    let (mut config, registry) = mesh.config(Role::Orchestrator);
    config.grant = None;
    let impostor = start((config, registry)).await;
    let gateway = mesh.node(Role::Gateway).await;
    let error = gateway.node.link(impostor.id(), Role::Orchestrator).await;
    match error {
        Err(LinkError::Rejected(refusal)) => assert_eq!(refusal.code, RefusalCode::UnknownKey),
        other => panic!("expected our own refusal, not {other:?}"),
    }
    gateway.refusals("unknown-key", 1).await;
    impostor
        .metric("tether_net_refused_by_peer_total{code=\"other\"} 1")
        .await;
    assert!(
        impostor.node.links().is_empty(),
        "the link never came up there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_role_than_wanted_is_named() {
    let mesh = TestMesh::new();
    let worker = mesh.node(Role::Worker).await;
    let gateway = mesh.node(Role::Gateway).await;
    let error = gateway.node.link(worker.id(), Role::Orchestrator).await;
    let error = error.expect_err("it is a worker");
    assert!(
        matches!(
            error,
            LinkError::WrongRole {
                found: Role::Worker,
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_shows_an_invite_is_told_who_refuses_it_and_nobody_else_is() {
    let mesh = TestMesh::new();
    let (mut config, registry) = mesh.config(Role::Orchestrator);
    let grant = config.grant.clone();
    config.accept = vec![Role::Orchestrator];
    let orchestrator = start((config, registry)).await;
    let (mut config, registry) = mesh.config(Role::Worker);
    config.grant = None;
    config.invite = Some(mesh.invite(&[7; 32], 1));
    let worker = start((config, registry)).await;
    match worker
        .node
        .link(orchestrator.id(), Role::Orchestrator)
        .await
    {
        Err(LinkError::Refused(refusal)) => {
            assert_eq!(refusal.code, RefusalCode::Role);
            assert!(grant.is_some() && refusal.grant == grant);
        }
        other => panic!("expected a refusal, not {other:?}"),
    }
    let refusal = refused(&mesh, &orchestrator, |_| ()).await;
    assert_eq!((refusal.code, refusal.grant), (RefusalCode::Role, None));
}
