//! Who signs what a command issues.

use crate::authority::issuer::Issuer;
use crate::authority::mesh_dir;
use clap::Args;
use std::path::{Path, PathBuf};
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
        open(
            &self.operator,
            self.mesh,
            self.operator_grant.as_deref(),
            now_ms,
        )
    }
}

/// The same, where a key may not be needed.
#[derive(Debug, Args)]
pub(crate) struct OptionalSignerArgs {
    /// Key file of any operator, or the mesh folder that holds it
    #[arg(long, value_name = "KEY")]
    operator: Option<PathBuf>,
    /// The mesh id, to make sure that the key is the one of this mesh
    #[arg(long, value_name = "ID", requires = "operator")]
    mesh: Option<MeshId>,
    /// The operator's own grant, where it is the operator of a region and not of the mesh
    #[arg(long, value_name = "FILE", requires = "operator")]
    operator_grant: Option<PathBuf>,
}

impl OptionalSignerArgs {
    /// Reads the key, where one is given, and checks that it may sign.
    pub(crate) fn open(&self, now_ms: u64) -> anyhow::Result<Option<Issuer>> {
        let grant = self.operator_grant.as_deref();
        (self.operator.as_deref())
            .map(|operator| open(operator, self.mesh, grant, now_ms))
            .transpose()
    }

    /// Whether a key is given.
    pub(crate) fn is_given(&self) -> bool {
        self.operator.is_some()
    }
}

fn open(
    operator: &Path,
    mesh: Option<MeshId>,
    grant: Option<&Path>,
    now_ms: u64,
) -> anyhow::Result<Issuer> {
    let key = mesh_dir::key_of(operator);
    Ok(match grant {
        None => Issuer::operator(&key, mesh)?,
        Some(grant) => Issuer::regional(&key, grant, mesh, now_ms)?,
    })
}
