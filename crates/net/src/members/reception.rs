//! Calls that are about belonging to the mesh, before all others.

use super::Members;
use crate::rpc::{Incoming, Service};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tether_wire::Role;
use tether_wire::control::MAX_CONTROL_BYTES;
use tether_wire::rpc::{Code, RpcError, method};

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

/// Takes what comes until the peer ends the call. What it should not have sent keeps nobody from what
/// comes after it; the answer names the first of that, so that an operator sees what is wrong with
/// its message.
async fn listen(members: Members, mut call: Incoming) -> Result<(), RpcError> {
    let from = call.peer().id;
    let mut wrong = None;
    let ended = loop {
        let item = match call.recv(MAX_CONTROL_BYTES).await {
            Ok(Some(item)) => item,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        match members.take(&item) {
            Ok(true) => tracing::info!(%from, "a control message changed who belongs to the mesh"),
            Ok(false) => {}
            Err(error) => {
                wrong.get_or_insert(error);
            }
        }
        tokio::task::yield_now().await;
    };
    members.keep().await;
    ended?;
    wrong.map_or(Ok(()), |error| {
        tracing::warn!(%from, %error, "a control message is not taken");
        Err(RpcError::new(Code::Invalid, error.to_string()))
    })
}
