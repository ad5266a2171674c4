//! `[node]`: who a node is and where it stands.

use super::ConfigError;
use crate::authority::{AuthorityError, grant_file, key_file, now_ms};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tether_net::{
    LinkLimits, MAX_CONFIGURED, MAX_RELAYS, NodeConfig, UplinkConfig, check_relay_url,
};
use tether_telemetry::metrics::NetMetrics;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{MeshId, NodeId, NodeKey, Region, Role};

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
    /// Who may come: `private` (with a grant) or `open` (workers also without one). The same on
    /// all nodes of a mesh.
    #[serde(default)]
    pub(crate) access: Access,
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

fn any() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

fn data_dir() -> PathBuf {
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
        absolute(file, &mut self.key);
        absolute(file, &mut self.data_dir);
        if let Some(grant) = &mut self.grant {
            absolute(file, grant);
        }
        let refuse = |key: &str, why: String| ConfigError::Invalid {
            file: file.to_owned(),
            key: format!("node.{key}"),
            why,
        };
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
        require_ipv4(&[self.dht_listen]).map_err(|why| refuse("dht_listen", why))?;
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
                        "is missing: ask the operator for `tether grant issue --subject {} --role {role}`",
                        key.id()
                    ),
                ));
            }
            Some(path) => {
                let sealed = grant_file::read(path).map_err(named("grant"))?;
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
        sealed: &tether_wire::Signed<tether_wire::Grant>,
        key: &NodeKey,
        role: Role,
    ) -> Result<(), String> {
        let grant = sealed
            .verify_grant(&self.mesh, now_ms())
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

    /// What the node is started with.
    pub(crate) fn node_config(
        &self,
        identity: &Identity,
        role: Role,
        metrics: Arc<NetMetrics>,
    ) -> NodeConfig {
        NodeConfig {
            key: identity.key.clone(),
            mesh: Mesh {
                id: self.mesh,
                access: self.access,
            },
            role,
            region: self.region.clone(),
            grant: identity.grant.clone(),
            accept: accepts(role),
            listen: self.listen,
            advertise: self.advertise.clone(),
            dht_listen: self.dht_listen,
            bootstrap: self.bootstrap.clone(),
            relays: self.relays.clone(),
            uplinks: UplinkConfig {
                orchestrators: self.orchestrators.clone(),
                // The gateway of `up` keeps nothing.
                memory: Some(self.data_dir.clone()).filter(|dir| !dir.as_os_str().is_empty()),
            },
            limits: LinkLimits::default(),
            metrics,
        }
    }
}

/// Whom a role links with. Gateways and workers never speak with each other.
fn accepts(role: Role) -> Vec<Role> {
    match role {
        Role::Orchestrator => vec![Role::Gateway, Role::Orchestrator, Role::Worker],
        Role::Gateway | Role::Worker => vec![Role::Orchestrator],
        Role::Publisher | Role::Operator => Vec::new(),
    }
}
