//! `tether worker --join`: a worker gets its grant by an invite. (PRE-6) [T-INV-3]
//!
//! The key is made and kept before anything is asked for, and the grant is the last thing that is
//! written: whenever this is cut off, the next attempt asks with the same key, which takes no second
//! use. The secret of the token is told over a link to a peer whose grant makes it an orchestrator,
//! and to nobody else; who merely announces itself on the topic gets the sealed invite.

mod prepare;

pub(super) use prepare::{Options, Prepared, prepare};

use super::home::Home;
use crate::authority::{grant_file, now_ms};
use crate::config::{self, Checked, Identity, WorkerFile};
use crate::exit::{NotReady, Usage};
use anyhow::Context;
use futures_util::{StreamExt, stream};
use rand::seq::SliceRandom;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tether_net::{BoxFuture, Incoming, Link, LinkError, Members, Node, Service};
use tether_telemetry::TelemetryConfig;
use tether_telemetry::metrics::{NetMetrics, Registry};
use tether_wire::grant::GrantError;
use tether_wire::invite::{Join, Joined, MAX_TOKEN_BYTES, Token};
use tether_wire::link::{Refusal, RefusalCode};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{Grant, NodeId, NodeKey, Role, Signable, Signed, Topic, Verified, codec};
use tokio::time::Instant;
use tracing::{info, warn};

/// How long a mesh is looked for that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pauses between two attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
/// How long one look-up and one call may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most of those who announce themselves that one attempt dials.
const MAX_DIALLED: usize = 64;
/// How many of them at once.
const AT_ONCE: usize = 4;
/// Attempts in a row in which all who answered refused, after which it is believed: anybody may
/// announce itself on the topic and refuse, so that one who takes us counts more.
const REFUSED_ROUNDS: u32 = 2;
/// Most bytes of an answer: a grant and what is around it.
const MAX_ANSWER_BYTES: usize = Grant::MAX_BYTES + 64;

