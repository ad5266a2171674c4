//! `[node]`: who a node is and where it stands.

use super::ConfigError;
use super::allow::{self, AllowFile, Following};
use crate::authority::{AuthorityError, grant_file, key_file, now_ms};
use anyhow::Context;
use serde::{Deserialize, Deserializer, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tether_net::{
    LinkLimits, MAX_CONFIGURED, MAX_RELAYS, MEMBERSHIP_FILE, Members, NodeConfig, UplinkConfig,
    check_relay_url,
};
use tether_telemetry::metrics::{NetMetrics, Registry};
use tether_wire::grant::{Access, Mesh};
use tether_wire::{Membership, MeshId, NodeId, NodeKey, Region, Role, Signed};

/// `[node]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSection {
    /// Key file, made by `tether keys new`.
    pub(crate) key: PathBuf,
    /// Grant file, made by `tether grant issue`. Only workers of an open mesh go without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) grant: Option<PathBuf>,
    /// The mesh id: public key of its operator, in hex.
    pub(crate) mesh: MeshId,
    /// Public half of the operator's recovery key, where the mesh has one: it may do what the first
    /// key may. The same on all nodes of a mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recovery: Option<NodeId>,
    /// Who may come: `invite` (with a grant, which workers may also get by an invite), `open`
    /// (workers also without one) or `allow-list` (as `invite`, and this node links with the keys
    /// of `allow` alone). Whether it is `open` is the same on all nodes of a mesh.
    #[serde(default, deserialize_with = "access")]
    pub(crate) access: Access,
    /// File of the keys with which this node links, one per line; for `access = "allow-list"`. Read
    /// again when it changes. A node that is not on it is refused whatever it shows, also the
    /// operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) allow: Option<PathBuf>,
    /// Where the node stands.
    pub(crate) region: Region,
    /// UDP address of its links; port 0 takes a free one.
    #[serde(default = "any")]
    pub(crate) listen: SocketAddr,
    /// Addresses to publish, where they are not the bound ones: behind a port forwarding.
    #[serde(default)]
    pub(crate) advertise: Vec<SocketAddr>,
    /// UDP address of its DHT client; port 0 takes a free one.
    #[serde(default = "any")]
    pub(crate) dht_listen: SocketAddr,
    /// DHT bootstrap nodes of the mesh.
    pub(crate) bootstrap: Vec<SocketAddr>,
    /// URLs of the mesh's relays, for nodes that cannot reach each other directly: those of
    /// `tether bootstrap` with a section `[relay]`. The same on all nodes of a mesh, for a node is
    /// reached through a relay only by one that has it here too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) relays: Vec<String>,
    /// Keys of orchestrators that are always tried. None are needed: they are found, and those that
    /// were linked with are remembered in `data_dir`. Named ones cannot be hidden by whoever crowds
    /// the region's topic with strangers before the first start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) orchestrators: Vec<NodeId>,
    /// Folder for what the role keeps; made if it is not there. One that others may write to is
    /// refused, and none has its mode changed.
    #[serde(default = "data_dir")]
    pub(crate) data_dir: PathBuf,
}

/// The name that `invite` had is refused by what it is called now.
fn access<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Access, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "invite" => Ok(Access::Invite),
        "allow-list" => Ok(Access::AllowList),
        "open" => Ok(Access::Open),
        "private" => Err(serde::de::Error::custom(
            "`private` is called `invite` now: write access = \"invite\"",
        )),
        other => Err(serde::de::Error::custom(format!(
            "`{other}` is none of `invite`, `allow-list` and `open`"
        ))),
    }
}

fn any() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

pub(super) fn data_dir() -> PathBuf {
    PathBuf::from("data")
}

/// A free port of this machine alone.
pub(crate) fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// The DHT is spoken over IPv4 alone; links are not.
pub(super) fn require_ipv4(addresses: &[SocketAddr]) -> Result<(), String> {
    match addresses.iter().find(|address| address.is_ipv6()) {
        Some(address) => Err(format!(
            "has {address}, and the DHT is spoken over IPv4 only"
        )),
        None => Ok(()),
    }
}

/// A node's key, and the grant that was checked against it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) key: NodeKey,
    pub(crate) grant: Option<Vec<u8>>,
}

/// Makes a path absolute: it is relative to the configuration file's folder.
pub(super) fn absolute(file: &Path, path: &mut PathBuf) {
    let folder = file.parent().unwrap_or(Path::new(""));
    let joined = folder.join(&*path);
    // Without a current folder the path stays relative, which works as long as nothing changes it.
    *path = std::path::absolute(&joined).unwrap_or(joined);
}

