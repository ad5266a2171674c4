//! How a control message reaches the mesh: over links as the operator, over an orchestrator's admin
//! endpoint, or not yet. [T-CTL-6]

mod links;
mod outcome;

pub(crate) use outcome::Outcome;

use super::fleet::Admin;
use super::http;
use super::run_file::RunFile;
use crate::authority::issuer::Issuer;
use crate::config;
use crate::exit::{NotReady, Usage};
use anyhow::Context;
use clap::Args;
use links::Place;
use outcome::Who;
use std::net::SocketAddr;
use std::path::PathBuf;
use tether_net::MAX_CONFIGURED;
use tether_wire::control::Target;
use tether_wire::grant::Access;
use tether_wire::{Grant, MeshId, NodeId, Region, Signed};

/// What the exit codes of telling the mesh are, for `--help`.
pub(super) const HELP: &str = "\
Exit codes:
  0  an orchestrator took it and passes it on; one that is revoked by it does not count
  1  it failed: nobody took it, and an orchestrator refused it, say
  2  wrong usage
  3  the configuration is invalid
  4  no orchestrator was reached within 30 s, or none but the one that is revoked: send it again";

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
    /// Configuration of any node of the mesh, instead of these: what its `[node]` says of bootstrap,
    /// region, access and relays, and its orchestrators, who are told besides those that are found
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bootstrap", "region", "access"])]
    config: Option<PathBuf>,
    /// Key of an orchestrator that is told besides those that are found; may be given several times
    #[arg(long, value_name = "ID")]
    orchestrator: Vec<NodeId>,
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
    /// What it takes back, where it is a revocation.
    pub(crate) target: Option<Target>,
}

impl Message {
    /// Whether it takes back this node: its key, or the grant that it shows. One that falls because
    /// of what its grant rests on is not meant: it may be all that there is to pass it on.
    fn is_about(&self, mesh: &MeshId, node: NodeId, grant: Option<&[u8]>) -> bool {
        match self.target {
            None => false,
            Some(Target::Key(key)) => key == node,
            Some(Target::Serial { issuer, serial }) => grant
                .and_then(|grant| Signed::<Grant>::from_bytes(grant).verify(mesh).ok())
                .is_some_and(|grant| grant.serial == serial && grant.signer() == issuer),
        }
    }
}

/// The ways to the mesh, as far as they can be told without going them.
pub(crate) struct Delivery {
    admin: Option<Admin>,
    place: Option<Place>,
}

impl DeliveryArgs {
    /// Whether anybody is to be told now.
    pub(crate) fn is_given(&self) -> bool {
        self.uses_links() || self.admin.is_some() || self.data_dir.is_some()
    }

    /// Whether it goes over links, for which a key is needed.
    pub(crate) fn uses_links(&self) -> bool {
        !self.bootstrap.is_empty() || self.config.is_some()
    }

    /// Refuses what cannot be meant, before a key is read.
    pub(crate) fn check(&self) -> Result<(), Usage> {
        if (self.bootstrap.iter()).any(|addr| addr.is_ipv6() || addr.port() == 0) {
            return Err(Usage(
                "--bootstrap takes IPv4 addresses with a port: IP:PORT",
            ));
        }
        if !self.orchestrator.is_empty() && !self.uses_links() {
            return Err(Usage(
                "--orchestrator is found over the DHT: give --bootstrap and --region, or --config",
            ));
        }
        if self.orchestrator.len() > MAX_CONFIGURED {
            return Err(Usage("give --orchestrator at most 64 times"));
        }
        Ok(())
    }

