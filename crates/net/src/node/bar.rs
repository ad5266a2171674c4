//! Links of those who no longer belong to the mesh end. [T-CTL-4]

use super::{Inner, now_ms};
use crate::link::Link;
use crate::transport::CloseCode;
use std::sync::Arc;
use tether_wire::link::{Refusal, RefusalCode};
use tether_wire::membership::ControlError;
use tether_wire::{Control, Membership, Signed, codec};

/// Looks at all links whenever something changed, until the node stops.
pub(super) async fn run(node: Arc<Inner>) {
    let members = node.config.members.clone();
    let mut changed = members.changed();
    let metrics = node.config.metrics.clone();
    metrics.membership(members.current().counts());
    loop {
        tokio::select! {
            news = changed.changed() => if news.is_err() { return },
            () = node.stop.cancelled() => return,
        }
        changed.mark_unchanged();
        let current = members.current();
        metrics.membership(current.counts());
        for link in node.links.all() {
            check(&node, &current, &link);
            tokio::task::yield_now().await;
        }
    }
}

/// Closes a link that is admitted no more. Asked of each new link, too, once it is among the links:
/// something may have changed since it was admitted, and before it was there to be looked at.
pub(super) fn check(node: &Inner, members: &Membership, link: &Link) {
    if let Err(refusal) = look(members, link) {
        let peer = link.peer();
        tracing::warn!(peer = %peer.id, role = %peer.role, %refusal, "its link is closed");
        node.config.metrics.refused(refusal.code.as_str());
        link.close_as(CloseCode::of(refusal.code), &refusal.message);
    }
}

/// Whether a peer would be admitted again, as far as that can have changed.
fn look(members: &Membership, link: &Link) -> Result<(), Refusal> {
    members.check_key(&link.peer().id)?;
    match link.grant() {
        Some(grant) => members
            .verify_grant(&Signed::from_bytes(grant), now_ms())
            .map(drop)
            .map_err(Refusal::from),
        None => Ok(()),
    }
}

/// A grant that was passed on shows which key it replaces; one by an invite, that it was used. Where
/// that cannot be remembered, the new key is refused: the old one could not be.
pub(super) async fn learn(node: &Inner, grant: Option<&[u8]>) -> Result<(), Refusal> {
    let Some(grant) = grant else { return Ok(()) };
    let control = codec::encode(&Control::Grant(grant.to_vec()));
    match node.config.members.learn(&control).await {
        Err(error @ ControlError::Full { .. }) => {
            Err(Refusal::new(RefusalCode::Busy, error.to_string()))
        }
        // A plain grant shows neither, and is no error.
        _ => Ok(()),
    }
}