impl NodeSection {
    /// Checks everything about the node for its role; makes paths absolute.
    pub(super) fn check(&mut self, file: &Path, role: Role) -> Result<Identity, ConfigError> {
        self.check_place(file)?;
        self.check_identity(file, role)
    }

    /// The mesh it belongs to.
    pub(crate) fn mesh(&self) -> Mesh {
        Mesh {
            id: self.mesh,
            recovery: self.recovery,
            access: self.access,
        }
    }

    /// Checks all but who the node is, which a node that is about to join does not know yet.
    pub(super) fn check_place(&mut self, file: &Path) -> Result<(), ConfigError> {
        absolute(file, &mut self.key);
        absolute(file, &mut self.data_dir);
        for path in [&mut self.grant, &mut self.allow].into_iter().flatten() {
            absolute(file, path);
        }
        let refuse = refusal(file);
        match (self.access, &self.allow) {
            (Access::AllowList, None) => {
                return Err(refuse(
                    "allow",
                    "is missing: with access = \"allow-list\" it names a file of the keys with which this node links, one per line".to_owned(),
                ));
            }
            (Access::AllowList, Some(path)) => {
                AllowFile::new(path.clone())
                    .poll()
                    .map_err(|error| refuse("allow", format!("cannot be used: {error}")))?;
            }
            (_, Some(_)) => {
                return Err(refuse(
                    "allow",
                    "is given, and access is not `allow-list`: set that too, or take this out"
                        .to_owned(),
                ));
            }
            (_, None) => {}
        }
        if self.recovery == Some(self.mesh.operator()) {
            return Err(refuse(
                "recovery",
                "is the same as `mesh`: the recovery key is the operator's second one".to_owned(),
            ));
        }
        if self.bootstrap.is_empty() {
            return Err(refuse(
                "bootstrap",
                "is empty: give at least one address of `tether bootstrap`".to_owned(),
            ));
        }
        if let Some(unreachable) = self.bootstrap.iter().find(|addr| addr.port() == 0) {
            return Err(refuse(
                "bootstrap",
                format!("has {unreachable}, and nothing can be reached at port 0"),
            ));
        }
        if self.orchestrators.len() > MAX_CONFIGURED {
            return Err(refuse(
                "orchestrators",
                format!("has more than {MAX_CONFIGURED} entries"),
            ));
        }
        if self.relays.len() > MAX_RELAYS {
            return Err(refuse(
                "relays",
                format!("has more than {MAX_RELAYS} entries"),
            ));
        }
        for url in &self.relays {
            check_relay_url(url).map_err(|why| refuse("relays", format!("has {why}")))?;
        }
        require_ipv4(&self.bootstrap).map_err(|why| refuse("bootstrap", why))?;
        require_ipv4(&[self.dht_listen]).map_err(|why| refuse("dht_listen", why))
    }

