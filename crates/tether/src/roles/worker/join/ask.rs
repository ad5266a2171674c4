//! What one peer says to a worker that wants to join, and whether it has proved to be an
//! orchestrator.

use super::search::{Around, Said};
use super::{JoinError, Joining};
use crate::authority::now_ms;
use rand::seq::SliceRandom;
use std::time::Duration;
use tether_net::{Link, LinkError, Node, remembered_orchestrators};
use tether_wire::invite::{Join, Joined};
use tether_wire::link::{Refusal, RefusalCode};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{Grant, NodeId, Role, Signable, Signed, Topic, Verified, codec};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long one look-up and one call may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most that one attempt dials.
const MAX_DIALLED: usize = 64;
/// Most of them that were linked with in earlier runs.
const MAX_REMEMBERED: usize = 16;
/// Most bytes of an answer: a grant and what is around it.
const MAX_ANSWER_BYTES: usize = Grant::MAX_BYTES + 64;

/// A worker that asks for its grant.
pub(super) struct Asking<'a> {
    joining: &'a Joining,
    node: &'a Node,
    /// Orchestrators that the configuration names, and those that have proved to be some in earlier
    /// runs: they cannot be crowded out by strangers.
    known: Vec<NodeId>,
    /// The secret is told to one after the other.
    telling: Mutex<()>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(joining: &'a Joining, node: &'a Node) -> Self {
        let section = &joining.file.node;
        let mut known = section.orchestrators.clone();
        let before = remembered_orchestrators(&section.data_dir);
        for id in before.into_iter().take(MAX_REMEMBERED) {
            if !known.contains(&id) {
                known.push(id);
            }
        }
        Self {
            joining,
            node,
            known,
            telling: Mutex::new(()),
        }
    }

    /// Tells an orchestrator the secret, and takes the grant that it gives.
    async fn tell(&self, link: &Link) -> Said<Granted> {
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
            secret: self.joining.token.secret,
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
    fn judge(&self, sealed: Signed<Grant>) -> Said<Granted> {
        let members = self.joining.members.current();
        let grant = match members.verify_grant(&sealed, now_ms()) {
            Ok(grant) => grant,
            Err(error) => {
                return Said::Nothing(format!("it gave a grant that does not hold: {error}"));
            }
        };
        let is_right = grant.subject == self.joining.id()
            && grant.role == Role::Worker
            && grant.region.as_ref() == Some(&self.joining.file.node.region);
        if !is_right {
            return Said::Nothing("it gave a grant for something else".to_owned());
        }
        Said::In((sealed, Box::new(grant)))
    }

    /// What a dial that failed says.
    fn not_linked(&self, id: NodeId, error: LinkError) -> Said<Granted> {
        let LinkError::Refused(refusal) = error else {
            return Said::Nothing(error.to_string());
        };
        if !self.has_proved(id, &refusal) {
            return Said::Unproven(refusal.message);
        }
        let Refusal { code, message, .. } = refusal;
        Said::Refused(match code {
            RefusalCode::Expired => JoinError::Expired(message),
            RefusalCode::Spent => JoinError::Spent(message),
            RefusalCode::Revoked => JoinError::Revoked(message),
            RefusalCode::Busy => return Said::Nothing(message),
            _ => JoinError::Refused(message),
        })
    }

    /// Whether one that refused is an orchestrator, by the grant that it shows or since it is known.
    /// The transport has proved its key.
    fn has_proved(&self, id: NodeId, refusal: &Refusal) -> bool {
        let shown = refusal.grant.as_deref().is_some_and(|grant| {
            let members = self.joining.members.current();
            let grant = members.verify_grant(&Signed::from_bytes(grant), now_ms());
            grant.is_ok_and(|grant| grant.subject == id && grant.role == Role::Orchestrator)
        });
        shown || self.known.contains(&id)
    }
}

/// A grant, sealed and read.
pub(super) type Granted = (Signed<Grant>, Box<Verified<Grant>>);

impl Around for Asking<'_> {
    type In = Granted;

    async fn look_up(&self) -> Vec<NodeId> {
        let topic = Topic::Control(self.joining.file.node.region.clone());
        let mut found = match timeout(LOOKUP_TIMEOUT, self.node.lookup(&topic)).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        // Nobody outside chooses who comes first where there are many.
        found.shuffle(&mut rand::rng());
        found.retain(|id| !self.known.contains(id));
        found.splice(0..0, self.known.iter().copied());
        found.truncate(MAX_DIALLED);
        found
    }

    async fn ask(&self, id: NodeId) -> Said<Granted> {
        match self.node.link(id, Role::Orchestrator).await {
            Ok(link) => {
                let _one = self.telling.lock().await;
                self.tell(&link).await
            }
            Err(error) => self.not_linked(id, error),
        }
    }
}
