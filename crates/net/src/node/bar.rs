//! Links of those who no longer belong to the mesh end. [T-CTL-4]

use super::Inner;
use crate::clock::now_ms;
use crate::link::Link;
use crate::transport::CloseCode;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::link::{Refusal, RefusalCode};
use tether_wire::membership::ControlError;
use tether_wire::{Control, Membership, Signed, codec};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

/// How often what is over is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// Looks at all links whenever something changed, until the node stops.
pub(super) async fn run(node: Arc<Inner>) {
    let members = node.config.members.clone();
    let mut changed = members.changed();
    let metrics = node.config.metrics.clone();
    let mut forget = tokio::time::interval(FORGET_INTERVAL);
    forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut judged = members.current().unseated();
    let mut may_judge_at = Instant::now();
    loop {
        let current = members.current();
        metrics.membership(current.counts());
        for link in node.links.all() {
            close_if(&node, &link, current.check_key(&link.peer().id));
        }
        // Judging a grant takes some 300 µs, so that it is done apart and half of the time at most,
        // however often something changes.
        let began = Instant::now();
        if current.unseated() != judged && began >= may_judge_at {
            judged = current.unseated();
            judge_all(&node, current.clone()).await;
            may_judge_at = Instant::now() + began.elapsed();
        }
        tokio::select! {
            news = changed.changed() => if news.is_err() { return },
            () = sleep_until(may_judge_at), if current.unseated() != judged => {}
            _ = forget.tick() => members.forget().await,
            () = node.stop.cancelled() => return,
        }
    }
}

/// Judges the grants of all links anew.
async fn judge_all(node: &Arc<Inner>, members: Arc<Membership>) {
    let links = node.links.all();
    let judge = move || {
        let looked = links
            .into_iter()
            .map(|link| (look_at_grant(&members, &link), link));
        looked.filter(|(looked, _)| looked.is_err()).collect()
    };
    let fallen: Vec<_> = tokio::task::spawn_blocking(judge).await.unwrap_or_default();
    for (looked, link) in fallen {
        close_if(node, &link, looked);
    }
}

/// Closes a link that is admitted no more. Asked of each new link, too, once it is among the links:
/// something may have changed since it was admitted, and before it was there to be looked at.
pub(super) fn check(node: &Inner, members: &Membership, link: &Link) {
    close_if(node, link, look(members, link));
}

fn close_if(node: &Inner, link: &Link, looked: Result<(), Refusal>) {
    if let Err(refusal) = looked {
        let peer = link.peer();
        tracing::warn!(peer = %peer.id, role = %peer.role, %refusal, "its link is closed");
        node.config.metrics.refused(refusal.code.as_str());
        link.close_as(CloseCode::of(refusal.code), &refusal.message);
    }
}

/// Whether a peer would be admitted again, as far as that can have changed.
fn look(members: &Membership, link: &Link) -> Result<(), Refusal> {
    members.check_key(&link.peer().id)?;
    look_at_grant(members, link)
}

fn look_at_grant(members: &Membership, link: &Link) -> Result<(), Refusal> {
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