    fn check_identity(&self, file: &Path, role: Role) -> Result<Identity, ConfigError> {
        let refuse = refusal(file);
        let refuse = &refuse;
        let named = |key: &'static str| {
            move |error: AuthorityError| refuse(key, format!("cannot be used: {error}"))
        };
        let key = key_file::read(&self.key).map_err(named("key"))?;
        let grant = match &self.grant {
            None if role == Role::Worker && self.access == Access::Open => None,
            None => {
                return Err(refuse(
                    "grant",
                    format!(
                        "is missing: ask the operator for `tether grant issue --subject {} --role {role}`{}",
                        key.id(),
                        if role == Role::Worker {
                            ", or for an invite (`tether worker --join`)"
                        } else {
                            ""
                        }
                    ),
                ));
            }
            Some(path) => {
                let sealed = grant_file::read_of(path, &key.id()).map_err(named("grant"))?;
                self.check_grant(&sealed, &key, role)
                    .map_err(|why| refuse("grant", format!("({}) {why}", path.display())))?;
                Some(sealed.as_bytes().to_vec())
            }
        };
        Ok(Identity { key, grant })
    }

    /// What every peer will check, so that it is known before a port is bound.
    fn check_grant(
        &self,
        sealed: &Signed<tether_wire::Grant>,
        key: &NodeKey,
        role: Role,
    ) -> Result<(), String> {
        let grant = Membership::new(self.mesh())
            .verify_grant(sealed, now_ms())
            .map_err(|error| format!("does not hold in mesh {}: {error}", self.mesh))?;
        if grant.subject != key.id() {
            return Err(format!(
                "is for {}, but this node's key is {}",
                grant.subject,
                key.id()
            ));
        }
        if grant.role != role {
            return Err(format!("is for a {}, and this is a {role}", grant.role));
        }
        match &grant.region {
            Some(region) if *region != self.region => Err(format!(
                "is for region {region}, and this node stands in {}",
                self.region
            )),
            _ => Ok(()),
        }
    }

    /// Who belongs to the mesh, as far as this node was told in earlier runs, with its own list of
    /// keys; and what follows that list. Fails where this node itself is one that was revoked.
    fn members(&self, identity: &Identity) -> anyhow::Result<(Members, Following)> {
        let members = if self.data_dir.as_os_str().is_empty() {
            Members::new(self.mesh())
        } else {
            Members::open(self.mesh(), &self.data_dir).context("cannot read who was revoked")?
        };
        let current = members.current();
        let own = (current.check_key(&identity.key.id())).map_err(|refusal| refusal.to_string());
        own.and_then(|()| match &identity.grant {
            None => Ok(()),
            Some(grant) => current
                .verify_grant(&Signed::from_bytes(grant.as_slice()), now_ms())
                .map(drop)
                .map_err(|error| error.to_string()),
        })
        .map_err(|why| {
            let known = self.data_dir.join(MEMBERSHIP_FILE);
            anyhow::anyhow!(
                "this node does not belong to the mesh any more: {why}. Where the operator says that \
                 a thief of its key did that, and has revoked the key: delete {} and start again, \
                 and its orchestrators tell what holds now",
                known.display()
            )
        })?;
        let mut file = self.allow.clone().map(AllowFile::new);
        if let Some(file) = &mut file {
            // It was read when the configuration was checked: a list that is gone since stops the start.
            members.allow_only(file.poll()?);
        }
        let following = allow::follow(file, &members);
        Ok((members, following))
    }

    /// Makes `data_dir` where it is not there. One that others may write to is refused.
    pub(crate) fn open_data_dir(&self) -> anyhow::Result<()> {
        crate::files::private_dir(&self.data_dir)
            .with_context(|| format!("cannot use node.data_dir {}", self.data_dir.display()))
    }

    /// What a node that belongs to the mesh is started with; its list of keys is followed until
    /// what comes beside is dropped. Fails as [`NodeSection::members`] does.
    pub(crate) fn member_config(
        &self,
        identity: &Identity,
        role: Role,
        registry: &Registry,
    ) -> anyhow::Result<(NodeConfig, Following)> {
        let (members, following) = self.members(identity)?;
        let metrics = NetMetrics::register(registry);
        let config = self.node_config(identity, role, members, metrics);
        Ok((config, following))
    }

    /// What the node is started with.
    pub(crate) fn node_config(
        &self,
        identity: &Identity,
        role: Role,
        members: Members,
        metrics: Arc<NetMetrics>,
    ) -> NodeConfig {
        NodeConfig {
            key: identity.key.clone(),
            members,
            role,
            region: self.region.clone(),
            grant: identity.grant.clone(),
            invite: None,
            accept: accepts(role),
            listen: self.listen,
            advertise: self.advertise.clone(),
            dht_listen: self.dht_listen,
            bootstrap: self.bootstrap.clone(),
            relays: self.relays.clone(),
            uplinks: UplinkConfig {
                orchestrators: self.orchestrators.clone(),
                // A gateway whose folder cannot be used keeps nothing.
                memory: Some(self.data_dir.clone()).filter(|dir| !dir.as_os_str().is_empty()),
            },
            limits: LinkLimits::default(),
            metrics,
        }
    }
}

fn refusal(file: &Path) -> impl Fn(&str, String) -> ConfigError + '_ {
    |key, why| ConfigError::Invalid {
        file: file.to_owned(),
        key: format!("node.{key}"),
        why,
    }
}

/// Whom a role links with. Gateways and workers never speak with each other.
fn accepts(role: Role) -> Vec<Role> {
    match role {
        Role::Orchestrator => vec![
            Role::Gateway,
            Role::Orchestrator,
            Role::Worker,
            // Whoever holds the operator's key tells it whom to revoke.
            Role::Operator,
        ],
        Role::Gateway | Role::Worker => vec![Role::Orchestrator],
        Role::Publisher | Role::Operator => Vec::new(),
    }
}
