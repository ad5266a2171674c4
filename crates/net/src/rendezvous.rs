//! Finding each other: the HyperDHT. (NET-2)
//!
//! This tree is the only place that knows `peeroxide-dht`. What it does for a node:
//!
//! * **announce** – the node's key under a topic's key, renewed until withdrawn (`announcer`);
//! * **lookup** – the keys under a topic's key, at most some twenty per DHT node: a rendezvous, not
//!   a roll call;
//! * **publish** – the node's addresses in its signed mutable record, renewed, and published again
//!   when they change (`publisher`);
//! * **resolve** – a peer's record, never older than one already seen (`records`).
//!
//! Everything runs on our own timers: the DHT forgets after 20 minutes, and the library refreshes
//! nothing by itself. Found by running, and handled in `client`: a query on an empty routing
//! table never ends, `unannounce` is not done by anybody else, and `mutable_get` gives the first
//! valid record, not the newest.

mod announcer;
mod board;
pub mod bootstrap;
mod client;
#[cfg(feature = "testing")]
pub(crate) mod datagrams;
mod lookup;
mod probe;
mod publisher;
mod records;
mod schedule;

pub use board::{Announcement, Sighting};
pub use probe::{ProbeReport, probe};
pub(crate) use publisher::AddressSource;

use crate::error::NetError;
use announcer::Announcer;
use board::Board;
pub(crate) use board::Entry;
use client::Client;
use records::Records;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tether_telemetry::metrics::NetMetrics;
use tether_wire::record::Record;
use tether_wire::{NodeId, NodeKey, TopicKey};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest time to ask for the record of a peer of which one is remembered.
const RECORD_TIMEOUT: Duration = Duration::from_secs(3);
/// Most keys that a lookup gives, whatever the DHT answers.
const MAX_LOOKUP_KEYS: usize = 512;

/// A node's place on the DHT.
pub(crate) struct Rendezvous {
    client: Arc<Client>,
    own: NodeId,
    announcer: Announcer,
    board: Arc<Board>,
    records: Mutex<Records>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Where a peer can be reached, by its own signed word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// The record's sequence: Unix milliseconds by the peer's clock.
    pub(crate) seq: u64,
    /// The record.
    pub(crate) record: Record,
}

impl Rendezvous {
    /// Joins the DHT. It does not wait for an answer: a node may start before its bootstrap nodes.
    pub(crate) async fn start(
        key: &NodeKey,
        listen: SocketAddr,
        bootstrap: Vec<SocketAddr>,
        metrics: Arc<NetMetrics>,
    ) -> Result<Self, NetError> {
        let client = Arc::new(Client::start(key, listen, bootstrap, metrics).await?);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let board = Arc::new(Board::default());
        let writing = board.clone();
        Ok(Self {
            announcer: Announcer::new(client.clone(), tasks.clone(), stop.clone(), writing),
            board,
            client,
            own: key.id(),
            records: Mutex::default(),
            tasks,
            stop,
        })
    }

    /// What is announced and was seen, for people.
    pub(crate) fn board(&self) -> Vec<(TopicKey, Entry)> {
        self.board.entries()
    }

    /// The name of a topic, for the board.
    pub(crate) fn name(&self, topic: TopicKey, name: String) {
        self.board.name(topic, name);
    }

    /// Announces under a topic's key, now and until withdrawn.
    pub(crate) async fn announce(&self, topic: TopicKey) -> Result<(), NetError> {
        self.announcer.announce(topic).await
    }

    /// Ends an announcement, also on the DHT.
    pub(crate) async fn withdraw(&self, topic: TopicKey) {
        self.announcer.withdraw(topic).await;
    }

    /// The keys under a topic's key, without our own.
    pub(crate) async fn lookup(&self, topic: TopicKey) -> Result<Vec<NodeId>, NetError> {
        let answer = self.client.lookup(topic).await.map(|mut keys| {
            keys.retain(|key| *key != self.own);
            keys.truncate(MAX_LOOKUP_KEYS);
            keys
        });
        (self.board).looked_up(topic, answer.as_ref().map(Vec::as_slice));
        answer
    }

    /// Publishes what `addresses` gives, now and until the node stops; waits for the first time.
    pub(crate) async fn publish(&self, source: impl AddressSource) {
        publisher::start(self.client.clone(), source, &self.tasks, self.stop.clone()).await;
    }

    /// Takes a record of an earlier run, unless a newer one is known.
    pub(crate) fn remember(&self, peer: NodeId, seq: u64, addresses: &[SocketAddr]) {
        if addresses.is_empty() {
            return;
        }
        let record = Record {
            v: 1,
            addresses: addresses.to_vec(),
            relay: None,
        };
        self.records().insert(peer, Resolved { seq, record });
    }

    /// The newest record that was seen of a peer.
    pub(crate) fn remembered(&self, peer: &NodeId) -> Option<Resolved> {
        self.records().get(peer).cloned()
    }

    /// A peer's record. With `newer_than` only a newer one counts, and what is remembered does not.
    pub(crate) async fn resolve(
        &self,
        peer: NodeId,
        newer_than: Option<u64>,
    ) -> Result<Option<Resolved>, NetError> {
        let remembered = self.records().get(&peer).cloned();
        let least = match (newer_than, &remembered) {
            (Some(seq), _) => seq.saturating_add(1),
            (None, Some(known)) => known.seq,
            (None, None) => 0,
        };
        let answer = self.client.get_record(peer, least);
        // Who is remembered is not looked for without end where the DHT does not answer.
        let answer = match &remembered {
            Some(_) => tokio::time::timeout(RECORD_TIMEOUT, answer).await,
            None => Ok(answer.await),
        };
        let answer = answer.unwrap_or(Ok(None));
        let found = match &answer {
            Ok(Some((seq, bytes))) => Record::decode(bytes)
                .ok()
                .map(|record| Resolved { seq: *seq, record }),
            _ => None,
        };
        if let Some(found) = found {
            self.records().insert(peer, found.clone());
            return Ok(Some(found));
        }
        if newer_than.is_some() {
            return answer.map(|_| None);
        }
        // The DHT may have lost what we know: a remembered address is better than none.
        match remembered {
            Some(known) => Ok(Some(known)),
            None => answer.map(|_| None),
        }
    }

    /// Withdraws everything and leaves.
    pub(crate) async fn shutdown(&self) {
        self.stop.cancel();
        self.announcer.withdraw_all().await;
        self.tasks.close();
        self.tasks.wait().await;
        self.client.destroy().await;
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
