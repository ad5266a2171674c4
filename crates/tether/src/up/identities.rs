//! Keys, grants and the tenant of a mesh on one machine: made once, grants renewed at each start.

use super::layout::Layout;
use crate::authority::mesh_dir::{self, Issuer, OPERATOR_KEY, Order};
use crate::authority::{grant_file, key_file, now_ms};
use crate::commands::tenant;
use crate::config::Identity;
use crate::files;
use anyhow::Context;
use std::path::{Path, PathBuf};
use tether_wire::grant::Tier;
use tether_wire::{NodeKey, Region, Role, TenantId};

/// How long a grant holds. Renewed at each start, so this bounds one run, not the mesh.
const GRANT_LIFE_MS: u64 = 365 * 24 * 3_600_000;
/// Name of a node's key file.
const KEY_FILE: &str = "node.key";
/// Name of a node's grant file.
const GRANT_FILE: &str = "node.grant";

/// Who issues grants in this data folder.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer,
    region: Region,
}

/// A node of the mesh with its files.
#[derive(Debug)]
pub(crate) struct NodeFiles {
    pub(crate) identity: Identity,
    pub(crate) key_file: PathBuf,
    pub(crate) grant_file: PathBuf,
}

impl Authority {
    /// The mesh of the data folder, made at the first start.
    pub(crate) fn open(layout: &Layout, region: Region) -> anyhow::Result<Self> {
        let operator_key = layout.mesh().join(OPERATOR_KEY);
        if !operator_key.exists() {
            mesh_dir::create(&layout.mesh())?;
        }
        Ok(Self {
            issuer: Issuer::operator(&operator_key)?,
            region,
        })
    }

    /// The mesh id.
    pub(crate) fn mesh(&self) -> tether_wire::MeshId {
        self.issuer.mesh()
    }

    /// A node's key, and a fresh grant for its role.
    pub(crate) fn node(&self, dir: &Path, role: Role) -> anyhow::Result<NodeFiles> {
        files::private_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let key_path = dir.join(KEY_FILE);
        let grant_path = dir.join(GRANT_FILE);
        let key = key_file::read_or_create(&key_path)?;
        let order = Order {
            subject: key.id(),
            role,
            region: Some(self.region.clone()),
            // The machine's own: whoever runs `up` runs the workers.
            tier: Tier::Trusted,
            life_ms: GRANT_LIFE_MS,
        };
        let (sealed, grant) = self.issuer.issue(&order, now_ms())?;
        grant_file::write(&grant_path, &sealed, &grant)?;
        Ok(NodeFiles {
            identity: Identity {
                key,
                grant: Some(sealed.as_bytes().to_vec()),
            },
            key_file: key_path,
            grant_file: grant_path,
        })
    }
}

/// The key that signs what `up` packs.
pub(crate) fn publisher(layout: &Layout) -> anyhow::Result<NodeKey> {
    Ok(key_file::read_or_create(&layout.publisher_key())?)
}

/// The API key of the tenant `local`: made at the first start, the same ever after.
pub(crate) fn api_key(layout: &Layout) -> anyhow::Result<String> {
    let path = layout.api_key();
    let key = match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().to_owned(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = tenant::new_api_key();
            files::create_private(&path, format!("{key}\n").as_bytes())
                .with_context(|| format!("cannot write {}", path.display()))?;
            key
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let id = TenantId::new("local").context("the tenant's id")?;
    tenant::add(&layout.tenants(), &id, &key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_finds_the_same_mesh_nodes_and_api_key() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let layout = Layout::create(dir.path()).expect("made");
        let start = || {
            let region = Region::new("local").expect("valid");
            let authority = Authority::open(&layout, region).expect("opened");
            let node = authority
                .node(&layout.gateway(), Role::Gateway)
                .expect("made");
            let key = api_key(&layout).expect("made");
            let publisher = publisher(&layout).expect("made").id();
            (authority.mesh(), node, key, publisher)
        };
        let (first, second) = (start(), start());
        assert_eq!(first.0, second.0);
        assert_eq!(first.1.identity.key.id(), second.1.identity.key.id());
        assert_ne!(first.1.identity.grant, second.1.identity.grant, "renewed");
        assert_eq!((first.2, first.3), (second.2, second.3));
        let tenants = std::fs::read_to_string(layout.tenants()).expect("read");
        assert_eq!(tenants.matches("[[tenant]]").count(), 1, "{tenants}");
    }
}
