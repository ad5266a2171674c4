//! An orchestrator tells the nodes that are linked with it. [T-CTL-6]

use super::{Members, MembershipNews};
use crate::link::Link;
use std::time::Duration;
use tether_wire::rpc::{RpcError, method};

/// Pause before a peer that ended the call is told again.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells a peer all that is known, and then what is new, until its link is down.
pub(crate) async fn tell(members: Members, link: Link) {
    let mut changed = members.changed();
    let mut told = 0;
    loop {
        if !members.since(told).is_empty()
            && let Err(error) = tell_from(&members, &link, &mut told).await
        {
            tracing::debug!(peer = %link.peer().id, %error, "not told who belongs to the mesh");
            told = 0;
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => continue,
                _ = link.closed() => return,
            }
        }
        tokio::select! {
            news = changed.changed() => if news.is_err() { return },
            _ = link.closed() => return,
        }
    }
}

/// One call tells what is there now; a mesh in which nothing is revoked opens none.
async fn tell_from(members: &Members, link: &Link, told: &mut usize) -> Result<(), RpcError> {
    let mut call = link.call(method::CONTROL, None, &[]).await?;
    for news in members.since(*told) {
        if let MembershipNews::Learnt(_, control) = news {
            call.send(&control).await?;
        }
        *told += 1;
    }
    call.finish_sending().await;
    while call.next().await?.is_some() {}
    Ok(())
}
