//! Who signs what a command issues.

use crate::authority::issuer::Issuer;
use crate::authority::mesh_dir;
use clap::Args;
use std::path::PathBuf;
use tether_wire::MeshId;

/// The operator's key, and what shows its right.
#[derive(Debug, Args)]
pub(crate) struct SignerArgs {
    /// Key file of the operator, or the mesh folder that holds it
    #[arg(long, value_name = "KEY")]
    operator: PathBuf,
    /// The mesh id, to make sure that the key is the one of this mesh
    #[arg(long, value_name = "ID")]
    mesh: Option<MeshId>,
    /// The operator's own grant, where it is the operator of a region and not of the mesh
    #[arg(long, value_name = "FILE")]
    operator_grant: Option<PathBuf>,
}

impl SignerArgs {
    /// Reads the key and checks that it may sign.
    pub(crate) fn open(&self, now_ms: u64) -> anyhow::Result<Issuer> {
        let key = mesh_dir::key_of(&self.operator);
        Ok(match &self.operator_grant {
            None => Issuer::operator(&key, self.mesh)?,
            Some(grant) => Issuer::regional(&key, grant, self.mesh, now_ms)?,
        })
    }
}
