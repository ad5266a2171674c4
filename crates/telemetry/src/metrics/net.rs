//! What happens between nodes.

use super::labels::{BoundedLabels, ByCode, ByRole};
use super::registry::{Histograms, Registry, SHORT_SECONDS};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;
use std::sync::Arc;
use std::time::Duration;

/// Method names that keep a label of their own; peers choose them.
const MAX_METHODS: usize = 32;

/// What was asked of the DHT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DhtOperation {
    /// A topic was announced.
    Announce,
    /// A topic was withdrawn.
    Unannounce,
    /// A topic was looked up.
    Lookup,
    /// Our record was stored.
    PutRecord,
    /// A node's record was read.
    GetRecord,
}

impl DhtOperation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Unannounce => "unannounce",
            Self::Lookup => "lookup",
            Self::PutRecord => "put-record",
            Self::GetRecord => "get-record",
        }
    }
}

/// Who opened a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The peer did.
    Incoming,
    /// We did.
    Outgoing,
}

impl Direction {
    fn as_str(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    direction: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DhtLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DhtTimes {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// Links, calls and the DHT.
#[derive(Debug)]
pub struct NetMetrics {
    methods: BoundedLabels,
    links: Family<ByRole, Gauge>,
    links_quiet: Family<ByRole, Gauge>,
    links_relayed: Family<ByRole, Gauge>,
    links_up: Family<ByRole, Counter>,
    links_down: Family<ByRole, Counter>,
    refusals: Family<ByCode, Counter>,
    refused_by_peer: Family<ByCode, Counter>,
    membership: Family<ByKind, Gauge>,
    calls: Family<CallLabels, Counter>,
    calls_open: Family<ByDirection, Gauge>,
    bytes: Family<ByDirection, Counter>,
    dht: Family<DhtLabels, Counter>,
    dht_seconds: Histograms<DhtTimes>,
}

impl NetMetrics {
    /// Registers them, or gives those that are registered.
    pub fn register(registry: &Registry) -> Arc<Self> {
        registry.once(|d| Self {
            methods: BoundedLabels::new(MAX_METHODS),
            links: d.add(
                "tether_net_links",
                "Links that are up, by the peer's role",
                Family::default(),
            ),
            links_quiet: d.add(
                "tether_net_links_quiet",
                "Links that are up, but nothing is heard on them, by the peer's role",
                Family::default(),
            ),
            links_relayed: d.add(
                "tether_net_links_relayed",
                "Links that go through a relay, for want of a direct way, by the peer's role",
                Family::default(),
            ),
            links_up: d.add(
                "tether_net_links_opened",
                "Links that came up, by the peer's role",
                Family::default(),
            ),
            links_down: d.add(
                "tether_net_links_closed",
                "Links that went down, by the peer's role",
                Family::default(),
            ),
            refusals: d.add(
                "tether_net_refusals",
                "Peers that this node refused, by reason",
                Family::default(),
            ),
            refused_by_peer: d.add(
                "tether_net_refused_by_peer",
                "Times that a peer refused this node, by reason",
                Family::default(),
            ),
            membership: d.add(
                "tether_net_membership",
                "What this node knows of who left the mesh or came by an invite, by kind",
                Family::default(),
            ),
            calls: d.add(
                "tether_net_calls",
                "Calls that ended, by method, direction and outcome",
                Family::default(),
            ),
            calls_open: d.add(
                "tether_net_calls_open",
                "Calls in progress",
                Family::default(),
            ),
            bytes: d.add_in(
                "tether_net_frames",
                "Bytes of frames, by direction",
                Unit::Bytes,
                Family::default(),
            ),
            dht: d.add(
                "tether_net_dht_operations",
                "Operations on the DHT, by outcome",
                Family::default(),
            ),
            dht_seconds: d.add_in(
                "tether_net_dht_operation_duration",
                "Time of an operation on the DHT",
                Unit::Seconds,
                Family::new_with_constructor(SHORT_SECONDS),
            ),
        })
    }

    /// A link came up.
    pub fn link_up(&self, role: &'static str) {
        self.links.get_or_create(&ByRole { role }).inc();
        self.links_up.get_or_create(&ByRole { role }).inc();
    }

    /// A link went down.
    pub fn link_down(&self, role: &'static str) {
        self.links.get_or_create(&ByRole { role }).dec();
        self.links_down.get_or_create(&ByRole { role }).inc();
    }

    /// A link became quiet, or is quiet no more: heard again, or down.
    pub fn link_quiet(&self, role: &'static str, quiet: bool) {
        let links = self.links_quiet.get_or_create(&ByRole { role });
        if quiet {
            links.inc()
        } else {
            links.dec()
        };
    }

    /// So many links to peers of a role go through a relay now.
    pub fn links_relayed(&self, role: &'static str, count: usize) {
        let links = self.links_relayed.get_or_create(&ByRole { role });
        links.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// This node refused a peer; `code` is `RefusalCode::as_str`.
    pub fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&ByCode { code }).inc();
    }

    /// A peer refused this node.
    pub fn refused_by_peer(&self, code: &'static str) {
        self.refused_by_peer.get_or_create(&ByCode { code }).inc();
    }

    /// So many keys and grants are revoked, keys replaced, and workers here by invites.
    pub fn membership(&self, [revoked, replaced, invited]: [usize; 3]) {
        for (kind, count) in [
            ("revoked", revoked),
            ("replaced", replaced),
            ("invited", invited),
        ] {
            let gauge = self.membership.get_or_create(&ByKind { kind });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A call began; when the guard is dropped it is over.
    pub fn call(self: &Arc<Self>, method: &str, direction: Direction) -> CallGuard {
        let direction_label = ByDirection {
            direction: direction.as_str(),
        };
        self.calls_open.get_or_create(&direction_label).inc();
        CallGuard {
            metrics: self.clone(),
            method: self.methods.label(method),
            direction,
            outcome: "cancelled",
        }
    }

    /// Bytes of frames went in or out.
    pub fn bytes(&self, direction: Direction, bytes: u64) {
        let direction = direction.as_str();
        self.bytes
            .get_or_create(&ByDirection { direction })
            .inc_by(bytes);
    }

    /// An operation on the DHT ended.
    pub fn dht(&self, operation: DhtOperation, ok: bool, took: Duration) {
        let operation = operation.as_str();
        let outcome = if ok { "ok" } else { "failed" };
        self.dht
            .get_or_create(&DhtLabels { operation, outcome })
            .inc();
        self.dht_seconds
            .get_or_create(&DhtTimes { operation })
            .observe(took.as_secs_f64());
    }
}

/// A call in progress. It counts as cancelled unless [`CallGuard::ended`] says otherwise.
#[derive(Debug)]
pub struct CallGuard {
    metrics: Arc<NetMetrics>,
    method: String,
    direction: Direction,
    outcome: &'static str,
}

impl CallGuard {
    /// How it ended: `ok`, or the name of an error code.
    pub fn ended(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let direction = self.direction.as_str();
        self.metrics
            .calls_open
            .get_or_create(&ByDirection { direction })
            .dec();
        self.metrics
            .calls
            .get_or_create(&CallLabels {
                method: std::mem::take(&mut self.method),
                direction,
                outcome: self.outcome,
            })
            .inc();
    }
}