/// What the exit codes of joining are, for `--help`.
pub(super) const HELP: &str = "\
Exit codes of joining:
   4  no orchestrator of the mesh was found within 30 s: try again
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
pub(super) fn token(text: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<Token>> {
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

/// What one peer said.
enum Said {
    In(Signed<Grant>, Box<Verified<Grant>>),
    Refused(JoinError),
    Nothing(String),
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
            let joined = self.search(&node).await;
            // Also where it failed, so that no link or announcement is left.
            node.shutdown().await;
            joined?
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

    /// Asks around until somebody lets this worker in, all refuse, or nobody was found for long.
    async fn search(&self, node: &Node) -> anyhow::Result<(Signed<Grant>, Box<Verified<Grant>>)> {
        let topic = Topic::Control(self.file.node.region.clone());
        let begin = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut refused_rounds = 0;
        let mut told = BTreeSet::new();
        loop {
            let mut found = match tokio::time::timeout(LOOKUP_TIMEOUT, node.lookup(&topic)).await {
                Ok(Ok(found)) => found,
                Ok(Err(_)) | Err(_) => Vec::new(),
            };
            // Nobody outside chooses who comes first where there are many.
            found.shuffle(&mut rand::rng());
            // Those that the configuration names cannot be crowded out by strangers.
            let named = &self.file.node.orchestrators;
            found.retain(|id| !named.contains(id));
            found.splice(0..0, named.iter().copied());
            found.truncate(MAX_DIALLED);
            let count = found.len();
            let (mut refusal, mut trouble) = (None, None);
            let mut links = stream::iter(found)
                .map(|id| async move { (id, node.link(id, Role::Orchestrator).await) })
                .buffer_unordered(AT_ONCE);
            while let Some((id, link)) = links.next().await {
                let said = match link {
                    Ok(link) => self.ask(&link).await,
                    Err(error) => said_of(error),
                };
                match said {
                    Said::In(sealed, grant) => return Ok((sealed, grant)),
                    Said::Refused(error) => {
                        if told.insert(id) {
                            warn!(peer = %id, "not let in there: {error}");
                        }
                        refusal = Some(more_telling(refusal, error));
                    }
                    Said::Nothing(why) => {
                        if told.insert(id) {
                            warn!(peer = %id, "no answer there: {why}");
                        }
                        trouble = Some(why);
                    }
                }
            }
            refused_rounds = match &refusal {
                Some(_) if trouble.is_none() => refused_rounds + 1,
                _ => 0,
            };
            let is_over = begin.elapsed() >= PATIENCE;
            match (refusal, trouble) {
                (Some(refusal), _) if is_over || refused_rounds >= REFUSED_ROUNDS => {
                    return Err(refusal.into());
                }
                (_, Some(why)) if is_over => return Err(nobody(&self.file, count, &why).into()),
                (None, None) if is_over => {
                    return Err(nobody(&self.file, count, "nobody announces itself").into());
                }
                _ => {}
            }
            if count == 0 && pause == LONGEST_PAUSE {
                info!(
                    "still looking for an orchestrator of region {}",
                    self.file.node.region
                );
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Tells an orchestrator the secret, and takes the grant that it gives.
    async fn ask(&self, link: &Link) -> Said {
        let peer = link.peer();
        // What `Node::link` has made sure of already, said once more where the secret goes out.
        if peer.role != Role::Orchestrator || peer.grant_expires_ms.is_none() {
            return Said::Nothing("it does not prove that it is an orchestrator".to_owned());
        }
        let said = match self.call(link).await {
            Ok(sealed) => self.judge(sealed),
            Err(error) => match error.code {
                Code::Forbidden | Code::Invalid => Said::Refused(JoinError::Refused(error.message)),
                _ => Said::Nothing(error.message),
            },
        };
        if !matches!(said, Said::In(..)) {
            // The next attempt greets anew, and hears what has changed.
            link.close("this worker was not let in");
        }
        said
    }

    async fn call(&self, link: &Link) -> Result<Signed<Grant>, RpcError> {
        let join = Join {
            secret: self.token.secret,
        };
        let asked = codec::encode(&join);
        let mut call = link.call(method::JOIN, Some(CALL_TIMEOUT), &asked).await?;
        call.finish_sending().await;
        let answer = call.next().await?;
        let broken = |why: String| RpcError::new(Code::Internal, why);
        let answer = answer.ok_or_else(|| broken("it answered nothing".to_owned()))?;
        let joined: Joined = codec::decode("answer to join", &answer, MAX_ANSWER_BYTES)
            .map_err(|error| broken(error.to_string()))?;
        // Its end, so that the link is not closed under the call.
        while call.next().await?.is_some() {}
        Ok(Signed::from_bytes(joined.grant))
    }

    /// What every peer will check.
    fn judge(&self, sealed: Signed<Grant>) -> Said {
        let grant = match self.members.current().verify_grant(&sealed, now_ms()) {
            Ok(grant) => grant,
            Err(error) => {
                return Said::Nothing(format!("it gave a grant that does not hold: {error}"));
            }
        };
        let is_right = grant.subject == self.id()
            && grant.role == Role::Worker
            && grant.region.as_ref() == Some(&self.file.node.region);
        if !is_right {
            return Said::Nothing("it gave a grant for something else".to_owned());
        }
        Said::In(sealed, Box::new(grant))
    }
}

/// What a dial that failed says. Who refuses has proved nothing; who is refused here is no
/// orchestrator.
fn said_of(error: LinkError) -> Said {
    let LinkError::Refused(Refusal { code, message }) = error else {
        return Said::Nothing(error.to_string());
    };
    Said::Refused(match code {
        RefusalCode::Expired => JoinError::Expired(message),
        RefusalCode::Spent => JoinError::Spent(message),
        RefusalCode::Revoked => JoinError::Revoked(message),
        RefusalCode::Busy => return Said::Nothing(message),
        _ => JoinError::Refused(message),
    })
}

/// Of two refusals the one that says more.
fn more_telling(one: Option<JoinError>, other: JoinError) -> JoinError {
    match (one, other) {
        (Some(one), JoinError::Refused(_)) => one,
        (_, other) => other,
    }
}

fn nobody(file: &WorkerFile, found: usize, why: &str) -> NotReady {
    let region = &file.node.region;
    NotReady(if found == 0 {
        format!(
            "no orchestrator of region {region} was found within {} s over {:?}: is the mesh up, and is one of these bootstrap nodes reachable from here over UDP? Start this again the same way, it goes on where it was",
            PATIENCE.as_secs(),
            file.node.bootstrap
        )
    } else {
        format!(
            "none of the {found} orchestrators of region {region} that announce themselves could be linked with within {} s: {why}. Start this again the same way, it goes on where it was",
            PATIENCE.as_secs()
        )
    })
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
