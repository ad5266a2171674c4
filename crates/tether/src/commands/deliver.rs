//! How a control message reaches the mesh: over links as the operator, over an orchestrator's admin
//! endpoint, or not yet. [T-CTL-6]

use super::fleet::Admin;
use super::http;
use super::run_file::RunFile;
use crate::authority::issuer::Issuer;
use crate::exit::{NotReady, Usage};
use crate::stderr;
use anyhow::{Context, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use rand::seq::SliceRandom;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tether_net::{
    BoxFuture, Incoming, LinkError, LinkLimits, Members, Node, NodeConfig, Service, UplinkConfig,
};
use tether_telemetry::metrics::{NetMetrics, Registry};
use tether_wire::grant::Access;
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{NodeId, Region, Role, Topic};
use tokio::time::Instant;

/// How long orchestrators are looked for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before they are looked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one orchestrator may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most that are told; they tell the others.
const MAX_TOLD: usize = 256;
/// How many are dialled at once.
const AT_ONCE: usize = 16;

/// Where to.
#[derive(Debug, Args)]
pub(crate) struct DeliveryArgs {
    /// DHT bootstrap node of the mesh, over which orchestrators are found; may be given several times
    #[arg(long, value_name = "ADDR", requires = "region")]
    bootstrap: Vec<SocketAddr>,
    /// Region whose orchestrators are told; they tell those of the others. May be given several times
    #[arg(long, requires = "bootstrap")]
    region: Vec<Region>,
    /// `access` of the mesh, on which depends where its orchestrators are found
    #[arg(long, default_value = "invite", value_parser = ["invite", "open"], requires = "bootstrap")]
    access: String,
    /// URL of an orchestrator's admin endpoint
    #[arg(long, value_name = "URL", value_parser = http::parse_url, requires = "admin_token_file")]
    admin: Option<String>,
    /// File with the token of the admin endpoint
    #[arg(long, value_name = "FILE", requires = "admin")]
    admin_token_file: Option<PathBuf>,
    /// Data folder of a running `tether up`, whose orchestrator is told
    #[arg(long, value_name = "DIR", conflicts_with = "admin")]
    data_dir: Option<PathBuf>,
}

/// A message, and what it says.
pub(crate) struct Message {
    pub(crate) bytes: Vec<u8>,
    pub(crate) what: String,
}

/// Who took it, and who did not.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) took: BTreeSet<NodeId>,
    admins: usize,
    /// Words of those who refused it.
    refused: Vec<String>,
    /// Words of those who could not be reached.
    missed: Vec<String>,
}

impl DeliveryArgs {
    /// Whether anybody is to be told now.
    pub(crate) fn is_given(&self) -> bool {
        self.uses_links() || self.admin.is_some() || self.data_dir.is_some()
    }

    /// Whether it goes over links, for which a key is needed.
    pub(crate) fn uses_links(&self) -> bool {
        !self.bootstrap.is_empty()
    }

    /// Refuses what cannot be meant, before anything is signed.
    pub(crate) fn check(&self) -> Result<(), Usage> {
        if (self.bootstrap.iter()).any(|addr| addr.is_ipv6() || addr.port() == 0) {
            return Err(Usage(
                "--bootstrap takes IPv4 addresses with a port: IP:PORT",
            ));
        }
        Ok(())
    }

