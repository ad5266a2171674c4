//! Calls that are about belonging to the mesh, before all others.

use super::Members;
use crate::rpc::{Incoming, Service};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use std::sync::Arc;
use tether_wire::Role;
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::rpc::{Code, RpcError, method};

/// Control messages that are taken in one go, where so many have come.
const MAX_AT_ONCE: usize = 256;

/// Attempts to join over one link: an answer may be lost, and each costs signatures. [T-INV-3]
const MAX_JOINS: usize = 3;

/// Takes control messages, keeps those who only join from everything else, and gives the rest to the
/// role.
pub(crate) struct Reception {
    pub(crate) members: Members,
    pub(crate) service: Arc<dyn Service>,
}

impl Service for Reception {
    fn serve(&self, call: Incoming) -> BoxFuture<'static, Result<(), RpcError>> {
        let is_join = call.method() == method::JOIN;
        if call.peer().is_joining && !is_join {
            let why = "a worker that shows an invite may only join: it needs a grant for more";
            return refuse(why);
        }
        if is_join && call.link().count_join() >= MAX_JOINS {
            return refuse("too many attempts to join over one link");
        }
        if call.method() != method::CONTROL {
            return self.service.serve(call);
        }
        let members = self.members.clone();
        match call.peer().role {
            Role::Orchestrator | Role::Operator => Box::pin(listen(members, call)),
            _ => refuse("only orchestrators and operators pass control messages on"),
        }
    }
}

fn refuse(why: &'static str) -> BoxFuture<'static, Result<(), RpcError>> {
    Box::pin(std::future::ready(Err(RpcError::new(Code::Forbidden, why))))
}

/// Takes what comes until the peer ends the call. What it should not have sent takes nothing from
/// the rest; the call then ends with the reason, so that an operator sees what is wrong with its
/// message. What was taken is on the disk when the call ends.
async fn listen(members: Members, call: Incoming) -> Result<(), RpcError> {
    let from = call.peer().id;
    let items = stream::unfold(Some(call), async |call| {
        let mut call = call?;
        match call.recv(MAX_CONTROL_BYTES).await {
            Ok(item) => Some((Ok(item?), Some(call))),
            Err(error) => Some((Err(error), None)),
        }
    });
    let mut parts = std::pin::pin!(items.ready_chunks(MAX_AT_ONCE));
    let (mut refused, mut shed, mut ended) = (None, 0, Ok(()));
    while ended.is_ok()
        && let Some(part) = parts.next().await
    {
        let (mut controls, mut broke) = (Vec::with_capacity(part.len()), None);
        for item in part {
            match item {
                Ok(item) => controls.push(item),
                Err(error) => broke = Some(error),
            }
        }
        let heard = members.hear(from, controls).await;
        if heard.news > 0 {
            tracing::info!(%from, news = heard.news, "who belongs to the mesh has changed");
        }
        if let Some(error) = heard.refused {
            tracing::warn!(%from, %error, "a control message is not taken");
            refused = refused.or(Some(RpcError::new(Code::Invalid, error.to_string())));
        }
        shed += heard.shed;
        ended = broke.map_or(Ok(()), Err);
    }
    let kept = members.keep().await;
    ended?;
    kept.map_err(|error| RpcError::new(Code::Internal, error.to_string()))?;
    if shed > 0 {
        let why = format!("{shed} control messages were passed over: send them again later");
        return Err(RpcError::new(Code::Overloaded, why));
    }
    refused.map_or(Ok(()), Err)
}
