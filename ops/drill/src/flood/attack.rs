//! What floods send.

use crate::hostile;
use crate::mesh::Mesh;
use anyhow::Context;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tether_net::testing::{self, now_ms};
use tether_net::{Link, Node};
use tether_wire::beat::NodeState;
use tether_wire::rpc::{Code, method};
use tether_wire::spread::{MAX_PUSH_BYTES, Push};
use tether_wire::{Beat, Card, Digest, NodeId, NodeKey, Role, Signed, codec};
use tokio_util::task::AbortOnDropHandle;

/// Strangers that dial at once: more only wait for each other.
const STRANGERS: usize = 8;
/// Calls over which a member pushes at once.
const CALLS: usize = 4;
/// Messages of each kind that are made before, since sealing would slow the sender down.
const PREPARED: usize = 256;

/// Who floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attack {
    /// Nobody: what the rest is compared with.
    None,
    /// Strangers dial over and over, without a grant or with one that another operator signed.
    Stranger,
    /// A member pushes beats that are forged, stolen, repeated, and bytes that are none.
    Pushes,
    /// A worker calls `spread`, which only orchestrators may.
    Spread,
}

/// An attack that goes on until this is dropped.
pub(super) struct Running {
    pub(super) sent: Arc<AtomicU64>,
    /// Nodes that attack; shut down at the end.
    nodes: Vec<Node>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Attack {
    pub(super) const ALL: [Self; 4] = [Self::None, Self::Stranger, Self::Pushes, Self::Spread];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Stranger => "strangers dial",
            Self::Pushes => "a member pushes forged, stolen, repeated and random bytes",
            Self::Spread => "a worker calls `spread`",
        }
    }

    pub(super) async fn start(self, mesh: &Mesh) -> anyhow::Result<Running> {
        let orchestrator = mesh.orchestrators[0].seat.id;
        let mut running = Running {
            sent: Arc::default(),
            nodes: Vec::new(),
            tasks: Vec::new(),
        };
        match self {
            Self::None => {}
            Self::Stranger => {
                for n in 0..STRANGERS {
                    let node = hostile::stranger(&mesh.site.local, n % 2 == 0).await?;
                    let (dialler, sent) = (node.clone(), running.sent.clone());
                    running.run(async move {
                        loop {
                            // Refused each time.
                            let _ = dialler.link(orchestrator, Role::Orchestrator).await;
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    running.nodes.push(node);
                }
            }
            Self::Pushes => {
                let key = testing::key();
                let (node, link) = join(mesh, key.clone(), orchestrator).await?;
                let messages = Arc::new(messages(mesh, &node, &key)?);
                for n in 0..CALLS {
                    let (link, messages) = (link.clone(), messages.clone());
                    let sent = running.sent.clone();
                    running.run(push(link, messages, n, sent));
                }
                running.nodes.push(node);
            }
            Self::Spread => {
                let (node, link) = join(mesh, testing::key(), orchestrator).await?;
                for _ in 0..CALLS {
                    let (link, sent) = (link.clone(), running.sent.clone());
                    running.run(spread(link, sent));
                }
                running.nodes.push(node);
            }
        }
        Ok(running)
    }
}

impl Running {
    fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(AbortOnDropHandle::new(tokio::spawn(task)));
    }

    /// Ends it.
    pub(super) async fn stop(self) -> u64 {
        drop(self.tasks);
        for node in &self.nodes {
            node.shutdown().await;
        }
        self.sent.load(Ordering::Relaxed)
    }
}

async fn join(mesh: &Mesh, key: NodeKey, to: NodeId) -> anyhow::Result<(Node, Link)> {
    let node = hostile::member(&mesh.site.local, key, Role::Worker).await?;
    let link = hostile::link(&node, to).await?;
    Ok((node, link))
}

/// Pushes over one call, and over the next when the orchestrator ends it.
async fn push(link: Link, messages: Arc<Vec<Vec<u8>>>, from: usize, sent: Arc<AtomicU64>) {
    let mut at = from * messages.len() / CALLS;
    loop {
        let Ok(mut call) = link.call(method::PRESENCE, None, &[]).await else {
            tokio::task::yield_now().await;
            continue;
        };
        loop {
            at = (at + 1) % messages.len();
            if call.send(&messages[at]).await.is_err() {
                break;
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn spread(link: Link, sent: Arc<AtomicU64>) {
    loop {
        match link.call(method::SPREAD, None, &[]).await {
            Ok(mut call) => match call.next().await {
                Err(error) if error.code == Code::Forbidden => {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                _ => tokio::task::yield_now().await,
            },
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// What a member pushes, in turns: a forged beat of its own, a beat of somebody else, its own first
/// one again, random bytes, a beat from the past, one from the future, and too much.
fn messages(mesh: &Mesh, node: &Node, key: &NodeKey) -> anyhow::Result<Vec<Vec<u8>>> {
    let local = &mesh.site.local;
    let card = Card {
        role: Role::Worker,
        epoch: 1,
        revision: 1,
        issued_ms: now_ms(),
        region: node.region().clone(),
        grant: Some(local.grant(key.id(), Role::Worker, |_| ())),
        agent: "drill".to_owned(),
        minor: 0,
        addresses: Vec::new(),
        worker: Some(hostile::worker_card()),
    };
    let id = local.mesh.id;
    let card = Signed::seal(key, &id, &card).context("a card")?;
    let beat = |signer: &NodeKey, seq: u64, issued_ms: u64| {
        let beat = Beat {
            epoch: 1,
            seq,
            nonce: rand::random(),
            issued_ms,
            state: NodeState::Serving,
            card: Digest::of(card.as_bytes()),
            queue_depth: 0,
            in_flight: 0,
            tokens_per_s: 0.0,
            first_token_ms: 0,
            vitals: None,
        };
        let sealed = Signed::seal(signer, &id, &beat).context("a beat")?;
        anyhow::Ok(sealed.as_bytes().to_vec())
    };
    let push = |beat: Vec<u8>| codec::encode(&Push { beat, card: None });
    let first = codec::encode(&Push {
        beat: beat(key, 1, now_ms())?,
        card: Some(card.as_bytes().to_vec()),
    });
    let other = testing::key();
    let mut messages = Vec::new();
    for n in 0..PREPARED as u64 {
        let mut forged = beat(key, n + 2, now_ms())?;
        if let Some(last) = forged.last_mut() {
            *last ^= 1;
        }
        messages.push(push(forged));
        messages.push(push(beat(&other, n + 1, now_ms())?));
        messages.push(first.clone());
        let noise: [u8; 32] = rand::random();
        messages.push(noise.repeat(9));
        messages.push(push(beat(key, n + 2, now_ms() - 60_000)?));
        messages.push(push(beat(key, n + 2, now_ms() + 600_000)?));
        if n % 16 == 0 {
            messages.push(vec![0; MAX_PUSH_BYTES + 1]);
        }
    }
    Ok(messages)
}
