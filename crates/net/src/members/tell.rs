//! An orchestrator tells the nodes that are linked with it. [T-CTL-6]

use super::{Members, MembershipNews};
use crate::link::Link;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::membership::Fact;
use tether_wire::rpc::{Code, RpcError, method};

/// Pause before a peer that did not hear all is told again.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells a peer all that is known, and then what is new, until its link is down.
pub(crate) async fn tell(members: Members, link: Link) {
    let mut changed = members.changed();
    let mut told = 0;
    loop {
        let (news, version) = members.since(told);
        let mut news: Vec<_> = news.into_iter().filter_map(concerning).collect();
        // What was taken back first.
        news.sort_by_key(|(is_revocation, _)| !is_revocation);
        let news: Vec<_> = news.into_iter().map(|(_, control)| control).collect();
        let end = match news.is_empty() {
            true => Ok(()),
            false => tell_these(&link, &news).await,
        };
        match end {
            Ok(()) => told = version,
            // It took the others, and will not take that one the next time either.
            Err(error) if error.code == Code::Invalid => {
                tracing::warn!(peer = %link.peer().id, %error, "a node does not take all that is known");
                told = version;
            }
            Err(error) => {
                tracing::debug!(peer = %link.peer().id, %error, "not told who belongs to the mesh");
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => continue,
                    _ = link.closed() => return,
                }
            }
        }
        tokio::select! {
            news = changed.changed() => if news.is_err() { return },
            _ = link.closed() => return,
        }
    }
}

/// What a worker or a gateway needs to know, and whether it takes something back: not who else came by an invite, or its traffic would
/// grow with the fleet.
fn concerning(news: MembershipNews) -> Option<(bool, Arc<[u8]>)> {
    match news {
        MembershipNews::Learnt(Fact::Used { .. }, _) | MembershipNews::Dropped(_) => None,
        MembershipNews::Learnt(fact, control) => Some((fact.is_revocation(), control)),
    }
}

/// One call tells what is there now; a mesh in which nothing is revoked opens none.
async fn tell_these(link: &Link, controls: &[Arc<[u8]>]) -> Result<(), RpcError> {
    let mut call = link.call(method::CONTROL, None, &[]).await?;
    for control in controls {
        call.send(control).await?;
    }
    call.finish_sending().await;
    while call.next().await?.is_some() {}
    Ok(())
}
