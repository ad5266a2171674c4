//! Workers that come by an invite get their grant. (PRE-6) [T-INV-3]
//!
//! The link was admitted by the invite, whose signature, times and uses the greeting has checked.
//! What is left to show is the secret; what is left to do is to give the grant, and to let all know
//! that one use of the invite is spent, before the worker has it.

use crate::clock;
use tether_net::{Incoming, Members, NodeConfig};
use tether_wire::grant::GrantError;
use tether_wire::invite::{Join, Joined};
use tether_wire::membership::ControlError;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Control, Grant, Invite, NodeId, NodeKey, Role, Signed, Verified, codec};

/// Most bytes of the question.
const MAX_JOIN_BYTES: usize = 128;

/// Serves `join` calls.
pub(crate) struct Joins {
    key: NodeKey,
    /// This orchestrator's own grant, which it shows in those that it gives.
    own: Option<Vec<u8>>,
    members: Members,
}

impl Joins {
    pub(crate) fn new(config: &NodeConfig) -> Self {
        Self {
            key: config.key.clone(),
            own: config.grant.clone(),
            members: config.members.clone(),
        }
    }

    /// Gives a worker its grant for the secret of its invite.
    pub(crate) async fn serve(&self, mut call: Incoming) -> Result<(), RpcError> {
        let peer = call.peer().clone();
        let Some(invite) = call.link().invite().filter(|_| peer.is_joining) else {
            let why = "only a worker that shows an invite and no grant joins";
            return Err(RpcError::new(Code::Forbidden, why));
        };
        let asked = call.recv(MAX_JOIN_BYTES).await?;
        let join: Join = codec::decode("join", &asked.unwrap_or_default(), MAX_JOIN_BYTES)
            .map_err(|error| RpcError::new(Code::Invalid, error.to_string()))?;
        let grant = self.let_in(peer.id, invite, &join).await?;
        tracing::info!(worker = %peer.id, region = %peer.region, "a worker joined by an invite");
        call.send(&codec::encode(&Joined { grant })).await
    }

    async fn let_in(
        &self,
        worker: NodeId,
        invite: Vec<u8>,
        join: &Join,
    ) -> Result<Vec<u8>, RpcError> {
        let forbidden = |why: String| RpcError::new(Code::Forbidden, why);
        let now_ms = clock::now().unix_ms;
        let sealed = Signed::<Invite>::from_bytes(invite.as_slice());
        let invite_now = (self.members.current())
            .verify_invite(&sealed, &worker, now_ms)
            .map_err(|error| forbidden(error.to_string()))?;
        if Invite::digest_of(&join.secret) != invite_now.secret {
            return Err(forbidden(
                "the secret is not the one of the invite: was the token copied whole?".to_owned(),
            ));
        }
        let mesh = self.members.mesh();
        let grant = self.grant(worker, &invite_now, invite, now_ms);
        let grant = grant.map_err(|error| forbidden(error.to_string()))?;
        let sealed = Signed::seal(&self.key, &mesh.id, &grant).map_err(|error| internal(&error))?;
        // Two who ask at once for the last place get it both; who came first keeps it.
        let control = codec::encode(&Control::Grant(sealed.as_bytes().to_vec()));
        (self.members.learn(&control).await).map_err(|error| match error {
            ControlError::Unauthorised(why) => forbidden(why.to_string()),
            error => internal(&error),
        })?;
        (self.members.current())
            .verify_grant(&sealed, now_ms)
            .map_err(|error| forbidden(error.to_string()))?;
        Ok(sealed.as_bytes().to_vec())
    }

    fn grant(
        &self,
        worker: NodeId,
        invite: &Verified<Invite>,
        sealed: Vec<u8>,
        now_ms: u64,
    ) -> Result<Grant, GrantError> {
        let shown = self.own.clone().unwrap_or_default();
        let own = (self.members.current()).verify_grant(&Signed::from_bytes(shown), now_ms)?;
        let mesh = self.members.mesh();
        let inviter = match &invite.issuer {
            Some(sealed) => {
                Signed::<Grant>::from_bytes(sealed.as_slice())
                    .verify(&mesh.id)?
                    .expires_ms
            }
            None => u64::MAX,
        };
        // Within the times of invite and grant, also where this clock is a little behind.
        let not_before_ms = now_ms.max(invite.not_before_ms).max(own.not_before_ms);
        let expires_ms = not_before_ms.saturating_add(invite.grant_life_ms);
        Ok(Grant {
            subject: worker,
            role: Role::Worker,
            region: Some(invite.region.clone()),
            tier: invite.tier,
            not_before_ms,
            expires_ms: expires_ms.min(own.expires_ms).min(inviter),
            serial: rand::random::<u64>() >> 11,
            issuer: self.own.clone(),
            consent: None,
            invite: Some(sealed),
        })
    }
}

fn internal(error: &dyn std::error::Error) -> RpcError {
    tracing::error!(%error, "a worker with a good invite cannot be let in");
    RpcError::new(
        Code::Internal,
        format!("this orchestrator cannot let workers in: {error}"),
    )
}
