//! The folder in which a worker joins, made ready: nothing is asked of anybody yet.

use super::super::home::{Fresh, FreshModel, FreshNode, FreshWorker, Home};
use super::{JoinError, Joining};
use crate::authority::{grant_file, key_file, now_ms};
use crate::config;
use anyhow::Context;
use std::path::{Path, PathBuf};
use tether_net::Members;
use tether_wire::grant::{Access, GrantError};
use tether_wire::invite::Token;
use tether_wire::{Invite, MeshId, NodeId, NodeKey, Signed};

/// What a folder and a token come to.
pub(in crate::roles::worker) enum Prepared {
    /// It has joined before: its configuration.
    Joined(PathBuf),
    /// It has yet to.
    Joining(Box<Joining>),
}

/// What the command line says of joining.
pub(in crate::roles::worker) struct Options<'a> {
    /// For a new configuration.
    pub(in crate::roles::worker) models: &'a [PathBuf],
    pub(in crate::roles::worker) publishers: &'a [NodeId],
    /// Whether a grant that is there counts for nothing.
    pub(in crate::roles::worker) rejoin: bool,
}

/// Makes the key and the configuration, and looks whether the folder has a grant already. Nothing
/// is asked of anybody yet.
pub(in crate::roles::worker) fn prepare(
    home: Home,
    token: Token,
    options: &Options<'_>,
) -> anyhow::Result<Prepared> {
    let mesh = token.mesh();
    let sealed = Signed::<Invite>::from_bytes(token.invite.as_slice());
    // Before anything is written for a token that can be nobody's.
    let (invite, _) = sealed.verify_invite(&mesh).map_err(JoinError::from)?;
    let lock = home.open()?;
    if home.config().exists() {
        if !(options.models.is_empty() && options.publishers.is_empty()) {
            anyhow::bail!(
                "{} is there already: write models and publishers into it",
                home.config().display()
            );
        }
    } else {
        home.write_config(&fresh(&token, &invite, options)?)?;
    }
    let file = config::joining_worker(&home.config())?;
    let (own, ours) = (file.node.mesh, home.config());
    if own != mesh.id || file.node.recovery != mesh.recovery {
        return Err(JoinError::OtherMesh(format!(
            "the token is for mesh {}, and {} is of mesh {own}{}",
            mesh.id,
            ours.display(),
            if own == mesh.id {
                " with another recovery key"
            } else {
                ""
            }
        ))
        .into());
    }
    if file.node.region != invite.region {
        anyhow::bail!(
            "the token lets in workers of region {}, and {} says {}: give another --data-dir",
            invite.region,
            ours.display(),
            file.node.region
        );
    }
    let key = key_file::read_or_create(&file.node.key)?;
    let members = Members::open(file.node.mesh(), &file.node.data_dir)
        .context("cannot read who was revoked")?;
    (members.current().check_key(&key.id())).map_err(|refusal| {
        JoinError::Revoked(format!(
            "{}: this folder cannot join any more; give another --data-dir",
            refusal.message
        ))
    })?;
    let grant = file.node.grant.clone().unwrap_or_else(|| home.grant());
    if !options.rejoin && has_joined(&grant, &key, &members, mesh.id)? {
        tell_joined(&grant);
        return Ok(Prepared::Joined(ours));
    }
    // What this node knows itself needs no network.
    (members.current())
        .verify_invite(&sealed, &key.id(), now_ms())
        .map_err(JoinError::from)?;
    Ok(Prepared::Joining(Box::new(Joining {
        home,
        file,
        key,
        token,
        members,
        _lock: lock,
    })))
}

fn tell_joined(grant: &Path) {
    crate::stderr::line(format_args!(
        "note: this worker has joined before ({}): the token is not used (where its grant was revoked: --rejoin)",
        grant.display()
    ));
}

/// What a token says of the mesh.
fn node_of(token: &Token, invite: &Invite) -> FreshNode {
    let region = invite.region.clone();
    FreshNode {
        // Which keys a node lists is its own affair.
        access: match token.access {
            Access::Open => Access::Open,
            Access::Invite | Access::AllowList => Access::Invite,
        },
        ..FreshNode::new(token.mesh, token.recovery, region, token.bootstrap.clone())
    }
}

/// The same for a configuration that is made before anybody is asked.
pub(crate) fn fresh_node(token: &Token) -> anyhow::Result<FreshNode> {
    let sealed = Signed::<Invite>::from_bytes(token.invite.as_slice());
    let (invite, _) = sealed
        .verify_invite(&token.mesh())
        .map_err(JoinError::from)?;
    Ok(node_of(token, &invite))
}

fn fresh(token: &Token, invite: &Invite, options: &Options<'_>) -> anyhow::Result<Fresh> {
    let models = options.models.iter().map(|dir| {
        // The configuration is elsewhere, and its paths are relative to it.
        let path = std::path::absolute(dir)
            .with_context(|| format!("cannot use --model {}", dir.display()))?;
        Ok(FreshModel { path })
    });
    Ok(Fresh {
        node: node_of(token, invite),
        worker: FreshWorker {
            trusted_publishers: options.publishers.to_vec(),
            models: models.collect::<anyhow::Result<_>>()?,
            ..FreshWorker::default()
        },
    })
}

/// Whether there is a grant that holds. One that is over or was revoked is as good as none: the token
/// may be a new one.
fn has_joined(
    grant: &Path,
    key: &NodeKey,
    members: &Members,
    mesh: MeshId,
) -> anyhow::Result<bool> {
    if !grant.exists() {
        return Ok(false);
    }
    let sealed = grant_file::read_of(grant, &key.id())?;
    let shown = grant.display();
    match members.current().verify_grant(&sealed, now_ms()) {
        Ok(found) if found.subject == key.id() => Ok(true),
        Ok(found) => anyhow::bail!(
            "{shown} is the grant of {}, and this folder's key is {}",
            found.subject,
            key.id()
        ),
        Err(GrantError::Expired { .. } | GrantError::Revoked(_) | GrantError::Spent { .. }) => {
            Ok(false)
        }
        Err(error @ GrantError::NotYet { .. }) => anyhow::bail!("{shown}: {error}"),
        Err(error) => Err(JoinError::OtherMesh(format!(
            "{shown} does not hold in mesh {mesh}, for which the token is ({error})"
        ))
        .into()),
    }
}