    /// Reads what there is to read, before anything is signed. `mesh` is that of the key, where one
    /// is given.
    pub(crate) fn open(&self, mesh: Option<MeshId>) -> anyhow::Result<Delivery> {
        Ok(Delivery {
            admin: self.open_admin()?,
            place: self.place(mesh)?,
        })
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

    fn place(&self, mesh: Option<MeshId>) -> anyhow::Result<Option<Place>> {
        let mut place = match &self.config {
            Some(path) => {
                let node = config::node_of(path)?;
                if let Some(mesh) = mesh.filter(|mesh| *mesh != node.mesh) {
                    anyhow::bail!(
                        "{} is of a node of mesh {}, and the key is of mesh {mesh}",
                        path.display(),
                        node.mesh
                    );
                }
                Place {
                    bootstrap: node.bootstrap,
                    regions: vec![node.region],
                    access: node.access,
                    relays: node.relays,
                    named: node.orchestrators,
                }
            }
            None if self.bootstrap.is_empty() => return Ok(None),
            None => Place {
                bootstrap: self.bootstrap.clone(),
                regions: self.region.clone(),
                access: match self.access.as_str() {
                    "open" => Access::Open,
                    _ => Access::Invite,
                },
                relays: Vec::new(),
                named: Vec::new(),
            },
        };
        for id in &self.orchestrator {
            if !place.named.contains(id) {
                place.named.push(*id);
            }
        }
        Ok(Some(place))
    }
}

impl Delivery {
    /// Tells whom it can, and says of each what became of it.
    pub(crate) async fn deliver(
        &self,
        issuer: Option<&Issuer>,
        messages: &[Message],
    ) -> anyhow::Result<Outcome> {
        let mut outcome = Outcome::default();
        if let Some(admin) = &self.admin {
            tell_admin(admin, messages, &mut outcome).await;
        }
        if let Some(place) = &self.place {
            let issuer = issuer.context("an operator's key is needed to link")?;
            place.tell(issuer, messages, &mut outcome).await?;
        }
        Ok(outcome)
    }
}

/// In their order, and as a call over a link does: one that is refused keeps none from what comes
/// after it, and it took them only where it took all.
async fn tell_admin(admin: &Admin, messages: &[Message], outcome: &mut Outcome) {
    let (mut who, mut falls, mut wrong) = (Who::Admin, false, None);
    for message in messages {
        match admin.control(&message.bytes).await {
            Ok(by) => {
                who = by.map_or(who, Who::Node);
                // Which grant it has is not known here.
                falls |= by.is_some_and(|by| message.target == Some(Target::Key(by)));
            }
            Err(error) if error.is::<NotReady>() => {
                return outcome.misses(Who::Admin, format!("{error:#}"));
            }
            Err(error) => {
                wrong.get_or_insert(format!("{error:#}"));
            }
        }
    }
    match wrong {
        Some(why) => outcome.refuses(why),
        None if falls => outcome.falls(who),
        None => outcome.takes(who),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::grant::{Role, Tier};
    use tether_wire::{NodeId, NodeKey};

    #[test]
    fn a_revocation_is_about_its_key_or_who_shows_the_grant_of_its_serial() {
        let operator = NodeKey::from_seed([1; 32]);
        let mesh = MeshId(operator.id().0);
        let node = NodeId([2; 32]);
        let grant = Grant {
            subject: node,
            role: Role::Orchestrator,
            region: None,
            tier: Tier::Trusted,
            not_before_ms: 1,
            expires_ms: 2,
            serial: 7,
            issuer: None,
            consent: None,
            invite: None,
        };
        let grant = Signed::seal(&operator, &mesh, &grant).expect("inside limits");
        let is_about = |target, grant: Option<&[u8]>| {
            let message = Message {
                bytes: Vec::new(),
                what: String::new(),
                target,
            };
            message.is_about(&mesh, node, grant)
        };
        let serial = |issuer, serial| Some(Target::Serial { issuer, serial });
        let shown = Some(grant.as_bytes());
        assert!(is_about(Some(Target::Key(node)), None));
        assert!(is_about(serial(operator.id(), 7), shown));
        for (target, shown) in [
            (None, shown),
            // All that this key has granted falls, and somebody has to pass that on.
            (Some(Target::Key(operator.id())), shown),
            (serial(operator.id(), 8), shown),
            (serial(node, 7), shown),
            (serial(operator.id(), 7), None),
            (serial(operator.id(), 7), Some(&[1; 200][..])),
        ] {
            assert!(!is_about(target, shown), "{target:?}");
        }
    }
}
