//! Links that others dial. What is refused is answered, logged within a budget, and counted.

use super::{Inner, bar, run};
use crate::clock::now_ms;
use crate::config::NodeConfig;
use crate::gate::Place;
use crate::link::greeting::{self, Greeted, GreetingError};
use crate::link::rivals::Origin;
use crate::link::{Admitted, Link};
use crate::transport::{ArriveError, Arriving, CloseCode, Connection};
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tether_wire::link::{Hello, Refusal, RefusalCode, admit};
use tether_wire::{NodeId, Role};

/// How long a peer that dials us while we dial it waits for our dial to end: then both sides use
/// that one, and nothing has to be taken back. As many round trips as a dial takes, within these
/// bounds: where ours needs longer, it goes to where the peer was before it was restarted.
const OWN_DIAL_ROUND_TRIPS: u32 = 4;
const OWN_DIAL_LEAST: Duration = Duration::from_millis(100);
const OWN_DIAL_MOST: Duration = Duration::from_secs(1);

/// Takes links until the node stops.
pub(super) async fn accept_links(node: Arc<Inner>) {
    loop {
        let arriving = tokio::select! {
            arriving = node.endpoint.accept() => arriving,
            () = node.stop.cancelled() => break,
        };
        let Some(arriving) = arriving else { break };
        if !arriving.is_validated() && node.gate.is_crowded() {
            arriving.ask_for_proof();
            continue;
        }
        let ip = arriving.remote_ip();
        match node.gate.enter(ip) {
            Ok(place) => {
                node.tasks.spawn(arrive(node.clone(), arriving, ip, place));
            }
            Err(full) => {
                let refusal = Refusal::new(RefusalCode::Busy, full.to_string());
                report(&node, None, None, ip, &refusal);
                arriving.refuse();
            }
        }
    }
}

async fn arrive(node: Arc<Inner>, arriving: Arriving, ip: Option<IpAddr>, place: Place) {
    let within = node.limits.greeting_timeout;
    let connection = match tokio::time::timeout(within, arriving.complete()).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(ArriveError::Version(why))) => {
            let refusal = Refusal::new(RefusalCode::Version, why);
            return report(&node, None, None, ip, &refusal);
        }
        Ok(Err(ArriveError::Failed(why))) => {
            return tracing::debug!(?ip, why, "a handshake came to nothing");
        }
        Err(_) => return tracing::debug!(?ip, "a handshake took too long"),
    };
    let peer = connection.peer();
    // Before a word is read of it.
    if let Err(refusal) = node.config.members.current().check_key(&peer) {
        report(&node, Some(peer), None, ip, &refusal);
        return connection.close(CloseCode::of(refusal.code), &refusal.message);
    }
    let greeting = async {
        let greeted = greeting::receive(&connection).await;
        greet(&node, &connection, greeted, ip, place).await
    };
    let greeting = tokio::select! {
        greeting = tokio::time::timeout(within, greeting) => greeting,
        () = node.stop.cancelled() => return connection.close(CloseCode::Done, "the node is shutting down"),
    };
    match greeting {
        Ok(Ok(())) => {}
        Ok(Err(GreetingError::Malformed(refusal))) => report(&node, Some(peer), None, ip, &refusal),
        Ok(Err(GreetingError::RefusedByPeer(refusal))) => {
            node.config.metrics.refused_by_peer(refusal.code.as_str());
            tracing::info!(%peer, %refusal, "a node that dialled this one refused the link");
        }
        Ok(Err(GreetingError::Lost(why))) => {
            tracing::debug!(%peer, why, "a greeting came to nothing")
        }
        Err(_) => {
            let ms = within.as_millis();
            let refusal = Refusal::new(
                RefusalCode::Malformed,
                format!("no whole greeting within {ms} ms"),
            );
            report(&node, Some(peer), None, ip, &refusal);
            connection.close(CloseCode::Refused, &refusal.message);
        }
    }
}