    /// Tells whom it can.
    pub(crate) async fn deliver(
        &self,
        issuer: Option<&Issuer>,
        messages: &[Message],
    ) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        if let Some(admin) = self.open_admin()? {
            for message in messages {
                match admin.control(&message.bytes).await {
                    Ok(_) => outcome.admins = 1,
                    Err(error) if error.is::<NotReady>() => {
                        outcome.missed.push(format!("{error:#}"));
                    }
                    Err(error) => outcome.refused.push(format!("{error:#}")),
                }
            }
        }
        if self.uses_links() {
            let issuer = issuer.context("an operator's key is needed to link")?;
            self.over_links(issuer, messages, &mut outcome).await?;
        }
        Ok(outcome)
    }

    fn open_admin(&self) -> anyhow::Result<Option<Admin>> {
        if let (Some(admin), Some(token_file)) = (&self.admin, &self.admin_token_file) {
            return Admin::open(admin, token_file).map(Some);
        }
        let Some(dir) = &self.data_dir else {
            return Ok(None);
        };
        let run = RunFile::read(dir)?;
        Admin::open(&run.admin, &run.admin_token_file).map(Some)
    }

    async fn over_links(
        &self,
        issuer: &Issuer,
        messages: &[Message],
        outcome: &mut Outcome,
    ) -> anyhow::Result<()> {
        let node = Box::pin(Node::start(self.node_config(issuer)?, Arc::new(Deaf))).await?;
        let told = tokio::time::timeout(2 * PATIENCE, self.tell(&node, messages, outcome)).await;
        node.shutdown().await;
        if told.is_err() && outcome.took.is_empty() {
            outcome.missed.push("it took too long".to_owned());
        }
        Ok(())
    }

    fn node_config(&self, issuer: &Issuer) -> anyhow::Result<NodeConfig> {
        let region = match issuer.own_region() {
            Some(region) => region.clone(),
            None => self.region.first().context("a region is needed")?.clone(),
        };
        // A mesh on this machine needs nobody to reach it from elsewhere.
        let is_local = self.bootstrap.iter().all(|addr| addr.ip().is_loopback());
        let ip = if is_local {
            Ipv4Addr::LOCALHOST
        } else {
            Ipv4Addr::UNSPECIFIED
        };
        let mut mesh = issuer.mesh();
        if self.access == "open" {
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
            relays: Vec::new(),
            uplinks: UplinkConfig::default(),
            limits: LinkLimits::default(),
            metrics: NetMetrics::register(&Registry::new()),
        })
    }

    /// Tells all that are found, until somebody took it or all refused.
    async fn tell(&self, node: &Node, messages: &[Message], outcome: &mut Outcome) {
        let begin = Instant::now();
        loop {
            let mut found = BTreeSet::new();
            let mut missed = Vec::new();
            for region in &self.region {
                match node.lookup(&Topic::Control(region.clone())).await {
                    Ok(ids) => found.extend(ids),
                    Err(error) => missed.push(error.to_string()),
                }
            }
            let mut found: Vec<NodeId> = found.into_iter().collect();
            // Nobody outside chooses who is told where there is not room for all.
            found.shuffle(&mut rand::rng());
            found.truncate(MAX_TOLD);
            let told = stream::iter(found)
                .map(|id| async move { (id, tell_one(node, id, messages).await) })
                .buffer_unordered(AT_ONCE)
                .collect::<Vec<_>>()
                .await;
            outcome.refused.clear();
            for (id, told) in told {
                match told {
                    Told::Took => {
                        outcome.took.insert(id);
                    }
                    Told::Refused(why) => outcome.refused.push(why),
                    Told::Missed(why) => missed.push(why),
                }
            }
            outcome.missed = missed;
            let is_done = !outcome.took.is_empty() || !outcome.refused.is_empty();
            if is_done || begin.elapsed() > PATIENCE {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

enum Told {
    Took,
    /// By an orchestrator that proved to be one.
    Refused(String),
    Missed(String),
}

async fn tell_one(node: &Node, id: NodeId, messages: &[Message]) -> Told {
    let link = match node.link(id, Role::Orchestrator).await {
        Ok(link) => link,
        Err(error @ LinkError::Refused(_)) => {
            return Told::Missed(format!("{}: {error}", id.short()));
        }
        Err(error) => return Told::Missed(error.to_string()),
    };
    let send = async {
        let mut call = link.call(method::CONTROL, Some(CALL_TIMEOUT), &[]).await?;
        for message in messages {
            call.send(&message.bytes).await?;
        }
        call.finish_sending().await;
        while call.next().await?.is_some() {}
        Ok::<(), RpcError>(())
    };
    match send.await {
        Ok(()) => Told::Took,
        Err(error) if matches!(error.code, Code::Invalid | Code::Forbidden) => {
            Told::Refused(format!("orchestrator {}: {}", id.short(), error.message))
        }
        Err(error) => Told::Missed(format!("orchestrator {}: {}", id.short(), error.message)),
    }
}

impl Outcome {
    /// Whether anybody took it.
    pub(crate) fn is_taken(&self) -> bool {
        self.admins > 0 || !self.took.is_empty()
    }

    /// Says who took it; fails where nobody did.
    pub(crate) fn report(&self) -> anyhow::Result<()> {
        for why in self.refused.iter().chain(&self.missed) {
            stderr::line(format_args!("note: not taken: {why}"));
        }
        if self.is_taken() {
            let count = self.took.len() + self.admins;
            let them = if count == 1 {
                "1 orchestrator took it and passes it on".to_owned()
            } else {
                format!("{count} orchestrators took it and pass it on")
            };
            stderr::line(them);
            return Ok(());
        }
        if self.refused.is_empty() {
            return Err(NotReady(
                "nobody took it: no orchestrator was reached; check --bootstrap and --region, or --admin, and send it again".to_owned(),
            )
            .into());
        }
        bail!("nobody took it: {}", self.refused.join("; "));
    }
}

/// Serves nothing: orchestrators only tell this node what it need not know.
struct Deaf;

impl Service for Deaf {
    fn serve(&self, _: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let why = "an operator serves nothing";
        Box::pin(std::future::ready(Err(RpcError::new(Code::NotFound, why))))
    }
}
