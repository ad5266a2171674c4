//! What this node announces on the DHT and sees there, for `tether topics`.

use serde::Serialize;
use std::time::{Duration, Instant};
use tether_net::{Node, TopicView, UplinkLook, UplinkView};
use tether_wire::{MeshId, NodeId, Region, Role, Topic};

/// How long topics are looked up where that is asked for.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(10);

/// The page.
#[derive(Debug, Serialize)]
pub struct Topics {
    /// This node.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Its mesh.
    pub mesh: MeshId,
    /// Its region.
    pub region: Region,
    /// Where it can be dialled, as it publishes.
    pub addresses: Vec<String>,
    /// Links that are up.
    pub links: usize,
    /// Topics that it announces or looked up.
    pub topics: Vec<TopicRow>,
    /// Orchestrators that it knows of, the best for it first.
    pub orchestrators: Vec<OrchestratorRow>,
}

/// One topic.
#[derive(Debug, Serialize)]
pub struct TopicRow {
    /// Its name.
    pub name: String,
    /// Its key on the DHT, in hex.
    pub key: String,
    /// How its announcement stands; null where it is not announced.
    pub announced: Option<AnnouncedRow>,
    /// What the last look-up gave; null where it was not looked up.
    pub seen: Option<SeenRow>,
}

/// An announcement that is kept up.
#[derive(Debug, Serialize)]
pub struct AnnouncedRow {
    /// Milliseconds since the DHT took it last; null is never.
    pub last_ms_ago: Option<u64>,
    /// Milliseconds until it is announced again; null while that is under way for the first time.
    pub next_in_ms: Option<u64>,
    /// Failures since it went well.
    pub failures: u32,
    /// Why it failed last.
    pub error: Option<String>,
}

/// What a look-up gave.
#[derive(Debug, Serialize)]
pub struct SeenRow {
    /// Milliseconds since it ended.
    pub ms_ago: u64,
    /// Keys that were found, without this node's own.
    pub found: usize,
    /// How many of `keys` there is a link with.
    pub linked: usize,
    /// Some of them.
    pub keys: Vec<NodeId>,
    /// Why the last one was not answered.
    pub error: Option<String>,
}

/// An orchestrator.
#[derive(Debug, Serialize)]
pub struct OrchestratorRow {
    /// Which one.
    pub id: NodeId,
    /// `configured`, `remembered`, or `found` on the control topic.
    pub source: &'static str,
    /// `in-use`, `spare`, `quiet`, `dialling`, or `not-linked`.
    pub state: &'static str,
    /// Failed dials since the last link.
    pub failures: u32,
    /// Look-ups in a row that did not give it.
    pub missed: u32,
    /// Milliseconds since a link was seen; null is never in this run.
    pub linked_ms_ago: Option<u64>,
    /// Milliseconds until it is dialled; null where it is not to be.
    pub dial_in_ms: Option<u64>,
    /// Where its record said that it is.
    pub addresses: Vec<String>,
}

/// The page of a node. With `look_up` the topics of its region are looked up before, which takes
/// some seconds.
pub(super) async fn page(node: &Node, uplinks: &UplinkLook, look_up: bool) -> Topics {
    if look_up {
        let region = node.region();
        let (control, presence) = (
            Topic::Control(region.clone()),
            Topic::Presence(region.clone()),
        );
        let both = async { tokio::join!(node.lookup(&control), node.lookup(&presence)) };
        // How they went is among the topics.
        let _ = tokio::time::timeout(LOOKUP_PATIENCE, both).await;
    }
    let orchestrators = uplinks.views().await;
    let now = Instant::now();
    Topics {
        id: node.id(),
        role: node.role(),
        mesh: node.mesh().id,
        region: node.region().clone(),
        addresses: texts(&node.addresses()),
        links: node.links().len(),
        topics: node.topics().into_iter().map(|it| topic(it, now)).collect(),
        orchestrators: orchestrators.into_iter().map(orchestrator).collect(),
    }
}

fn topic(view: TopicView, now: Instant) -> TopicRow {
    let since = |at: Instant| millis(now.saturating_duration_since(at));
    TopicRow {
        name: view.name,
        key: view.key.to_hex(),
        announced: view.announced.map(|it| AnnouncedRow {
            last_ms_ago: it.last.map(since),
            next_in_ms: (it.next).map(|at| millis(at.saturating_duration_since(now))),
            failures: it.failures,
            error: it.error,
        }),
        seen: view.seen.map(|it| SeenRow {
            ms_ago: since(it.at),
            found: it.found,
            linked: view.linked,
            keys: it.keys,
            error: it.error,
        }),
    }
}

fn orchestrator(view: UplinkView) -> OrchestratorRow {
    OrchestratorRow {
        id: view.id,
        source: view.source,
        state: view.state,
        failures: view.failures,
        missed: view.missed,
        linked_ms_ago: view.linked_ago.map(millis),
        dial_in_ms: view.dial_in.map(millis),
        addresses: texts(&view.addresses),
    }
}

fn texts(addresses: &[std::net::SocketAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
