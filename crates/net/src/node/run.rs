//! A link's life, from the end of its greeting to its own.

use super::links::Installed;
use super::{Inner, now_ms};
use crate::gate::Place;
use crate::link::Link;
use crate::rpc;
use crate::transport::CloseCode;
use std::sync::Arc;
use std::time::Duration;

/// How long a link that lost against a simultaneous one lives on, for calls that were made on it.
const RETIREMENT: Duration = Duration::from_secs(5);
/// Longest sleep until a grant's end: wall clocks are set, sleeps do not notice.
const LONGEST_NAP: Duration = Duration::from_secs(600);

/// Takes a greeted link in, and runs it. Gives the link that is kept.
pub(super) fn install(node: &Arc<Inner>, link: Link, mut place: Place) -> Result<Link, Link> {
    place.greeted();
    match node.links.install(&link) {
        Installed::Superfluous(kept) => {
            link.close_as(CloseCode::Duplicate, "another link is kept");
            return Err(kept);
        }
        Installed::KeptAndRetired(old) => {
            node.tasks.spawn(async move {
                let retire = tokio::time::timeout(RETIREMENT, old.closed());
                if retire.await.is_err() {
                    old.close_as(CloseCode::Duplicate, "another link is kept");
                }
            });
        }
        Installed::Kept => {}
    }
    node.tasks.spawn(run(node.clone(), link.clone(), place));
    Ok(link)
}

async fn run(node: Arc<Inner>, link: Link, place: Place) {
    let closed = link.connection().closed();
    let expiry = grant_expiry(&link);
    tokio::pin!(closed, expiry);
    let mut may_expire = true;
    let reason = loop {
        tokio::select! {
            (_, reason) = &mut closed => break reason,
            () = &mut expiry, if may_expire => {
                may_expire = false;
                tracing::info!(peer = %link.peer().id, "the peer's grant is over, its link is closed");
                link.close_as(CloseCode::Expired, "the grant of this node is over");
            }
            stream = link.connection().accept() => match stream {
                Ok((send, recv)) => {
                    let call = rpc::serve(link.clone(), node.service.clone(), send, recv);
                    node.tasks.spawn(call);
                }
                // The end of the connection follows.
                Err(_) => break (&mut closed).await.1,
            },
        }
    };
    let reason = link.mark_down(reason);
    node.links.remove(&link, reason);
    drop(place);
}

/// Waits until the peer's grant is over.
async fn grant_expiry(link: &Link) {
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
