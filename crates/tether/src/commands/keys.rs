//! `tether keys`: a node is an Ed25519 key. (NET-1)

use crate::authority::key_file;
use crate::stdout;
use clap::Subcommand;
use std::path::PathBuf;

/// See [`crate::cli`].
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key file, readable by its owner only; prints the node's public id
    ///
    /// An existing file is never overwritten. The secret is never printed.
    #[command(after_long_help = "Examples:\n  tether keys new node.key")]
    New {
        /// The file to make
        path: PathBuf,
    },
    /// Print the public id of a key file
    #[command(after_long_help = "Examples:\n  tether keys show node.key")]
    Show {
        /// The key file
        path: PathBuf,
    },
}

impl KeysCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let key = match self {
            Self::New { path } => key_file::create(&path)?,
            Self::Show { path } => key_file::read(&path)?,
        };
        Ok(stdout::line(key.id())?)
    }
}
