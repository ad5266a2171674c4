//! `tether worker --join`: a worker gets its grant by an invite. (PRE-6) [T-INV-3]
//!
//! The key is made and kept before anything is asked for, and the grant is the last thing that is
//! written: whenever this is cut off, the next attempt asks with the same key, which takes no second
//! use. The secret of the token is told over a link to a peer whose grant makes it an orchestrator,
//! and to nobody else; who merely announces itself on the topic gets the sealed invite, and its words
//! count for nothing.
//!
//! * `prepare` – the folder and the token, before anybody is asked
//! * `search` – whom to ask, for how long, and what their answers come to
//! * `ask` – what one peer says, and whether it has proved to be an orchestrator

mod ask;
mod prepare;
mod search;

pub(crate) use prepare::fresh_node;
pub(super) use prepare::{Options, Prepared, prepare};

use super::home::Home;
use crate::authority::grant_file;
use crate::config::{self, Checked, Identity, WorkerFile};
use crate::exit::{NotReady, Usage};
use anyhow::Context;
use ask::Asking;
use search::{Failure, Times, search};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tether_net::{BoxFuture, Incoming, Members, Node, Service};
use tether_telemetry::TelemetryConfig;
use tether_telemetry::metrics::{NetMetrics, Registry};
use tether_wire::grant::GrantError;
use tether_wire::invite::{MAX_TOKEN_BYTES, Token};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{NodeId, NodeKey, Role};
use tracing::info;

/// How long a mesh is looked for that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pauses between two attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// What the exit codes of joining are, for `--help`.
pub(super) const HELP: &str = "\
Exit codes of joining:
   4  no orchestrator of the mesh was found within 30 s, or none that proved to be one: try again
  10  the token is malformed
  11  the invite is over, or has not begun
  12  the invite is spent: it has let in all whom it was for
  13  the invite, or this worker's key, was revoked
  14  the token is for another mesh than the one that this folder belongs to";

/// Why a worker did not join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("the token cannot be used: {0}: was it copied whole?")]
    Malformed(String),
    #[error("the invite is not to be used now: {0}")]
    Expired(String),
    #[error("{0}")]
    Spent(String),
    #[error("{0}")]
    Revoked(String),
    #[error("{0}: give another --data-dir")]
    OtherMesh(String),
    #[error("the mesh does not let this worker in: {0}")]
    Refused(String),
}

impl JoinError {
    /// See [`HELP`].
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Malformed(_) => 10,
            Self::Expired(_) => 11,
            Self::Spent(_) => 12,
            Self::Revoked(_) => 13,
            Self::OtherMesh(_) => 14,
            Self::Refused(_) => 1,
        }
    }
}

impl From<GrantError> for JoinError {
    fn from(error: GrantError) -> Self {
        let words = error.to_string();
        match error {
            GrantError::Expired { .. } => Self::Expired(words.replacen("grant", "invite", 1)),
            GrantError::NotYet { .. } => Self::Expired(words.replacen("grant", "invite", 1)),
            GrantError::Spent { .. } => Self::Spent(words),
            GrantError::Revoked(_) => Self::Revoked(words),
            GrantError::Invalid(_) | GrantError::Issuer { .. } => Self::Malformed(words),
        }
    }
}

/// The token of the command line, the environment or a file.
pub(crate) fn token(text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<Token>> {
    let read;
    let text = match (text.filter(|text| !text.is_empty()), file) {
        (Some(_), Some(_)) => {
            return Err(Usage("give the token once: --join, --join-file or TETHER_JOIN").into());
        }
        (None, None) => return Ok(None),
        (Some(text), None) => text,
        (None, Some(file)) => {
            read = read_token(file)?;
            read.as_str()
        }
    };
    let token =
        Token::from_text(text.trim()).map_err(|error| JoinError::Malformed(error.to_string()))?;
    if token.bootstrap.is_empty() {
        return Err(JoinError::Malformed("it names no bootstrap node".to_owned()).into());
    }
    Ok(Some(token))
}

fn read_token(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    // With what an editor or a pipe may add; a longer one is refused as a token that is too long.
    let limit = MAX_TOKEN_BYTES as u64 + 16;
    let read = if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text)
    } else {
        File::open(file).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    read.with_context(|| format!("cannot read the token in {}", file.display()))?;
    Ok(text)
}

/// A worker that is about to join.
pub(super) struct Joining {
    home: Home,
    file: WorkerFile,
    key: NodeKey,
    token: Token,
    members: Members,
    /// Keeps others out of the folder.
    _lock: File,
}

impl Joining {
    pub(super) fn id(&self) -> NodeId {
        self.key.id()
    }

    pub(super) fn telemetry(&self) -> &TelemetryConfig {
        &self.file.telemetry
    }

    /// Gets the grant and keeps it; what the worker then starts with.
    pub(super) async fn join(self) -> anyhow::Result<Checked<WorkerFile>> {
        let node = &self.file.node;
        info!(mesh = %node.mesh, region = %node.region, worker = %self.id(), "joining a mesh by an invite");
        let (sealed, grant) = {
            let node = self.start().await?;
            let times = Times {
                patience: PATIENCE,
                first_pause: FIRST_PAUSE,
                longest_pause: LONGEST_PAUSE,
            };
            let joined = search(&Asking::new(&self, &node), &times).await;
            // Also where it failed, so that no link or announcement is left.
            node.shutdown().await;
            joined.map_err(|failure| self.failed(failure))?
        };
        let path = node.grant.clone().unwrap_or_else(|| self.home.grant());
        grant_file::write(&path, &sealed, &grant)?;
        info!(serial = grant.serial, grant = %path.display(), "this worker belongs to the mesh now");
        Ok(config::worker(&self.home.config())?)
    }

    async fn start(&self) -> anyhow::Result<Node> {
        let section = &self.file.node;
        section.open_data_dir()?;
        let identity = Identity {
            key: self.key.clone(),
            grant: None,
        };
        let metrics = NetMetrics::register(&Registry::new());
        let mut config =
            section.node_config(&identity, Role::Worker, self.members.clone(), metrics);
        config.invite = Some(self.token.invite.clone());
        Ok(Box::pin(Node::start(config, Arc::new(Deaf))).await?)
    }

    /// Why it did not join, for a person.
    fn failed(&self, failure: Failure) -> anyhow::Error {
        let node = &self.file.node;
        let (region, secs) = (&node.region, PATIENCE.as_secs());
        let words = match failure {
            Failure::Refused(refusal) => return refusal.into(),
            Failure::Nobody { found: 0, .. } => format!(
                "no orchestrator of region {region} was found within {secs} s over {:?}: is the mesh up, and is one of these bootstrap nodes reachable from here over UDP?",
                node.bootstrap
            ),
            Failure::Nobody { found, why } => format!(
                "none of the {found} nodes that announce themselves as orchestrators of region {region} let this worker in within {secs} s: {why}."
            ),
        };
        let again = "Start this again the same way, it goes on where it was";
        NotReady(format!("{words} {again}")).into()
    }
}

/// Serves nothing: a worker that joins has nothing to give yet.
struct Deaf;

impl Service for Deaf {
    fn serve(&self, _: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let why = "this worker has yet to join";
        Box::pin(std::future::ready(Err(RpcError::new(
            Code::Unavailable,
            why,
        ))))
    }
}
