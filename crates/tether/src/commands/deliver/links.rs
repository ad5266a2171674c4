//! Over links: orchestrators are found, linked with and told.

use super::Message;
use super::outcome::{Outcome, Who};
use crate::authority::issuer::Issuer;
use anyhow::Context;
use futures_util::{StreamExt, stream};
use rand::seq::SliceRandom;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tether_net::{
    BoxFuture, Incoming, Link, LinkError, LinkLimits, Members, Node, NodeConfig, Service,
    UplinkConfig,
};
use tether_telemetry::metrics::{NetMetrics, Registry};
use tether_wire::grant::Access;
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{NodeId, Region, Role, Topic};
use tokio::time::{Instant, timeout, timeout_at};

/// How long orchestrators are looked for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before they are looked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one orchestrator may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// And for each message, which it verifies and keeps.
const MESSAGE_TIMEOUT: Duration = Duration::from_millis(5);
/// How long others are still told once one took it, who tells them too.
const LINGER: Duration = Duration::from_secs(10);
/// Most that are told; they tell the others.
const MAX_TOLD: usize = 256;
/// How many are dialled at once.
const AT_ONCE: usize = 16;

/// A mesh, as far as it takes to find its orchestrators.
pub(super) struct Place {
    pub(super) bootstrap: Vec<SocketAddr>,
    pub(super) regions: Vec<Region>,
    pub(super) access: Access,
    pub(super) relays: Vec<String>,
    /// Orchestrators that are told besides those that are found, and before them: nobody crowds
    /// them out.
    pub(super) named: Vec<NodeId>,
}

/// What became of telling one.
enum Told {
    Took,
    /// By one that the message takes back.
    Fell,
    /// By an orchestrator that proved to be one.
    Refused(String),
    Missed(String),
}

impl Place {
    /// Tells all that are named or found, until somebody took it or refused.
    pub(super) async fn tell(
        &self,
        issuer: &Issuer,
        messages: &[Message],
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let node = Box::pin(Node::start(self.node_config(issuer)?, Arc::new(Deaf))).await?;
        // What came in until then stands in the outcome.
        let most = 2 * PATIENCE + time_for(messages);
        let told = timeout(most, self.rounds(&node, messages, outcome)).await;
        node.shutdown().await;
        if told.is_err() && !outcome.is_taken() {
            outcome.misses(Who::Dht, "it took too long");
        }
        Ok(())
    }

    fn node_config(&self, issuer: &Issuer) -> anyhow::Result<NodeConfig> {
        let region = match issuer.own_region() {
            Some(region) => region.clone(),
            None => self.regions.first().context("a region is needed")?.clone(),
        };
        // A mesh on this machine needs nobody to reach it from elsewhere.
        let is_local = self.bootstrap.iter().all(|addr| addr.ip().is_loopback());
        let ip = if is_local {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let mut mesh = issuer.mesh();
        if self.access == Access::Open {
            mesh.access = Access::Open;
        }
        Ok(NodeConfig {
            key: issuer.key().clone(),
            members: Members::new(mesh),
            role: Role::Operator,
            region,
            grant: issuer.own_grant(),
            invite: None,
            accept: vec![Role::Orchestrator],
            listen: (ip, 0).into(),
            advertise: Vec::new(),
            dht_listen: (ip, 0).into(),
            bootstrap: self.bootstrap.clone(),
            relays: self.relays.clone(),
            uplinks: UplinkConfig::default(),
            limits: LinkLimits::default(),
            metrics: NetMetrics::register(&Registry::new()),
        })
    }

    async fn rounds(&self, node: &Node, messages: &[Message], outcome: &mut Outcome) {
        let begin = Instant::now();
        loop {
            let found = self.look_up(node, outcome).await;
            if round(node, found, messages, outcome).await || begin.elapsed() > PATIENCE {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Whom to tell next, the named ones first.
    async fn look_up(&self, node: &Node, outcome: &mut Outcome) -> Vec<NodeId> {
        let mut found = BTreeSet::new();
        for region in &self.regions {
            match node.lookup(&Topic::Control(region.clone())).await {
                Ok(ids) => found.extend(ids),
                Err(error) => outcome.misses(Who::Dht, error),
            }
        }
        let mut found: Vec<NodeId> = found.into_iter().collect();
        // Nobody outside chooses who is told where there is not room for all.
        found.shuffle(&mut rand::rng());
        found.retain(|id| !self.named.contains(id));
        found.splice(0..0, self.named.iter().copied());
        found.retain(|id| !outcome.has_told(*id));
        found.truncate(MAX_TOLD);
        found
    }
}

/// Tells these; says whether anybody took it, or refused and could.
async fn round(
    node: &Node,
    found: Vec<NodeId>,
    messages: &[Message],
    outcome: &mut Outcome,
) -> bool {
    let mut telling = stream::iter(found)
        .map(|id| async move { (id, tell_one(node, id, messages).await) })
        .buffer_unordered(AT_ONCE);
    let (mut is_done, mut until) = (false, None);
    loop {
        let next = match until {
            None => telling.next().await,
            Some(until) => timeout_at(until, telling.next()).await.unwrap_or(None),
        };
        let Some((id, told)) = next else {
            return is_done;
        };
        match told {
            Told::Took => {
                outcome.takes(Who::Node(id));
                until.get_or_insert(Instant::now() + LINGER);
                is_done = true;
            }
            Told::Fell => outcome.falls(Who::Node(id)),
            Told::Refused(why) => {
                outcome.refuses(why);
                is_done = true;
            }
            Told::Missed(why) => outcome.misses(Who::Node(id), why),
        }
    }
}

async fn tell_one(node: &Node, id: NodeId, messages: &[Message]) -> Told {
    let mesh = node.mesh().id;
    let falls = |grant| (messages.iter()).any(|message| message.is_about(&mesh, id, grant));
    let link = match node.link(id, Role::Orchestrator).await {
        Ok(link) => link,
        Err(error @ LinkError::Refused(_)) => {
            return Told::Missed(format!("{}: {error}", id.short()));
        }
        // Another one has told this node already.
        Err(LinkError::Rejected(_)) if falls(None) => return Told::Fell,
        Err(error) => return Told::Missed(error.to_string()),
    };
    let falls = falls(link.grant());
    match send(&link, messages).await {
        Ok(()) if falls => Told::Fell,
        Ok(()) => Told::Took,
        Err(error) if matches!(error.code, Code::Invalid | Code::Forbidden) => {
            Told::Refused(format!("orchestrator {}: {}", id.short(), error.message))
        }
        Err(error) => Told::Missed(format!("orchestrator {}: {}", id.short(), error.message)),
    }
}

/// How long one orchestrator may take for these, besides what a call takes.
fn time_for(messages: &[Message]) -> Duration {
    MESSAGE_TIMEOUT * u32::try_from(messages.len()).unwrap_or(u32::MAX)
}

async fn send(link: &Link, messages: &[Message]) -> Result<(), RpcError> {
    let most = CALL_TIMEOUT + time_for(messages);
    let mut call = link.call(method::CONTROL, Some(most), &[]).await?;
    for message in messages {
        call.send(&message.bytes).await?;
    }
    call.finish_sending().await;
    while call.next().await?.is_some() {}
    Ok(())
}

/// Serves nothing: orchestrators only tell this node what it need not know.
struct Deaf;

impl Service for Deaf {
    fn serve(&self, _: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let why = "an operator serves nothing";
        Box::pin(std::future::ready(Err(RpcError::new(Code::NotFound, why))))
    }
}
