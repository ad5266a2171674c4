//! What changes who belongs to the mesh, from what this node keeps into the fleet. [T-SPR-9],
//! [T-CTL-4]

use crate::clock;
use crate::fleet::keeper::Fleet;
use std::collections::HashSet;
use std::sync::Arc;
use tether_net::{Members, MembershipNews};
use tether_presence::{Event, Input, Rejected, Signatures, Verifier};
use tether_wire::{Membership, NodeId, Signed};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Cards that are judged anew in one go, on a thread that may block.
const MAX_CARDS: usize = 256;

/// Tells the fleet what is known and then what is new, until `stop`.
pub(crate) async fn follow(members: Members, fleet: Fleet, stop: CancellationToken) {
    let mut changed = members.changed();
    let (mut version, mut barred, mut judged) = (0, HashSet::new(), 0);
    let mut may_judge_at = Instant::now();
    loop {
        let (news, next) = members.since(version);
        version = next;
        for news in news {
            fleet.tell(input(news)).await;
        }
        let current = members.current();
        let now_barred: HashSet<NodeId> = current.barred().collect();
        for key in now_barred.difference(&barred) {
            fleet.tell(Input::Own(Event::Revoked(*key))).await;
        }
        for key in barred.difference(&now_barred) {
            fleet.tell(Input::Own(Event::Unbarred(*key))).await;
        }
        barred = now_barred;
        // Grants that rest on what was revoked, and places of invites that others had before: half
        // of the time at most, however often something changes.
        let began = Instant::now();
        let unseated = current.unseated();
        if unseated != judged && began >= may_judge_at {
            judged = unseated;
            judge_anew(&fleet, current, &stop).await;
            may_judge_at = Instant::now() + began.elapsed();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            news = changed.changed() => if news.is_err() { return },
            () = sleep_until(may_judge_at), if unseated != judged => {}
        }
    }
}

fn input(news: MembershipNews) -> Input {
    match news {
        MembershipNews::Learnt(fact, control) => Input::Control {
            id: fact.id(),
            sealed: control.to_vec(),
            urgent: fact.is_revocation(),
        },
        MembershipNews::Dropped(fact) => Input::ControlGone(fact.id()),
    }
}

/// Judges the cards of all nodes again: verifying them takes some 200 µs each, so that a fleet of a
/// hundred thousand takes seconds; that of a revoked key itself is gone at once.
async fn judge_anew(fleet: &Fleet, members: Arc<Membership>, stop: &CancellationToken) {
    let cards = fleet.cards().await;
    for part in cards.chunks(MAX_CARDS) {
        let (part, members) = (part.to_vec(), members.clone());
        let judged = tokio::task::spawn_blocking(move || fallen(&part, members));
        for node in judged.await.unwrap_or_default() {
            fleet.tell(Input::Own(Event::GrantRevoked(node))).await;
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// Nodes whose cards count no more because something was revoked.
fn fallen(cards: &[Arc<[u8]>], members: Arc<Membership>) -> Vec<NodeId> {
    let (verifier, now_ms) = (Signatures { members }, clock::now().unix_ms);
    (cards.iter())
        .filter_map(|card| {
            let sealed = Signed::from_bytes(card.clone());
            match verifier.card(&sealed, now_ms) {
                Err(Rejected::Revoked) => sealed.claimed_signer(),
                _ => None,
            }
        })
        .collect()
}
