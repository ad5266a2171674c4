//! A node's own DHT client: questions with an end, and a way back into the network.

use super::lookup::lookup;
use crate::error::NetError;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use libudx::UdxRuntime;
use peeroxide_dht::hyperdht::{self, HyperDhtConfig, HyperDhtError, HyperDhtHandle, KeyPair};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_telemetry::metrics::{DhtOperation, NetMetrics};
use tether_wire::record::MAX_RECORD_BYTES;
use tether_wire::{NodeId, NodeKey, TopicKey};

/// Longest time of one question. The library gives a silent DHT node 4 × 1 s, and some of those
/// on the way may be gone.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time to find a bootstrap node.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time to leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A client on the DHT. It stores nothing for others.
pub(super) struct Client {
    handle: HyperDhtHandle,
    key: KeyPair,
    bootstrap: Vec<SocketAddr>,
    metrics: Arc<NetMetrics>,
}

/// Configuration of a DHT node. On loopback nobody can find out from outside whether we are behind
/// a NAT, and the library's guess would be yes; elsewhere the guess is left to it.
pub(super) fn config(listen: SocketAddr, bootstrap: &[SocketAddr]) -> HyperDhtConfig {
    let mut config = HyperDhtConfig::default();
    config.dht.host = listen.ip().to_string();
    config.dht.port = listen.port();
    config.dht.bootstrap = bootstrap.iter().map(ToString::to_string).collect();
    config.dht.firewalled = !(listen.ip().is_loopback()
        || (!bootstrap.is_empty() && bootstrap.iter().all(|b| b.ip().is_loopback())));
    config
}

/// The DHT speaks IPv4 only.
pub(super) fn require_ipv4(addresses: &[SocketAddr]) -> Result<(), NetError> {
    match addresses.iter().find(|address| !address.is_ipv4()) {
        None => Ok(()),
        Some(address) => Err(NetError::Config(format!(
            "the HyperDHT speaks IPv4 only: {address} cannot be used for it"
        ))),
    }
}

/// Starts a DHT node of the library.
pub(super) async fn spawn(
    listen: SocketAddr,
    config: HyperDhtConfig,
) -> Result<HyperDhtHandle, NetError> {
    let refused = |why: String| NetError::Listen {
        address: listen,
        why,
    };
    let runtime = UdxRuntime::new().map_err(|error| refused(error.to_string()))?;
    let (_task, handle, _server_events) = hyperdht::spawn(&runtime, config)
        .await
        .map_err(|error| refused(error.to_string()))?;
    Ok(handle)
}

impl Client {
    pub(super) async fn start(
        key: &NodeKey,
        listen: SocketAddr,
        bootstrap: Vec<SocketAddr>,
        metrics: Arc<NetMetrics>,
    ) -> Result<Self, NetError> {
        require_ipv4(&[listen])?;
        require_ipv4(&bootstrap)?;
        let mut config = config(listen, &bootstrap);
        config.dht.ephemeral = Some(true);
        Ok(Self {
            handle: spawn(listen, config).await?,
            key: KeyPair::from_seed(key.seed()),
            bootstrap,
            metrics,
        })
    }

    /// The key whose record and announcements these are.
    pub(super) fn own(&self) -> NodeId {
        NodeId(self.key.public_key)
    }

    pub(super) async fn announce(&self, topic: TopicKey) -> Result<(), NetError> {
        self.ask(DhtOperation::Announce, "announce", async {
            let stored = self.handle.announce(topic.0, &self.key, &[]).await?;
            Ok(match stored.closest_nodes.is_empty() {
                true => Err("no DHT node took it".to_owned()),
                false => Ok(()),
            })
        })
        .await
    }

    pub(super) async fn unannounce(&self, topic: TopicKey) -> Result<(), NetError> {
        self.ask(DhtOperation::Unannounce, "withdraw", async {
            self.handle.unannounce(topic.0, &self.key).await.map(Ok)
        })
        .await
    }

    pub(super) async fn lookup(&self, topic: TopicKey) -> Result<Vec<NodeId>, NetError> {
        self.ask(DhtOperation::Lookup, "look up", async {
            let mut keys = lookup(self.handle.dht(), topic.0).await?;
            let mut seen = HashSet::new();
            keys.retain(|key| seen.insert(*key));
            Ok(Ok(keys))
        })
        .await
    }

    pub(super) async fn put_record(&self, bytes: &[u8], seq: u64) -> Result<(), NetError> {
        self.ask(DhtOperation::PutRecord, "publish", async {
            let put = self.handle.mutable_put(&self.key, bytes, seq).await?;
            let stored = put.closest_nodes.len() > put.commit_timeouts as usize;
            Ok(match stored {
                true => Ok(()),
                false => Err("no DHT node took it".to_owned()),
            })
        })
        .await
    }

    /// The first record that has at least this sequence; the library has checked its signature.
    pub(super) async fn get_record(
        &self,
        peer: NodeId,
        least_seq: u64,
    ) -> Result<Option<(u64, Vec<u8>)>, NetError> {
        self.ask(DhtOperation::GetRecord, "resolve", async {
            let found = self.handle.mutable_get(&peer.0, least_seq).await?;
            Ok(Ok(found
                .filter(|found| found.value.len() <= MAX_RECORD_BYTES)
                .map(|found| (found.seq, found.value))))
        })
        .await
    }

    pub(super) async fn destroy(&self) {
        if tokio::time::timeout(LEAVE_TIMEOUT, self.handle.destroy())
            .await
            .is_err()
        {
            tracing::debug!("the DHT client did not stop in time");
        }
    }

    /// Asks, with an end and a count. The inner error is a refusal in words.
    async fn ask<T>(
        &self,
        operation: DhtOperation,
        what: &'static str,
        question: impl Future<Output = Result<Result<T, String>, HyperDhtError>>,
    ) -> Result<T, NetError> {
        let start = Instant::now();
        let answer = tokio::time::timeout(QUESTION_TIMEOUT, async {
            self.join().await?;
            question.await.map_err(|error| error.to_string())?
        })
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", QUESTION_TIMEOUT.as_secs())));
        self.metrics.dht(operation, answer.is_ok(), start.elapsed());
        answer.map_err(|why| NetError::Dht { what, why })
    }

    /// Gets at least one DHT node into the routing table. The library asks the bootstrap nodes once,
    /// at its start; when they were not there yet, every later query would wait for ever.
    async fn join(&self) -> Result<(), String> {
        let known = self.handle.table_size().await.map_err(|e| e.to_string())?;
        if known > 0 {
            return Ok(());
        }
        let mut pings: FuturesUnordered<_> = self
            .bootstrap
            .iter()
            .map(|node| async move {
                let host = node.ip().to_string();
                self.handle.dht().ping(&host, node.port()).await.is_ok()
            })
            .collect();
        let found = tokio::time::timeout(JOIN_TIMEOUT, async {
            while let Some(answered) = pings.next().await {
                if answered {
                    return true;
                }
            }
            false
        })
        .await
        .unwrap_or(false);
        match found {
            true => Ok(()),
            false if self.bootstrap.is_empty() => Err("no bootstrap nodes are configured".into()),
            false => Err(format!(
                "none of the {} bootstrap nodes answers",
                self.bootstrap.len()
            )),
        }
    }
}
