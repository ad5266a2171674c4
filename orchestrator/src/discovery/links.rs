//! Nodes whose link breaks, is silent or speaks again. [T-LIV-2]

use crate::fleet::keeper::Fleet;
use tether_net::{LinkEvent, Node};
use tether_presence::{Event, Input};
use tether_wire::{NodeId, Role};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Tells of them, until `stop`.
pub(crate) async fn watch_links(node: Node, fleet: Fleet, stop: CancellationToken) {
    let mut events = node.events();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => return,
            event = events.recv() => event,
        };
        match event {
            Ok(LinkEvent::Lively(peer)) => {
                fleet.tell(Input::Own(Event::LinkLively(peer.id))).await;
            }
            Ok(LinkEvent::Up(_)) => {}
            // It lives, and its beats come by others.
            Ok(LinkEvent::Down {
                peer,
                is_surplus: true,
                ..
            }) => {
                if node.linked(&peer.id).is_none() {
                    fleet.tell(Input::Own(Event::LinkClosed(peer.id))).await;
                }
            }
            Ok(LinkEvent::Down { peer, .. } | LinkEvent::Quiet(peer)) => {
                doubt(&node, &fleet, peer.id, peer.role).await;
            }
            // Some events were missed: look at everybody.
            Err(RecvError::Lagged(_)) => {
                let fleet_now = fleet.snapshot();
                for worker in fleet_now.workers() {
                    doubt(&node, &fleet, worker.id(), Role::Worker).await;
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The newest link of a key replaces the one before, whose end then means nothing.
async fn doubt(node: &Node, fleet: &Fleet, id: NodeId, role: Role) {
    match (node.linked(&id), role) {
        (None, Role::Worker) => fleet.unreachable(id, "its link broke").await,
        (None, _) => fleet.tell(Input::Own(Event::LinkLost(id))).await,
        (Some(link), Role::Worker) if link.is_quiet() => {
            fleet.suspect(id, "its link is silent").await;
        }
        (Some(link), _) if link.is_quiet() => {
            fleet.tell(Input::Own(Event::LinkQuiet(id))).await;
        }
        (Some(_), _) => {}
    }
}
