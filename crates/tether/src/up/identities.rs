//! Keys, grants and the tenant of a mesh on one machine: made once, grants renewed in time.

use super::layout::Layout;
use crate::authority::issuer::{Issuer, Order};
use crate::authority::mesh_dir::{self, OPERATOR_KEY};
use crate::authority::mesh_id::MESH_ID;
use crate::authority::register::REGISTER;
use crate::authority::{grant_file, key_file, now_ms};
use crate::commands::tenant;
use crate::config::Identity;
use crate::files;
use anyhow::Context;
use std::path::{Path, PathBuf};
use tether_wire::grant::Tier;
use tether_wire::{Grant, Membership, NodeKey, Region, Role, Signed, TenantId};

/// How long a grant holds. Renewed by a start in its last third, so that every run has at least
/// four months, and the register does not grow by each start.
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
        let mesh = layout.mesh();
        let operator_key = mesh.join(OPERATOR_KEY);
        let mut traces = vec![mesh.join(MESH_ID), mesh.join(REGISTER)];
        traces.extend(layout.node_dirs()?.iter().map(|dir| dir.join(GRANT_FILE)));
        mesh_dir::require_no_lost_key(&operator_key, &traces)?;
        mesh_dir::open_or_create(&mesh)?;
        Ok(Self {
            issuer: Issuer::operator(&operator_key, None)?,
            region,
        })
    }

    /// The mesh.
    pub(crate) fn mesh(&self) -> tether_wire::grant::Mesh {
        self.issuer.mesh()
    }

    /// A node's key, and a grant for its role that holds for long.
    pub(crate) fn node(&self, dir: &Path, role: Role) -> anyhow::Result<NodeFiles> {
        self.node_at(dir, role, now_ms())
    }

    fn node_at(&self, dir: &Path, role: Role, now_ms: u64) -> anyhow::Result<NodeFiles> {
        files::private_dir(dir).with_context(|| format!("cannot use {}", dir.display()))?;
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
        let sealed = match self.held(&grant_path, &order, now_ms) {
            Some(sealed) => sealed,
            None => {
                let (sealed, grant) = self.issuer.issue(&order, now_ms)?;
                grant_file::write(&grant_path, &sealed, &grant)?;
                sealed
            }
        };
        Ok(NodeFiles {
            identity: Identity {
                key,
                grant: Some(sealed.as_bytes().to_vec()),
            },
            key_file: key_path,
            grant_file: grant_path,
        })
    }

    /// The grant that is there, if it is what would be issued now and more than a third of its life
    /// is left. One that cannot be read is as good as none: this is its issuer.
    fn held(&self, path: &Path, order: &Order, now_ms: u64) -> Option<Signed<Grant>> {
        let sealed = grant_file::read_of(path, &order.subject).ok()?;
        let grant = Membership::new(self.mesh())
            .verify_grant(&sealed, now_ms)
            .ok()?;
        let life_ms = grant.expires_ms.saturating_sub(grant.not_before_ms);
        let left_ms = grant.expires_ms.saturating_sub(now_ms);
        let same = grant.subject == order.subject
            && grant.role == order.role
            && grant.region == order.region
            && grant.tier == order.tier;
        (same && left_ms > life_ms / 3).then_some(sealed)
    }
}

/// The key that signs what `up` packs.
pub(crate) fn publisher(layout: &Layout) -> anyhow::Result<NodeKey> {
    Ok(key_file::read_or_create(&layout.publisher_key())?)
}

/// The API key of the tenant `local`: made at the first start, the same ever after.
pub(crate) fn api_key(layout: &Layout) -> anyhow::Result<String> {
    let key = key_file::api_key(&layout.api_key())?;
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
        assert_eq!(first.1.identity.grant, second.1.identity.grant);
        assert_eq!((first.2, first.3), (second.2, second.3));
        let tenants = std::fs::read_to_string(layout.tenants()).expect("read");
        assert_eq!(tenants.matches("[[tenant]]").count(), 1, "{tenants}");
    }

    fn authority(layout: &Layout, region: &str) -> anyhow::Result<Authority> {
        Authority::open(layout, Region::new(region).expect("valid"))
    }

    #[test]
    fn starts_do_not_grow_the_register_until_a_grant_nears_its_end() {
        const NOW: u64 = 1_800_000_000_000;
        let dir = tempfile::tempdir().expect("temporary folder");
        let layout = Layout::create(dir.path()).expect("made");
        let grant_at = |now_ms: u64, region: &str| {
            let node = authority(&layout, region)
                .expect("opened")
                .node_at(&layout.worker(1), Role::Worker, now_ms)
                .expect("made");
            let sealed = Signed::<Grant>::from_bytes(node.identity.grant.expect("a grant"));
            let mesh = authority(&layout, region).expect("opened").mesh();
            let members = Membership::new(mesh);
            members.verify_grant(&sealed, now_ms).expect("holds").serial
        };
        let first = grant_at(NOW, "local");
        let two_thirds = NOW + GRANT_LIFE_MS / 3 * 2;
        assert_eq!(grant_at(two_thirds - 1, "local"), first, "as it is");
        let renewed = grant_at(two_thirds, "local");
        let elsewhere = grant_at(two_thirds, "eu");
        let file = layout.worker(1).join(GRANT_FILE);
        std::fs::write(&file, "half of a gra").expect("written");
        let mended = grant_at(two_thirds, "eu");
        let register = crate::authority::register::entries(&layout.mesh()).expect("read");
        let serials: Vec<u64> = register.iter().map(|entry| entry.serial).collect();
        assert_eq!(serials, [first, renewed, elsewhere, mended]);
    }

    #[test]
    fn a_data_folder_without_its_operators_key_is_not_silently_another_mesh() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let layout = Layout::create(dir.path()).expect("made");
        let first = authority(&layout, "local").expect("made");
        first
            .node(&layout.worker(7), Role::Worker)
            .expect("granted");
        let key = layout.mesh().join(OPERATOR_KEY);
        let safe = dir.path().join("safe");
        std::fs::rename(&key, &safe).expect("moved away");
        // Each of what is left tells, the last of them a node's grant.
        for trace in [MESH_ID, REGISTER, GRANT_FILE] {
            let error = authority(&layout, "local").expect_err(trace).to_string();
            assert!(
                error.contains(trace) && error.contains("Restore"),
                "{error}"
            );
            assert!(!key.exists());
            let _ = std::fs::remove_file(layout.mesh().join(trace));
        }
        std::fs::rename(&safe, &key).expect("restored");
        let again = authority(&layout, "local").expect("as before");
        assert_eq!(again.mesh(), first.mesh());
    }
}
