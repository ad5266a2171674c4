//! The mesh that the targets play in: its keys are those of the golden vectors, whose seeds so mean
//! something here.

use tether_wire::grant::{Access, Mesh};
use tether_wire::{Membership, MeshId, NodeKey};

/// The time of the golden vectors: 15 January 2027, 08:00 UTC.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// The operator of the mesh.
pub(crate) fn operator() -> NodeKey {
    NodeKey::from_seed([1; 32])
}

/// Another member.
pub(crate) fn member() -> NodeKey {
    NodeKey::from_seed([2; 32])
}

pub(crate) fn mesh(access: Access) -> Mesh {
    Mesh {
        id: MeshId(operator().id().0),
        recovery: Some(NodeKey::from_seed([6; 32]).id()),
        access,
    }
}

/// The mesh, with nobody revoked.
pub(crate) fn members(access: Access) -> Membership {
    Membership::new(mesh(access))
}
