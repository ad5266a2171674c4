//! Nodes of this process that mean harm, or replay what they recorded.

use anyhow::Context;
use std::sync::Arc;
use tether_net::testing::{self, LocalMesh, now_ms};
use tether_net::{BoxFuture, Incoming, Link, Node, Service};
use tether_wire::card::{ModelOffer, WorkerCard};
use tether_wire::grant::Access;
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::spread::MAX_BATCH_BYTES;
use tether_wire::{Digest, NodeId, NodeKey, Role, Tier};

/// Takes what an orchestrator spreads, and keeps none of it.
struct Deaf;

impl Service for Deaf {
    fn serve(&self, mut call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        Box::pin(async move {
            if call.method() != method::SPREAD {
                return Err(RpcError::new(Code::Unimplemented, "a drill"));
            }
            while call.recv(MAX_BATCH_BYTES).await?.is_some() {}
            Ok(())
        })
    }
}

/// A node with a grant of a mesh.
pub(crate) async fn member(mesh: &LocalMesh, key: NodeKey, role: Role) -> anyhow::Result<Node> {
    let (config, _) = mesh.config(key, role);
    Box::pin(Node::start(config, Arc::new(Deaf)))
        .await
        .context("a member does not start")
}

/// A node that claims to be of a mesh, without a grant or with one that another operator signed.
pub(crate) async fn stranger(mesh: &LocalMesh, forged_grant: bool) -> anyhow::Result<Node> {
    let elsewhere = LocalMesh::new(Access::Invite);
    let (mut config, _) = elsewhere.config(testing::key(), Role::Worker);
    config.members = tether_net::Members::new(mesh.mesh);
    if !forged_grant {
        config.grant = None;
    }
    Box::pin(Node::start(config, Arc::new(Deaf)))
        .await
        .context("a stranger does not start")
}

/// Links with an orchestrator, which may just have started.
pub(crate) async fn link(node: &Node, orchestrator: NodeId) -> anyhow::Result<Link> {
    let begin = now_ms();
    loop {
        match node.link(orchestrator, Role::Orchestrator).await {
            Ok(link) => return Ok(link),
            Err(error) if now_ms() - begin > 30_000 => {
                return Err(error).context("the orchestrator cannot be linked");
            }
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    }
}

/// What a worker offers that never was there.
pub(crate) fn worker_card() -> WorkerCard {
    WorkerCard {
        gpu_class: "cpu".to_owned(),
        vram_gb: 1,
        accelerators: 0,
        capacity: 4,
        models: vec![ModelOffer {
            model: "drill@1.0".parse().expect("a name and a version"),
            digest: Digest([7; 32]),
            warm: true,
            context_tokens: 1_024,
            adapters: Vec::new(),
            numerics_class: "drill/1".to_owned(),
        }],
        faults: Vec::new(),
        price_per_1k_micro: 0,
        tier: Tier::Untrusted,
        engine: "drill".to_owned(),
    }
}
