//! `tether keys`: a node is an Ed25519 key. (NET-1)

use crate::authority::{AuthorityError, grant_file, key_file, now_ms, rotation};
use crate::config;
use crate::exit::Usage;
use crate::roles::worker::home::Home;
use crate::{stderr, stdout};
use anyhow::Context;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use tether_net::Members;
use tether_wire::grant::{Access, Mesh};
use tether_wire::{Membership, MeshId};

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
    /// Replace a node's key by a new one, which takes over its grant; prints the new public id
    ///
    /// The old key signs that the new one has its grant, and the new one that it takes it; nobody
    /// else is needed. The node may run meanwhile, under the old key: restart it then. From when the
    /// mesh sees the new key, the old one is refused for good. It is kept nowhere. At most four
    /// times; then the operator must issue a new grant. In an open mesh a node without a grant just
    /// gets another key.
    ///
    /// A crash at any point leaves a node that can be started, with the old key or with the new one.
    #[command(after_long_help = "\
Examples:
  tether keys rotate --data-dir ./tether-worker      a worker that joined by an invite
  tether keys rotate --config orchestrator.toml")]
    Rotate {
        /// Folder with node.key and node.grant
        #[arg(
            long,
            value_name = "DIR",
            required_unless_present = "config",
            conflicts_with = "config"
        )]
        data_dir: Option<PathBuf>,
        /// Configuration of the node, which names its key and grant
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The mesh, where neither a configuration nor the grant tells
        #[arg(long, value_name = "ID", conflicts_with = "config")]
        mesh: Option<MeshId>,
    },
}

impl KeysCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let key = match self {
            Self::New { path } => key_file::create(&path)?,
            Self::Show { path } => key_file::read(&path)?,
            Self::Rotate {
                data_dir,
                config,
                mesh,
            } => return rotate(data_dir.as_deref(), config.as_deref(), mesh),
        };
        Ok(stdout::line(key.id())?)
    }
}

/// A node's files, and who belongs to its mesh as far as it knows.
struct Node {
    key: PathBuf,
    grant: Option<PathBuf>,
    members: Membership,
}

fn rotate(
    data_dir: Option<&Path>,
    config: Option<&Path>,
    mesh: Option<MeshId>,
) -> anyhow::Result<()> {
    let node = match (config, data_dir) {
        (Some(config), _) => configured(config)?,
        (None, Some(dir)) => {
            let home = Home::new(dir.to_owned());
            if home.config().exists() {
                configured(&home.config())?
            } else {
                bare(&home, mesh)?
            }
        }
        (None, None) => return Err(Usage("give --data-dir or --config").into()),
    };
    let is_open = node.members.mesh().access == Access::Open;
    if node.grant.is_none() && !is_open {
        return Err(AuthorityError::Rotate(format!(
            "there is no grant that the new key could take over: for a node without one, make a key with `tether keys new` in the place of {}",
            node.key.display()
        ))
        .into());
    }
    let rotated = rotation::rotate(&node.key, node.grant.as_deref(), &node.members, now_ms())?;
    stderr::line(format_args!(
        "note: {} is replaced and kept nowhere. Restart the node: it goes on under the old key until\n\
         note: then, which is refused from when the new one is seen. Where configurations or allow-lists\n\
         note: name the old key, write the new one there.",
        rotated.old
    ));
    if let Some(left) = rotated.left {
        stderr::line(match left {
            0 => "note: this was the last time: before the next, ask the operator for a new grant"
                .to_owned(),
            left => format!("note: this grant can be passed on {left} more times"),
        });
    }
    Ok(stdout::line(rotated.new)?)
}

fn configured(file: &Path) -> anyhow::Result<Node> {
    let node = config::node_of(file)?;
    // What this node was told: a key that was revoked gets no heir.
    let members = Members::open(node.mesh(), &node.data_dir)
        .with_context(|| format!("cannot use node.data_dir {}", node.data_dir.display()))?;
    Ok(Node {
        members: (*members.current()).clone(),
        key: node.key,
        grant: node.grant,
    })
}

fn bare(home: &Home, mesh: Option<MeshId>) -> anyhow::Result<Node> {
    let grant = home.grant();
    let id = match mesh {
        Some(id) => id,
        None => {
            grant_file::inspect(&grant_file::read(&grant)?)
                .with_context(|| {
                    format!(
                        "the mesh of {} cannot be told from it: give --config or --mesh",
                        grant.display()
                    )
                })?
                .0
        }
    };
    Ok(Node {
        key: home.key(),
        grant: Some(grant),
        members: Membership::new(Mesh {
            id,
            recovery: None,
            access: Access::default(),
        }),
    })
}
