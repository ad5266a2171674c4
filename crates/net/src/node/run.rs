//! A link's life, from the end of its greeting to its own.

use super::links::Installed;
use super::{Inner, bar};
use crate::clock::now_ms;
use crate::gate::Place;
use crate::link::Link;
use crate::members;
use crate::rpc;
use crate::transport::CloseCode;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::Role;

/// How long a link that lost against a simultaneous one lives on, for calls that were made on it.
const RETIREMENT: Duration = Duration::from_secs(5);
/// How long a worker that shows an invite has to join. [T-INV-3]
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest sleep until a grant's end: wall clocks are set, sleeps do not notice.
const LONGEST_NAP: Duration = Duration::from_secs(600);

/// Takes a greeted link in, and runs it. Where another link to the same peer is kept, gives that.
pub(super) fn install(node: &Arc<Inner>, link: Link, mut place: Place) -> Result<Link, Link> {
    place.greeted();
    let installed = match node.links.install(&link) {
        Installed::Superfluous(kept) if link.origin().dialled_here => {
            // The other side counts it only once we confirm the greeting: it goes unnoticed.
            link.close_as(CloseCode::Duplicate, "another link is kept");
            return Err(kept);
        }
        Installed::Superfluous(kept) => {
            // The other side has it already, and may not have the other one yet.
            retire(node, link.clone());
            Err(kept)
        }
        Installed::KeptAndRetired(old) => {
            retire(node, old);
            Ok(link.clone())
        }
        Installed::Kept => Ok(link.clone()),
    };
    node.tasks.spawn(run(node.clone(), link, place));
    installed
}

/// Closes a link that is no longer wanted, when the calls on it had time to end.
fn retire(node: &Inner, link: Link) {
    node.tasks.spawn(async move {
        let over = tokio::time::timeout(RETIREMENT, link.closed());
        if over.await.is_err() {
            link.close_as(CloseCode::Duplicate, "another link is kept");
        }
    });
}

async fn run(node: Arc<Inner>, link: Link, place: Place) {
    let tells = matches!(link.peer().role, Role::Worker | Role::Gateway) && !link.peer().is_joining;
    bar::check(&node, &node.config.members.current(), &link);
    if node.config.role == Role::Orchestrator && tells {
        (node.tasks).spawn(members::tell(node.config.members.clone(), link.clone()));
    }
    let closed = link.connection().closed();
    let expiry = grant_expiry(&link);
    tokio::pin!(closed, expiry);
    let mut may_expire = true;
    let (code, reason) = loop {
        tokio::select! {
            end = &mut closed => break end,
            () = &mut expiry, if may_expire => {
                may_expire = false;
                let peer = link.peer();
                if peer.is_joining {
                    link.close_as(CloseCode::Done, "the time to join is over");
                } else {
                    tracing::info!(peer = %peer.id, "the peer's grant is over, its link is closed");
                    link.close_as(CloseCode::Expired, "the grant of this node is over");
                }
            }
            stream = link.connection().accept() => match stream {
                Ok((send, recv)) => {
                    let call = rpc::serve(link.clone(), node.service.clone(), send, recv);
                    node.tasks.spawn(call);
                }
                // The end of the connection follows.
                Err(_) => break (&mut closed).await,
            },
        }
    };
    let reason = link.mark_down(reason);
    let is_surplus = code == Some(CloseCode::Surplus as u64);
    node.links.remove(&link, reason, is_surplus);
    drop(place);
    if node.links.get(&link.peer().id).is_none() {
        node.endpoint.unlinked(&link.peer().id).await;
    }
}

/// Waits until the peer's grant is over, or its time to join.
async fn grant_expiry(link: &Link) {
    if link.peer().is_joining {
        return tokio::time::sleep(JOIN_TIMEOUT).await;
    }
    let Some(expires_ms) = link.peer().grant_expires_ms else {
        return std::future::pending().await;
    };
    loop {
        let left = Duration::from_millis(expires_ms.saturating_sub(now_ms()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_NAP)).await;
    }
}
