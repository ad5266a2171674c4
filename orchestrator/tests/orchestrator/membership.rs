//! What is revoked is gone from every view, for good; who has an invite is let in, and no more.
//! (PRE-6) [T-CTL-4] [T-CTL-6] [T-INV-3] [T-SPR-9]

use crate::fleets::{Fleets, Member};
use crate::mesh::{Mesh, key, no_service, within};
use crate::script::Script;
use tether_net::testing::LocalMesh;
use tether_net::{LinkError, Node, NodeConfig};
use tether_wire::control::Target;
use tether_wire::invite::{Join, Joined};
use tether_wire::link::RefusalCode;
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{Grant, NodeId, Role, Signed, Verified, codec};

/// What the operator tells one orchestrator.
async fn order(member: &Member, control: &[u8]) {
    let members = member.orchestrator.node().members();
    assert_eq!(members.learn(control).await, Ok(true));
}

async fn knows(member: &Member, what: impl Fn(&tether_wire::Membership) -> bool) {
    let members = member.orchestrator.node().members();
    let mut changed = members.changed();
    within("it is heard of", async {
        while !what(&members.current()) {
            changed.changed().await.expect("the node runs");
        }
    })
    .await;
}

async fn dial(config: NodeConfig, to: NodeId) -> Result<(), RefusalCode> {
    let node = Node::start(config, no_service()).await.expect("a node");
    let linked = within("an answer", node.link(to, Role::Orchestrator)).await;
    match linked {
        Ok(_) => Ok(()),
        Err(LinkError::Refused(refusal)) => Err(refusal.code),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_worker_is_gone_everywhere_and_stays_so() {
    let mut fleets = Fleets::start(2).await;
    let worker = fleets.serving(10, 0).await;
    let id = worker.id();
    let control = fleets.local.revocation(Target::Key(id));
    // Told to the one that has no link to the worker.
    order(&fleets.members[1], &control).await;
    let gone = |fleet: &tether_orchestrator::fleet::Snapshot| fleet.worker(&id).is_none();
    fleets.everywhere("it is gone", gone).await;
    worker.node.shutdown().await;
    fleets.restart(0).await;
    let (config, _) = fleets.local.config(key(&fleets.local, 10), Role::Worker);
    let refused = dial(config, fleets.members[0].id()).await;
    assert_eq!(
        refused,
        Err(RefusalCode::Revoked),
        "it was away, and is back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orchestrator_that_was_cut_off_hears_of_it_when_it_is_back() {
    let mut fleets = Fleets::start(3).await;
    let worker = fleets.serving(10, 0).await;
    let id = worker.id();
    let away = fleets.stop(2).await;
    order(
        &fleets.members[0],
        &fleets.local.revocation(Target::Key(id)),
    )
    .await;
    fleets
        .everywhere("it is gone", |fleet| fleet.worker(&id).is_none())
        .await;
    fleets.back(2, away).await;
    let back = &fleets.members[2];
    knows(back, |members| members.check_key(&id).is_err()).await;
    worker.node.shutdown().await;
    let (config, _) = fleets.local.config(key(&fleets.local, 10), Role::Worker);
    assert_eq!(dial(config, back.id()).await, Err(RefusalCode::Revoked));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_falls_with_its_grant_also_where_it_is_only_heard_of() {
    let fleets = Fleets::start(2).await;
    let worker = fleets.serving(10, 0).await;
    let (id, issuer) = (worker.id(), fleets.local.operator.id());
    // All grants of this mesh have this number: that of the worker's card counts no more.
    let control = fleets
        .local
        .revocation(Target::Serial { issuer, serial: 1 });
    order(&fleets.members[1], &control).await;
    let alone = &fleets.members[1];
    alone
        .fleet("it is gone", |fleet| fleet.worker(&id).is_none())
        .await;
    assert!(
        alone
            .orchestrator
            .node()
            .members()
            .current()
            .check_key(&id)
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_grants_of_all_orchestrators_rest_on_is_revoked_at_all_of_them() {
    let mut fleets = Fleets::start(3).await;
    let away = fleets.stop(2).await;
    // All grants of this mesh have this number, so that they refuse each other from then on.
    let issuer = fleets.local.operator.id();
    let control = fleets
        .local
        .revocation(Target::Serial { issuer, serial: 1 });
    order(&fleets.members[0], &control).await;
    let heard = |members: &tether_wire::Membership| members.counts() == [1, 0, 0];
    knows(&fleets.members[1], heard).await;
    fleets.back(2, away).await;
    knows(&fleets.members[2], heard).await;
}

/// Joins with this secret over a link of its own.
async fn join(
    local: &LocalMesh,
    n: u8,
    invite: &[u8],
    secret: [u8; 32],
    at: &Member,
) -> Result<Verified<Grant>, RpcError> {
    let config = local.joining(key(local, n), invite.to_vec());
    let members = config.members.clone();
    let node = Node::start(config, no_service()).await.expect("a node");
    let link = within("a link", node.link(at.id(), Role::Orchestrator)).await;
    let link = link.expect("invited");
    let mut call = link
        .call(method::JOIN, None, &codec::encode(&Join { secret }))
        .await?;
    let answer = within("an answer", call.next()).await?.expect("an answer");
    let joined: Joined = codec::decode("joined", &answer, 8_192).expect("a grant");
    let sealed = Signed::from_bytes(joined.grant);
    let grant = (members.current()).verify_grant(&sealed, tether_net::testing::now_ms());
    node.shutdown().await;
    Ok(grant.expect("it holds"))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_gets_a_grant_and_may_link_with_it_everywhere() {
    let fleets = Fleets::start(2).await;
    let invite = fleets.local.invite(&[7; 32], 5);
    let grant = join(&fleets.local, 10, &invite, [7; 32], &fleets.members[0]).await;
    let grant = grant.expect("let in");
    let id = key(&fleets.local, 10).id();
    assert_eq!((grant.subject, grant.role), (id, Role::Worker));
    assert_eq!(grant.signer(), fleets.members[0].id());
    let (mut config, _) = fleets.local.config(key(&fleets.local, 10), Role::Worker);
    config.grant = Some(grant.bytes().to_vec());
    assert_eq!(dial(config, fleets.members[1].id()).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_lets_nobody_in() {
    let fleets = Fleets::start(1).await;
    let invite = fleets.local.invite(&[7; 32], 5);
    let error = join(&fleets.local, 10, &invite, [8; 32], &fleets.members[0]).await;
    let error = error.expect_err("a wrong secret");
    assert_eq!(error.code, Code::Forbidden);
    assert!(error.message.contains("copied whole"), "{error}");
    let members = fleets.members[0].orchestrator.node().members().current();
    assert_eq!(members.counts(), [0, 0, 0], "no use was spent");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_that_is_spent_at_one_orchestrator_is_spent_at_all() {
    let mut fleets = Fleets::start(2).await;
    let local = &fleets.local;
    let invite = local.invite(&[7; 32], 1);
    join(local, 10, &invite, [7; 32], &fleets.members[0])
        .await
        .expect("the only place");
    // Who lost its grant before it could keep it asks again, and takes no second place.
    join(local, 10, &invite, [7; 32], &fleets.members[0])
        .await
        .expect("the same again");
    let config = |n| local.joining(key(local, n), invite.clone());
    knows(&fleets.members[1], |members| members.counts()[2] == 1).await;
    let refused = dial(config(11), fleets.members[1].id()).await;
    assert_eq!(refused, Err(RefusalCode::Spent));
    let late = config(12);
    fleets.restart(1).await;
    let refused = dial(late, fleets.members[1].id()).await;
    assert_eq!(refused, Err(RefusalCode::Spent), "remembered on the disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_no_invite() {
    let fleets = Fleets::start(1).await;
    let (config, _) = fleets.local.config(key(&fleets.local, 10), Role::Worker);
    let node = Node::start(config, no_service()).await.expect("a node");
    let link = node.link(fleets.members[0].id(), Role::Orchestrator).await;
    let join = codec::encode(&Join { secret: [7; 32] });
    let link = link.expect("granted");
    let mut call = link.call(method::JOIN, None, &join).await.expect("called");
    let error = within("an answer", call.next())
        .await
        .expect_err("no invite");
    assert_eq!(error.code, Code::Forbidden);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_may_come_by_the_admin_port() {
    let mesh = Mesh::start().await;
    let worker = mesh.worker(10, Script::Answer(1)).await;
    let id = worker.id();
    let control = mesh.local.revocation(Target::Key(id));
    let token = std::fs::read_to_string(mesh.orchestrator.admin_token_file()).expect("a token");
    let url = format!("http://{}/control", mesh.orchestrator.admin_addr());
    let post = async |token: &str, body: Vec<u8>| {
        let request = reqwest::Client::new()
            .post(&url)
            .bearer_auth(token)
            .body(body);
        let answer = request.send().await.expect("an answer");
        let by = answer.headers().get("tether-orchestrator");
        let by = by.map(|by| by.to_str().expect("text").to_owned());
        let taken = answer.status() == 200;
        assert_eq!(by, taken.then(|| mesh.orchestrator.id().to_hex()));
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    assert_eq!(post("wrong", control.clone()).await.0, 401);
    let (status, why) = post(&token, b"nonsense".to_vec()).await;
    assert!(status == 422 && why.contains("control message"), "{why}");
    assert_eq!(post(&token, vec![0; 10_000]).await.0, 413);
    let stranger = LocalMesh::new(tether_wire::grant::Access::Invite);
    let (status, why) = post(&token, stranger.revocation(Target::Key(id))).await;
    assert!(status == 422 && why.contains("signature"), "{why}");
    assert!(mesh.orchestrator.fleet_snapshot().worker(&id).is_some());
    let taken = (200, r#"{"news":true}"#.to_owned());
    assert_eq!(post(&token, control.clone()).await, taken);
    mesh.fleet("it is gone", |fleet| fleet.worker(&id).is_none())
        .await;
    assert_eq!(post(&token, control).await.1, r#"{"news":false}"#);
}
