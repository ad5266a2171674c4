//! `tether mesh`: a mesh is its operator's key. (NET-8)

use crate::authority::mesh_dir;
use crate::stdout;
use clap::Subcommand;
use std::path::PathBuf;

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum MeshCommand {
    /// Make a mesh: a folder with the operator's key, and the mesh id, which is printed
    ///
    /// The folder is the operator's. Keep it off the machines of the mesh: nodes need only their
    /// own key, their grant and the mesh id.
    #[command(after_long_help = "Examples:\n  tether mesh new my-mesh")]
    New {
        /// The folder to make
        dir: PathBuf,
    },
}

impl MeshCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let Self::New { dir } = self;
        Ok(stdout::line(mesh_dir::create(&dir)?)?)
    }
}
