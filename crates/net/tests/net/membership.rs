//! Who was revoked, replaced, or only invited, on real links. (PRE-6) [T-CTL-4] [T-CTL-6] [T-INV-3]

use crate::mesh::{TestMesh, TestNode, key, start};
use std::collections::HashSet;
use tether_net::{Link, LinkError, Node, NodeConfig, testing};
use tether_telemetry::metrics::Registry;
use tether_wire::control::Target;
use tether_wire::grant::chain::pass_on;
use tether_wire::link::{Refusal, RefusalCode};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{NodeId, Role, Signed};

async fn learn(node: &TestNode, control: &[u8]) {
    let news = node.node.members().learn(control).await;
    assert_eq!(news, Ok(true));
}

/// Dials as this node; the refusal that both sides know of.
async fn refused(config: NodeConfig, by: &TestNode) -> Refusal {
    let node = start((config, Registry::new())).await;
    match node.node.link(by.id(), by.node.role()).await {
        Err(LinkError::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, not {other:?}"),
    }
}

async fn tell(link: &Link, method: &str, items: &[&[u8]]) -> Result<(), RpcError> {
    let mut call = link.call(method, None, &[]).await?;
    for item in items {
        call.send(item).await?;
    }
    call.finish_sending().await;
    while call.next().await?.is_some() {}
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_link_of_a_revoked_key_ends_and_no_other_begins() {
    let mesh = TestMesh::new();
    let (config, _) = mesh.config(Role::Gateway);
    let again = NodeConfig {
        members: tether_net::Members::new(mesh.mesh),
        ..config.clone()
    };
    let mut orchestrator = mesh.node(Role::Orchestrator).await;
    let mut gateway = start((config, Registry::new())).await;
    gateway.link_to(&orchestrator).await;
    orchestrator.up(gateway.id()).await;
    learn(&orchestrator, &mesh.revocation(Target::Key(gateway.id()))).await;
    let why = gateway.down(orchestrator.id()).await;
    assert!(why.contains("was revoked"), "{why}");
    orchestrator.down(gateway.id()).await;
    orchestrator.refusals("revoked", 1).await;
    gateway.node.shutdown().await;
    let refusal = refused(again, &orchestrator).await;
    assert_eq!(refusal.code, RefusalCode::Revoked, "{refusal}");
    assert!(orchestrator.node.links().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_is_revoked_ends_its_links_and_another_one_is_good() {
    let mesh = TestMesh::new();
    let (mut config, _) = mesh.config(Role::Gateway);
    let id = config.key.id();
    let numbered = |serial| Some(mesh.grant(id, Role::Gateway, |grant| grant.serial = serial));
    config.grant = numbered(5);
    let other = NodeConfig {
        grant: numbered(6),
        members: tether_net::Members::new(mesh.mesh),
        ..config.clone()
    };
    let mut orchestrator = mesh.node(Role::Orchestrator).await;
    let mut gateway = start((config, Registry::new())).await;
    gateway.link_to(&orchestrator).await;
    orchestrator.up(id).await;
    let (issuer, serial) = (mesh.operator.id(), 5);
    let control = mesh.revocation(Target::Serial { issuer, serial });
    learn(&orchestrator, &control).await;
    gateway.down(orchestrator.id()).await;
    orchestrator.down(id).await;
    gateway.node.shutdown().await;
    let again = start((other, Registry::new())).await;
    again.link_to(&orchestrator).await;
    orchestrator.up(id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_since_its_grant_was_revoked_hears_of_it_by_that() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let (config, _) = mesh.config(Role::Gateway);
    let members = config.members.clone();
    // All grants of this mesh have this number: that of who refuses, too.
    let (issuer, serial) = (mesh.operator.id(), 1);
    learn(
        &orchestrator,
        &mesh.revocation(Target::Serial { issuer, serial }),
    )
    .await;
    let own = Signed::from_bytes(config.grant.clone().expect("granted"));
    let holds = || (members.current().verify_grant(&own, testing::now_ms())).is_ok();
    assert!(holds());
    let refusal = refused(config, &orchestrator).await;
    assert_eq!(refusal.code, RefusalCode::Revoked, "{refusal}");
    assert!(!holds());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_tells_its_workers_and_gateways_and_an_operator_tells_it() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let (early, late) = (
        mesh.node(Role::Worker).await,
        mesh.node(Role::Gateway).await,
    );
    early.link_to(&orchestrator).await;
    let operator = start((mesh.operating(), Registry::new())).await;
    let link = operator.link_to(&orchestrator).await;
    let lost = key().id();
    let mut heard = early.node.members().changed();
    let control = mesh.revocation(Target::Key(lost));
    tell(&link, method::CONTROL, &[&control])
        .await
        .expect("taken");
    heard.wait_for(|version| *version > 0).await.expect("told");
    let mut heard = late.node.members().changed();
    late.link_to(&orchestrator).await;
    heard.wait_for(|version| *version > 0).await.expect("told");
    for node in [&early, &late, &orchestrator] {
        let members = node.node.members().current();
        assert!(members.check_key(&lost).is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_order_is_told_so_and_so_is_one_with_a_bad_order() {
    let mesh = TestMesh::new();
    let (gateway, orchestrator, link) = mesh.pair().await;
    let control = mesh.revocation(Target::Key(key().id()));
    let error = tell(&link, method::CONTROL, &[&control]).await;
    assert_eq!(error.map_err(|error| error.code), Err(Code::Forbidden));
    assert!(
        !orchestrator
            .node
            .members()
            .changed()
            .has_changed()
            .expect("open")
    );
    let operator = start((mesh.operating(), Registry::new())).await;
    let link = operator.link_to(&orchestrator).await;
    let foreign = TestMesh::new().revocation(Target::Key(key().id()));
    let error = tell(&link, method::CONTROL, &[&foreign])
        .await
        .expect_err("foreign");
    assert_eq!(error.code, Code::Invalid);
    assert!(error.message.contains("signature"), "{error}");
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_links_with_the_old_ones_grant_and_the_old_one_no_more() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let (old, _) = mesh.config(Role::Worker);
    let new = key();
    let held = Signed::from_bytes(old.grant.clone().expect("granted"));
    let passed = pass_on(
        &held,
        &old.key,
        &new,
        &mesh.mesh.id,
        tether_net::testing::now_ms(),
    );
    let passed = passed.expect("inside limits").as_bytes().to_vec();
    let (config, _) = mesh.config_of(new.clone(), Role::Worker);
    let rotated = start((
        NodeConfig {
            grant: Some(passed),
            ..config
        },
        Registry::new(),
    ))
    .await;
    rotated.link_to(&orchestrator).await;
    let refusal = refused(old, &orchestrator).await;
    assert_eq!(refusal.code, RefusalCode::Revoked);
    assert!(refusal.message.contains(&new.id().to_hex()), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_only_invited_may_join_and_nothing_else() {
    let mesh = TestMesh::new();
    let orchestrator = mesh.node(Role::Orchestrator).await;
    let invited = mesh.joining(key(), mesh.invite(&[7; 32], 1));
    let invited = start((invited, Registry::new())).await;
    let link = invited.link_to(&orchestrator).await;
    for method in ["echo", method::PRESENCE, method::CONTROL] {
        let error = tell(&link, method, &[b"x"]).await.expect_err(method);
        assert_eq!(error.code, Code::Forbidden, "{method}");
    }
    // The service of this test does not know it, but is asked; a few times.
    for expected in [
        Code::Unimplemented,
        Code::Unimplemented,
        Code::Unimplemented,
        Code::Forbidden,
    ] {
        let end = tell(&link, method::JOIN, &[b"x"]).await;
        assert_eq!(end.map_err(|error| error.code), Err(expected));
    }
    let stranger = TestMesh::new();
    let config = mesh.joining(key(), stranger.invite(&[7; 32], 1));
    let refusal = refused(config, &orchestrator).await;
    assert_eq!(refusal.code, RefusalCode::Grant);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_keys_keeps_all_others_away_and_follows_its_changes() {
    let mesh = TestMesh::new();
    let mut orchestrator = mesh.node(Role::Orchestrator).await;
    let (config, _) = mesh.config(Role::Worker);
    let id = config.key.id();
    let only = |ids: &[NodeId]| {
        let members: &tether_net::Members = orchestrator.node.members();
        members.allow_only(Some(ids.iter().copied().collect::<HashSet<_>>()));
    };
    only(&[]);
    let refusal = refused(config.clone(), &orchestrator).await;
    assert!(
        refusal.message.contains("list of allowed keys"),
        "{refusal}"
    );
    only(&[id]);
    let mut worker = start((config, Registry::new())).await;
    worker.link_to(&orchestrator).await;
    let node: &Node = &orchestrator.node;
    node.members().allow_only(Some(HashSet::new()));
    worker.down(orchestrator.id()).await;
    orchestrator.down(id).await;
}
