//! `tether mesh`: a mesh is its operator's key. (NET-8)

use crate::authority::mesh_dir::{self, RECOVERY_KEY};
use crate::{stderr, stdout};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum MeshCommand {
    /// Make a mesh: a folder with the operator's keys, and the mesh id, which is printed
    ///
    /// The folder is the operator's. Keep it off the machines of the mesh: nodes need only their
    /// own key, their grant, the mesh id and the recovery key's public id, which is beside it in
    /// mesh.id.
    ///
    /// The recovery key may do what the operator's key may, and is the only one that can revoke it:
    /// it is what is left when the first one is lost or stolen. Move it away from here, offline.
    #[command(after_long_help = "\
Examples:
  tether mesh new my-mesh
  tether mesh new my-mesh --no-recovery
  tether mesh new my-mesh --json")]
    New {
        /// The folder to make
        dir: PathBuf,
        /// Make no recovery key: a stolen operator's key is then the end of the mesh
        #[arg(long)]
        no_recovery: bool,
        /// A JSON object with the mesh id and the recovery key's public id
        #[arg(long)]
        json: bool,
    },
}

impl MeshCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self::New {
            dir,
            no_recovery,
            json,
        } = self;
        let keys = mesh_dir::create(&dir, !no_recovery)?;
        if let Some(recovery) = keys.recovery {
            let path = dir.join(RECOVERY_KEY);
            let path = path.display();
            stderr::line(format_args!(
                "note: {path} is the mesh's recovery key, with the public id {recovery}.\n\
                 note: write that id as `recovery` beside `mesh` into each node's configuration, and move the\n\
                 note: file away now, offline and apart from operator.key: it revokes that one if it is stolen."
            ));
        }
        if json {
            return Ok(stdout::line(
                json!({"mesh": keys.id, "recovery": keys.recovery}),
            )?);
        }
        Ok(stdout::line(keys.id)?)
    }
}