/// Refuses one that has greeted, with what it needs to believe it: by whom, where it shows an invite,
/// and what was revoked, which it may not have heard of. [T-LNK-4]
async fn refuse(config: &NodeConfig, connection: &Connection, greeted: Greeted, refusal: Refusal) {
    let hello = &greeted.hello;
    let shown = hello
        .grant
        .as_deref()
        .filter(|_| refusal.code == RefusalCode::Revoked);
    let refusal = Refusal {
        grant: config.grant.clone().filter(|_| hello.invite.is_some()),
        revocation: shown.and_then(|grant| config.members.proof_against(grant)),
        ..refusal
    };
    greeted.refuse(connection, &refusal).await;
}

/// Decides on one that has greeted.
async fn greet(
    node: &Arc<Inner>,
    connection: &Connection,
    greeted: Result<Greeted, GreetingError>,
    ip: Option<IpAddr>,
    place: Place,
) -> Result<(), GreetingError> {
    let greeted = greeted?;
    let (config, id) = (&node.config, connection.peer());
    let members = config.members.current();
    let admitted = admit(&members, &config.accept, id, &greeted.hello, now_ms());
    let peer = match admitted {
        Ok(peer) => peer,
        Err(refusal) => {
            report(node, Some(id), Some(greeted.hello.role), ip, &refusal);
            refuse(config, connection, greeted, refusal).await;
            return Ok(());
        }
    };
    let origin = Origin {
        dialled_here: false,
        peer_boot: greeted.hello.boot,
    };
    if node.id() < id
        && let Some(own_dial) = node.dials.under_way(&id)
    {
        let _ = tokio::time::timeout(own_dial_takes(connection.round_trip()), own_dial).await;
    }
    if node.links.rival(&id, origin).is_some() {
        let refusal = Refusal::new(RefusalCode::Busy, "there is a link between us already");
        tracing::debug!(peer = %id, "both sides dialled at once; ours is kept");
        refuse(config, connection, greeted, refusal).await;
        return Ok(());
    }
    let admitted = Admitted::new(peer, greeted.hello.clone());
    if let Err(refusal) = bar::learn(node, admitted.grant.as_deref()).await {
        report(node, Some(id), Some(greeted.hello.role), ip, &refusal);
        refuse(config, connection, greeted, refusal).await;
        return Ok(());
    }
    let hello = Hello {
        observed: connection.peer_address(),
        ..node.hello()
    };
    greeted.welcome(connection, hello).await?;
    let link = Link::new(
        admitted,
        connection.clone(),
        origin,
        Vec::new(),
        node.limits.clone(),
        config.metrics.clone(),
        node.look.clone(),
    );
    // Which link is kept does not matter here: the dialler finds out by the same rule.
    let _ = run::install(node, link, place);
    Ok(())
}

/// How long a dial to a peer that is there takes at most.
fn own_dial_takes(round_trip: Duration) -> Duration {
    (round_trip * OWN_DIAL_ROUND_TRIPS).clamp(OWN_DIAL_LEAST, OWN_DIAL_MOST)
}

/// Counts a refusal, and logs it while strangers have not used up the budget.
fn report(
    node: &Inner,
    peer: Option<NodeId>,
    role: Option<Role>,
    ip: Option<IpAddr>,
    refusal: &Refusal,
) {
    let code = refusal.code.as_str();
    node.config.metrics.refused(code);
    let mut budget = node.refusals.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(suppressed) = budget.spend(Instant::now()) {
        let peer = peer.map(|peer| peer.to_string());
        let role = role.map(|role| role.to_string());
        tracing::info!(code, reason = %refusal, peer, role, ?ip, suppressed, "refused a link");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_dial_is_waited_for_as_long_as_it_takes_where_the_peer_is_there() {
        let takes_ms = |round_trip| own_dial_takes(Duration::from_millis(round_trip)).as_millis();
        assert_eq!([0, 5, 80, 900].map(takes_ms), [100, 100, 320, 1_000]);
    }
}
