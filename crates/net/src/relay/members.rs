//! Who may use a relay: whoever is a member of its mesh, a few times at once. [T-REL-2]

use crate::clock::now_ms;
use iroh_relay::server::{Access as Verdict, AccessControl, ClientRequest, ConnectionId};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tether_wire::grant::{Access, Mesh};
use tether_wire::{Grant, Membership, NodeId, Signable, Signed};

/// Connections of one key: one, and those that it lost without the relay's knowing.
const MAX_PER_KEY: usize = 4;
/// Most characters of a shown grant, in hex: twice the limit of its envelope.
const MAX_TOKEN: usize = 2 * Grant::MAX_BYTES;

/// Counts clients, and decides on new ones.
#[derive(Debug)]
pub(super) struct Members {
    mesh: Mesh,
    max: usize,
    connected: Mutex<HashMap<NodeId, usize>>,
}

impl Members {
    pub(super) fn new(mesh: Mesh, max: usize) -> Self {
        Self {
            mesh,
            max,
            connected: Mutex::default(),
        }
    }

    /// Clients that are connected.
    pub(super) fn count(&self) -> usize {
        self.connected().values().sum()
    }

    fn connected(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.connected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in whose key is proved.
    fn enter(&self, key: NodeId, token: Option<&str>, now_ms: u64) -> Result<(), String> {
        self.check(key, token, now_ms)?;
        let mut connected = self.connected();
        if connected.values().sum::<usize>() >= self.max {
            return Err("the relay has no room".to_owned());
        }
        let own = connected.entry(key).or_default();
        if *own >= MAX_PER_KEY {
            return Err("this key is connected already".to_owned());
        }
        *own += 1;
        Ok(())
    }

    fn check(&self, key: NodeId, token: Option<&str>, now_ms: u64) -> Result<(), String> {
        if self.mesh.access == Access::Open {
            return Ok(());
        }
        let token = token.ok_or("the relay is for members of its mesh: show a grant")?;
        if token.len() > MAX_TOKEN {
            return Err("what is shown is too long for a grant".to_owned());
        }
        let bytes = hex::decode(token).map_err(|_| "what is shown is no grant")?;
        let grant = Membership::new(self.mesh).verify_grant(&Signed::from_bytes(bytes), now_ms);
        let grant = grant.map_err(|error| format!("the grant does not hold: {error}"))?;
        match grant.subject == key {
            true => Ok(()),
            false => Err("the grant is another key's".to_owned()),
        }
    }

    fn leave(&self, key: NodeId) {
        let mut connected = self.connected();
        if let Some(own) = connected.get_mut(&key) {
            *own -= 1;
            if *own == 0 {
                connected.remove(&key);
            }
        }
    }
}

impl AccessControl for Members {
    async fn on_connect(&self, request: &ClientRequest) -> Verdict {
        let key = NodeId(*request.endpoint_id().as_bytes());
        match self.enter(key, request.auth_token().as_deref(), now_ms()) {
            Ok(()) => Verdict::Allow,
            Err(why) => {
                tracing::debug!(%key, why, "the relay refuses a client");
                Verdict::Deny { reason: Some(why) }
            }
        }
    }

    fn on_disconnect(&self, key: iroh::EndpointId, _: ConnectionId) {
        self.leave(NodeId(*key.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LocalMesh, key};
    use tether_wire::Role;

    fn shown(mesh: &LocalMesh, subject: NodeId) -> String {
        hex::encode(mesh.grant(subject, Role::Worker, |_| ()))
    }

    /// [T-REL-2]
    #[test]
    fn a_private_meshs_relay_is_for_who_shows_a_grant_that_holds() {
        let (mesh, other) = (
            LocalMesh::new(Access::Invite),
            LocalMesh::new(Access::Invite),
        );
        let members = Members::new(mesh.mesh, 10);
        let id = key().id();
        let enter = |token: Option<&str>| members.enter(id, token, now_ms());
        enter(None).expect_err("nothing shown");
        enter(Some("zz")).expect_err("no grant");
        enter(Some(&"0".repeat(MAX_TOKEN + 2))).expect_err("too long");
        enter(Some(&shown(&other, id))).expect_err("another mesh's");
        enter(Some(&shown(&mesh, key().id()))).expect_err("another key's");
        let past =
            hex::encode(mesh.grant(id, Role::Worker, |grant| grant.expires_ms = now_ms() - 1));
        enter(Some(&past)).expect_err("over");
        assert_eq!(members.count(), 0);
        enter(Some(&shown(&mesh, id))).expect("a member");
        assert_eq!(members.count(), 1);
        Members::new(LocalMesh::new(Access::Open).mesh, 1)
            .enter(id, None, now_ms())
            .expect("an open mesh's relay is for all");
    }

    /// [T-REL-2]
    #[test]
    fn neither_one_key_nor_many_take_more_places_than_there_are() {
        let members = Members::new(LocalMesh::new(Access::Open).mesh, MAX_PER_KEY + 1);
        let (one, other, third) = (key().id(), key().id(), key().id());
        for _ in 0..MAX_PER_KEY {
            members.enter(one, None, 0).expect("room");
        }
        members.enter(one, None, 0).expect_err("enough of this key");
        members.enter(other, None, 0).expect("another key");
        members.enter(third, None, 0).expect_err("no room");
        members.leave(one);
        members.enter(third, None, 0).expect("a place was left");
        for key in [one, one, one, other, third] {
            members.leave(key);
        }
        assert_eq!(members.count(), 0);
        assert!(members.connected().is_empty());
    }
}
