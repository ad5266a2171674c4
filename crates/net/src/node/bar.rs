//! Links of those who no longer belong to the mesh end. [T-CTL-4]

use super::Inner;
use crate::clock::now_ms;
use crate::link::Link;
use crate::members::Members;
use crate::transport::CloseCode;
use std::sync::Arc;
use std::time::Duration;
use tether_wire::link::{Refusal, RefusalCode};
use tether_wire::membership::ControlError;
use tether_wire::{Control, Membership, Signed, codec};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tokio_util::task::AbortOnDropHandle;

/// How often what is over is forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);
/// What was heard is put on the disk at most once in this time; what an operator says, at once.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Pause before it is tried again.
const KEEP_AGAIN: Duration = Duration::from_secs(5);
/// How long a link lives on whose peer fell with something that its grant rests on: what was revoked
/// is passed on over it first. [T-CTL-4]
const FALL_GRACE: Duration = Duration::from_millis(300);
/// Links that are judged in one go: some 20 ms.
const MAX_IN_ONE_GO: usize = 64;

/// Looks at all links whenever something changed, until the node stops. The keys are looked at here
/// and at once; what takes longer is done beside that.
pub(super) async fn run(node: Arc<Inner>) {
    let members = node.config.members.clone();
    let mut changed = members.changed();
    let metrics = node.config.metrics.clone();
    let _keeping = AbortOnDropHandle::new(tokio::spawn(keep(members.clone())));
    let mut judged = members.current().unseated();
    let mut judging: Option<AbortOnDropHandle<()>> = None;
    let mut own = Ok(());
    let (mut due, mut began) = (None, Instant::now());
    let mut rest_until = began;
    loop {
        let current = members.current();
        metrics.membership(current.counts());
        for link in node.links.all() {
            close_if(&node, &link, current.check_key(&link.peer().id));
        }
        tell_own(&node, &current, &mut own);
        let now = Instant::now();
        if current.unseated() != judged && due.is_none() {
            due = Some(rest_until.max(now + FALL_GRACE));
        }
        if judging.is_none() && due.is_some_and(|due| due <= now) {
            (judged, due, began) = (current.unseated(), None, now);
            let judge = tokio::spawn(judge_all(node.clone(), current));
            judging = Some(AbortOnDropHandle::new(judge));
        }
        tokio::select! {
            news = changed.changed() => if news.is_err() { return },
            // Half of the time at most, however often something changes.
            () = over(&mut judging) => rest_until = Instant::now() + began.elapsed(),
            () = sleep_until(due.unwrap_or(now)), if due.is_some_and(|due| due > now) => {}
            () = node.stop.cancelled() => break,
        }
    }
    // What cannot be kept was said where it failed.
    let _ = members.keep().await;
}

/// Says, once, that this node belongs to the mesh no more, and when it does again. It goes on asking: a
/// thief of the operator's key may have done that, which lasts until the key is revoked.
fn tell_own(node: &Inner, members: &Membership, before: &mut Result<(), Refusal>) {
    let config = &node.config;
    let now = members
        .check_key(&node.id())
        .and_then(|()| judge(members, config.grant.as_deref()));
    // That its time is over is told elsewhere.
    let now = now.or_else(|why| match why.code {
        RefusalCode::Revoked => Err(why),
        _ => Ok(()),
    });
    match (&now, &*before) {
        (Err(why), Ok(())) => {
            tracing::error!(%why, "this node belongs to the mesh no more, as its operator says");
        }
        (Ok(()), Err(_)) => tracing::info!("this node belongs to the mesh again"),
        _ => {}
    }
    *before = now;
}

/// Until the grants of all links were judged, if they are.
async fn over(judging: &mut Option<AbortOnDropHandle<()>>) {
    match judging {
        Some(task) => {
            let _ = task.await;
            *judging = None;
        }
        None => std::future::pending().await,
    }
}

/// Puts on the disk what was heard, and forgets what is over.
async fn keep(members: Members) {
    let mut changed = members.changed();
    let mut forget = tokio::time::interval(FORGET_INTERVAL);
    forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            news = changed.changed() => {
                if news.is_err() {
                    return;
                }
                tokio::time::sleep(KEEP_INTERVAL).await;
                while members.keep().await.is_err() {
                    tokio::time::sleep(KEEP_AGAIN).await;
                }
            }
            _ = forget.tick() => members.forget().await,
        }
    }
}

/// Judges the grants of all links anew: each takes some 300 µs.
async fn judge_all(node: Arc<Inner>, members: Arc<Membership>) {
    for part in node.links.all().chunks(MAX_IN_ONE_GO) {
        let (part, members) = (part.to_vec(), members.clone());
        let judge = move || {
            let looked = part
                .into_iter()
                .map(|link| (look_at_grant(&members, &link), link));
            looked.filter(|(looked, _)| looked.is_err()).collect()
        };
        let fallen: Vec<_> = tokio::task::spawn_blocking(judge).await.unwrap_or_default();
        for (looked, link) in fallen {
            close_if(&node, &link, looked);
        }
    }
}

/// Closes a link that is admitted no more. Asked of each new link, too, once it is among the links:
/// something may have changed since it was admitted, and before it was there to be looked at.
pub(super) fn check(node: &Inner, members: &Membership, link: &Link) {
    close_if(node, link, look(members, link));
}

fn close_if(node: &Inner, link: &Link, looked: Result<(), Refusal>) {
    // A new link may be looked at by itself and with all others at once: it is closed once.
    if let Err(refusal) = looked
        && link.close_as(CloseCode::of(refusal.code), &refusal.message)
    {
        let peer = link.peer();
        tracing::warn!(peer = %peer.id, role = %peer.role, %refusal, "its link is closed");
        node.config.metrics.refused(refusal.code.as_str());
    }
}

/// Whether a peer would be admitted again, as far as that can have changed.
fn look(members: &Membership, link: &Link) -> Result<(), Refusal> {
    members.check_key(&link.peer().id)?;
    look_at_grant(members, link)
}

fn look_at_grant(members: &Membership, link: &Link) -> Result<(), Refusal> {
    judge(members, link.grant())
}

fn judge(members: &Membership, grant: Option<&[u8]>) -> Result<(), Refusal> {
    match grant {
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
