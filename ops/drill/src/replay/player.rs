//! Plays recordings at an orchestrator over real links.

use super::REJECTED;
use super::recording::{Life, Recording, younger};
use crate::hostile;
use crate::mesh::{Admin, Metrics, PATIENCE};
use anyhow::{Context, ensure};
use rand::seq::SliceRandom as _;
use serde_bytes::ByteBuf;
use std::time::{Duration, Instant};
use tether_net::testing::{self, LocalMesh};
use tether_net::{Call, Link, Node};
use tether_wire::rpc::method;
use tether_wire::spread::{Batch, Push, RelayedBeat};
use tether_wire::{NodeId, Role, codec};

/// Beats in a batch; some 300 bytes each.
const BATCH: usize = 1_000;
/// Cards in a batch.
const CARDS: usize = 200;

/// A node with the grant of an orchestrator, which passes on what it recorded.
pub(super) struct Peer {
    node: Node,
    call: Call,
    /// The last beat that was played, of which a forged one tells that all was looked at.
    last: Option<RelayedBeat>,
}

impl Peer {
    pub(super) async fn join(mesh: &LocalMesh, orchestrator: NodeId) -> anyhow::Result<Self> {
        let node = hostile::member(mesh, testing::key(), Role::Orchestrator).await?;
        let link = hostile::link(&node, orchestrator).await?;
        let call = link.call(method::SPREAD, None, &[]).await?;
        Ok(Self {
            node,
            call,
            last: None,
        })
    }

    /// The first beat of each worker, with its card.
    pub(super) async fn introduce(&mut self, life: &Life) -> anyhow::Result<()> {
        for (beats, cards) in life.firsts.chunks(CARDS).zip(life.cards.chunks(CARDS)) {
            self.send(Batch {
                cards: cards.iter().cloned().map(ByteBuf::from).collect(),
                beats: beats.to_vec(),
                ..Batch::default()
            })
            .await?;
        }
        Ok(())
    }

    pub(super) async fn play(&mut self, beats: &[RelayedBeat]) -> anyhow::Result<()> {
        for some in beats.chunks(BATCH) {
            self.last = some.last().cloned();
            self.send(Batch {
                beats: some.to_vec(),
                ..Batch::default()
            })
            .await?;
        }
        Ok(())
    }

    /// Everything, shuffled, with lies about clocks.
    pub(super) async fn play_all(&mut self, all: &Recording, life: &Life) -> anyhow::Result<()> {
        for some in shuffled(all, life).chunks(BATCH) {
            let beats: Vec<RelayedBeat> = some.iter().map(|it| younger(it)).collect();
            self.play(&beats).await?;
        }
        Ok(())
    }

    /// Waits until all that was sent was looked at: a forged one at the end is counted then.
    pub(super) async fn heard_all(&mut self, admin: &Admin) -> anyhow::Result<()> {
        let before = rejected(&admin.metrics().await?, "forged");
        let mut forged = self.last.clone().context("something was played")?;
        // Above whatever is held of it.
        forged.epoch = u64::MAX - 1;
        if let Some(last) = forged.beat.last_mut() {
            *last ^= 1;
        }
        self.send(Batch {
            beats: vec![forged],
            ..Batch::default()
        })
        .await?;
        let begin = Instant::now();
        while rejected(&admin.metrics().await?, "forged") <= before {
            ensure!(
                begin.elapsed() < PATIENCE,
                "the last batch is not looked at"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn send(&mut self, batch: Batch) -> anyhow::Result<()> {
        let sent = self.call.send(&codec::encode(&batch)).await;
        sent.context("the orchestrator takes no batches")
    }

    pub(super) async fn leave(self) {
        self.node.shutdown().await;
    }
}

/// A node with the grant of a worker, which pushes what it recorded as if it were its own.
pub(super) struct Pusher {
    node: Node,
    link: Link,
}

impl Pusher {
    pub(super) async fn join(mesh: &LocalMesh, orchestrator: NodeId) -> anyhow::Result<Self> {
        let node = hostile::member(mesh, testing::key(), Role::Worker).await?;
        let link = hostile::link(&node, orchestrator).await?;
        Ok(Self { node, link })
    }

    pub(super) async fn play(&self, beats: &[RelayedBeat]) -> anyhow::Result<()> {
        let beats: Vec<&RelayedBeat> = beats.iter().collect();
        self.push(&beats).await
    }

    /// Everything, shuffled.
    pub(super) async fn play_all(&self, all: &Recording, life: &Life) -> anyhow::Result<()> {
        self.push(&shuffled(all, life)).await
    }

    async fn push(&self, beats: &[&RelayedBeat]) -> anyhow::Result<()> {
        let mut call = self.link.call(method::PRESENCE, None, &[]).await?;
        for relayed in beats {
            let beat = relayed.beat.clone();
            let push = codec::encode(&Push { beat, card: None });
            call.send(&push)
                .await
                .context("the orchestrator takes no pushes")?;
        }
        call.finish_sending().await;
        // Its end says that all was read.
        while let Ok(Some(_)) = call.next().await {}
        Ok(())
    }

    /// Waits until all pushes are counted.
    #[expect(clippy::cast_precision_loss, reason = "a million is far below 2^52")]
    pub(super) async fn heard_all(
        &self,
        admin: &Admin,
        before: &Metrics,
        pushed: usize,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let added = admin.metrics().await?.added(REJECTED, before);
            if added.values().sum::<f64>() >= pushed as f64 {
                return Ok(());
            }
            ensure!(
                begin.elapsed() < PATIENCE,
                "of {pushed} pushes only {added:?} are counted"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn leave(self) {
        self.node.shutdown().await;
    }
}

fn shuffled<'a>(all: &'a Recording, life: &'a Life) -> Vec<&'a RelayedBeat> {
    let mut beats: Vec<&RelayedBeat> = all.old().iter().chain(&life.beats).collect();
    beats.shuffle(&mut rand::rng());
    beats
}

fn rejected(metrics: &Metrics, reason: &str) -> f64 {
    let mark = format!("reason=\"{reason}\"");
    let series = metrics.series(REJECTED);
    series
        .filter(|(labels, _)| labels.contains(&mark))
        .map(|(_, value)| value)
        .sum()
}
